"""Qwen2.5-VL: the video is one block of features whose positions in time are real seconds.

Positions are those that the model was trained with, by its authors' own `get_rope_index_25`: the text behind the video
goes on after the largest position of the video. transformers 5.23 starts it at the video's height or width instead (96
frames at 1 per second: 25 instead of 200); transformers 4.57 cuts the seconds of a step to whole ones first.
"""

from collections.abc import Sequence

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from tpo.models.family import VideoInput
from tpo.models.qwen_vl import QwenVL, grid_positions, text_positions


class Qwen25VL(QwenVL):
    """Every model of class Qwen2_5_VLForConditionalGeneration."""

    model_class = Qwen2_5_VLForConditionalGeneration
    template_video = "<|video_pad|>"
    pixels_count_all_frames = False

    def most_pixels(self, num_frames: int) -> int:
        if not self.bounded:
            return self.max_pixels
        budget = int((self.max_video_tokens or 128_000) * self.factor**2 * 0.9)
        return max(min(self.max_pixels, budget * self.temporal // num_frames), int(self.min_pixels * 1.05))

    def video_text(self, grid: tuple[int, int, int], times_s: Sequence[float]) -> str:  # noqa: ARG002
        steps, rows, columns = grid
        return self.template_video * (steps * rows * columns)

    def seconds_per_step(self, video: VideoInput) -> float:
        """From one step of the grid to the next, the library's `second_per_grid_ts`.

        By the mean distance of the frames shown. The library divides the frames by the whole video's duration, which
        is the same for frames taken at an even rate and would stretch a segment over the whole video.
        """
        shown_s = video.timestamps_s[-1] - video.timestamps_s[0]
        return float(self.temporal * shown_s / max(video.num_frames - 1, 1))

    def positions(self, ids: Sequence[int], video: VideoInput) -> torch.Tensor:
        start = list(ids).index(self.video_token_id)
        per_step = self.seconds_per_step(video) * self.config.vision_config.tokens_per_second
        times = (torch.arange(video.grid[0]) * per_step).long()
        seen = grid_positions(start, times, video.grid[1], video.grid[2])
        behind = len(ids) - start - video.num_features
        return torch.cat([text_positions(0, start), seen, text_positions(int(seen.max()) + 1, behind)], dim=1)
