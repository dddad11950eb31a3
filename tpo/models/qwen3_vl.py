"""Qwen3-VL: every step of the video stands in the prompt with its time in front, as `<12.5 seconds>`.

The prompt is the one of the release in which the authors brought the model: transformers 5.10 and later leave another
pair of start and end tokens around the whole video.

Its tower also hands features of three of its layers to the first layers of the decoder ("deepstack"); they travel with
the encoded video.
"""

from collections.abc import Sequence

import torch
from transformers import Qwen3VLForConditionalGeneration

from tpo.models.family import VideoInput
from tpo.models.qwen_vl import QwenVL, grid_positions, text_positions

_START, _PAD, _END = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"


class Qwen3VL(QwenVL):
    """Every model of class Qwen3VLForConditionalGeneration."""

    model_class = Qwen3VLForConditionalGeneration
    template_video = _START + _PAD + _END
    pixels_count_all_frames = True

    def most_pixels(self, num_frames: int) -> int:
        if not self.bounded:
            return self.max_pixels
        per_frame = min((self.max_video_tokens or 768) * self.factor**2, self.max_pixels // num_frames)
        return max(per_frame, int(self.min_pixels * 1.05)) * num_frames

    def video_text(self, grid: tuple[int, int, int], times_s: Sequence[float]) -> str:
        """Each step's time is the middle between its first and its last frame."""
        steps, rows, columns = grid
        firsts, lasts = times_s[:: self.temporal], times_s[self.temporal - 1 :: self.temporal]
        shown = _START + _PAD * (rows * columns) + _END
        middles = [(first + last) / 2 for first, last in zip(firsts, lasts, strict=True)]
        assert len(middles) == steps
        return "".join(f"<{time_s:.1f} seconds>{shown}" for time_s in middles)

    def positions(self, ids: Sequence[int], video: VideoInput) -> torch.Tensor:
        """A step's features lie at one position in time; the text between them counts on from the largest position."""
        is_video = [token == self.video_token_id for token in ids]
        per_step = video.grid[1] * video.grid[2]
        parts: list[torch.Tensor] = []
        place, following = 0, 0
        while place < len(ids):
            if is_video[place]:
                part = grid_positions(following, torch.zeros(1, dtype=torch.long), video.grid[1], video.grid[2])
                place += per_step
            else:
                end = is_video.index(True, place) if True in is_video[place:] else len(ids)
                part = text_positions(following, end - place)
                place = end
            parts.append(part)
            following = int(part.max()) + 1
        return torch.cat(parts, dim=1)
