"""What Qwen2.5-VL and Qwen3-VL share: frames of any size cut into patches, and positions in time, height and width.

    pixels [n, h, w, 3] → resized to whole patches → patches of two frames each → tower → 2×2 patches merged into one

The projector (Qwen's "merger") lies inside the tower and stays frozen with it; the paper's models have it outside.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from tpo.errors import UserError
from tpo.models.family import Family, VideoInput
from tpo.models.frames import Normalisation
from tpo.video.decode import Frames

_NUMBERS = ("patch_size", "temporal_patch_size", "merge_size")
_MAX_ASPECT_RATIO = 200  # the library's: beyond it one side would be nothing


def patchify(frames: torch.Tensor, patch: int, temporal: int, merge: int) -> torch.Tensor:
    """Float [n, 3, h, w], n a multiple of `temporal` → [patches, 3·temporal·patch²], ordered as the tower takes them.

    Patches that will be merged come one after the other; inside a patch: channel, time, row, column.
    """
    n, channels, height, width = frames.shape
    rows, columns = height // patch // merge, width // patch // merge
    parts = frames.view(n // temporal, temporal, channels, rows, merge, patch, columns, merge, patch)
    return parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * temporal * patch**2)


def text_positions(start: int, count: int) -> torch.Tensor:
    """`count` positions from `start`, the same on all three axes: int64 [3, count]."""
    return torch.arange(start, start + count).expand(3, -1)


def grid_positions(start: int, times: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Positions of rows × columns features at each of `times` (int64, counted from 0): int64 [3, features]."""
    axes = torch.meshgrid(times, torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack(axes).flatten(1) + start


class QwenVL(Family):
    """The part of both families that is the same."""

    trained = ("language_model.", "lm_head.")
    tower = "visual."
    axes = 3
    pixels_count_all_frames: ClassVar[bool]

    def __init__(self, config: Any, processor: dict[str, Any], max_frame_pixels: int | None) -> None:
        self.config = config
        missing = [name for name in _NUMBERS if name not in processor]
        if missing:
            raise UserError(f"The checkpoint's processor file lacks {', '.join(missing)}. Is it complete?")
        self.patch: int = processor["patch_size"]
        self.temporal: int = processor["temporal_patch_size"]
        self.merge: int = processor["merge_size"]
        self.normalisation = Normalisation.of(processor)
        size = processor.get("size") or {}
        # Older files say min_pixels and max_pixels, which the library gives precedence.
        self.min_pixels: int = processor.get("min_pixels") or size.get("shortest_edge", 0)
        self.max_pixels: int = processor.get("max_pixels") or size.get("longest_edge", 0)
        if not (self.min_pixels and self.max_pixels):
            raise UserError(
                f"The checkpoint's processor file gives the frame size as {size!r}; expected shortest_edge and "
                "longest_edge, in pixels. Is it complete?"
            )
        # Left open in the files, the library bounds no frame but says that it will from some release on; here it stays.
        self.bounded = bool(processor.get("cap_pixels_per_frame"))
        self.max_video_tokens: int | None = processor.get("max_video_tokens")
        self.max_frame_pixels = max_frame_pixels

    @property
    def factor(self) -> int:
        """Pixels along one side of a feature."""
        return self.patch * self.merge

    def size_px(self, num_frames: int, height_px: int, width_px: int) -> tuple[int, int]:
        """Height and width to which frames are resized: whole features, the shape kept, within the limits on pixels.

        The library's `smart_resize`. Its limits are in the checkpoint's processor file: pixels of one frame for
        Qwen2.5-VL, of all frames together for Qwen3-VL. `max_frame_pixels` (ours) lowers what one frame may have.

        Raises:
            UserError: one side is more than 200 times the other.
        """
        if self.pixels_count_all_frames and min(height_px, width_px) < self.factor:
            scale = max(self.factor / height_px, self.factor / width_px)
            height_px, width_px = int(height_px * scale), int(width_px * scale)
        if max(height_px, width_px) / min(height_px, width_px) > _MAX_ASPECT_RATIO:
            raise UserError(
                f"Frames of {width_px}×{height_px} pixels are too long for this model; it takes up to 200:1."
            )
        largest = self.most_pixels(num_frames)
        frames, stepped = 1, 1
        if self.pixels_count_all_frames:
            frames = max(num_frames, self.temporal)  # a single frame is shown twice
            stepped = round(frames / self.temporal) * self.temporal
        if self.max_frame_pixels is not None:
            largest = min(largest, self.max_frame_pixels * frames)
        sides = [height_px / self.factor, width_px / self.factor]
        height, width = (round(side) for side in sides)
        scale = math.sqrt(frames * height_px * width_px)
        if stepped * height * width * self.factor**2 > largest:
            height, width = (max(1, math.floor(side * math.sqrt(largest) / scale)) for side in sides)
        elif stepped * height * width * self.factor**2 < self.min_pixels:
            height, width = (math.ceil(side * math.sqrt(self.min_pixels) / scale) for side in sides)
        return height * self.factor, width * self.factor

    def fewest_features(self, num_frames: int) -> int:
        steps = -(-num_frames // self.temporal)
        per_step = self.min_pixels // self.factor**2
        return max(steps, per_step // self.temporal) if self.pixels_count_all_frames else steps * max(1, per_step)

    @abstractmethod
    def most_pixels(self, num_frames: int) -> int:
        """The upper limit that the processor's file sets: pixels of one frame, or of all together."""

    def prepare(self, frames: Frames) -> VideoInput:
        """An odd last frame is shown twice, as the library does, since the tower takes them two by two."""
        height_px, width_px = frames.pixels.shape[1:3]
        video = self.lay_out(height_px, width_px, frames.timestamps_s.tolist(), frames.duration_s)
        height, width = video.grid[1] * self.factor, video.grid[2] * self.factor
        pixels = self.normalisation.normalise(self.normalisation.resize(frames.pixels, height, width))
        pixels = torch.cat([pixels, pixels[-1:].expand(-len(pixels) % self.temporal, -1, -1, -1)])
        return replace(video, pixels=patchify(pixels, self.patch, self.temporal, self.merge))

    def lay_out(self, height_px: int, width_px: int, timestamps_s: Sequence[float], duration_s: float) -> VideoInput:
        times, padding = list(timestamps_s), -len(timestamps_s) % self.temporal
        height, width = self.size_px(len(times), height_px, width_px)
        grid = ((len(times) + padding) // self.temporal, height // self.factor, width // self.factor)
        return VideoInput(
            pixels=torch.empty(0),
            grid=grid,
            text=self.video_text(grid, times + times[-1:] * padding),
            num_features=math.prod(grid),
            timestamps_s=tuple(times),
            duration_s=duration_s,
        )

    @abstractmethod
    def video_text(self, grid: tuple[int, int, int], times_s: Sequence[float]) -> str:
        """What stands for the video in the prompt; `times_s` has two entries for each step of the grid."""

    def tower_grid(self, video: VideoInput) -> torch.Tensor:
        """The library's `video_grid_thw`, in patches before merging: int64 [1, 3]."""
        steps, rows, columns = video.grid
        return torch.tensor([[steps, rows * self.merge, columns * self.merge]])

    def encode(self, model: Any, video: VideoInput) -> list[torch.Tensor]:
        """[features, width of the decoder]; of Qwen3-VL, as many again for each of the first layers of the decoder."""
        tower = model.model.visual
        output = model.model.get_video_features(
            video.pixels.to(tower.device), self.tower_grid(video).to(tower.device), return_dict=True
        )
        return [*output.pooler_output, *(of_layer[0] for of_layer in getattr(output, "deepstack_features", ()))]

    def project(self, model: Any, encoded: Sequence[torch.Tensor]) -> BaseModelOutputWithPooling:  # noqa: ARG002
        features: Any = (encoded[0],)  # one for each video, whatever the class says
        of_layers: Any = [(one,) for one in encoded[1:]]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=features, deepstack_features=of_layers)

    def forward_inputs(self, videos: Sequence[VideoInput]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values_videos": torch.cat([video.pixels for video in videos]),
            "video_grid_thw": torch.cat([self.tower_grid(video) for video in videos]),
        }
