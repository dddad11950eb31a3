"""LLaVA-OneVision: SigLIP tower, features pooled 2×2 by interpolation, one newline token behind the video, Qwen2.

LLaVA-Video and LongVA (`tpo.models.llava_video`) differ in how features are pooled and where newlines stand.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch.nn import functional
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo.errors import UserError
from tpo.models.family import Family, VideoInput
from tpo.models.frames import FrameSpec
from tpo.video.decode import Frames

Pool = Literal["bilinear", "average"]
Newline = Literal["grid", "one_token", "none"]

_FRAMES_AT_ONCE = 32  # through the tower: all its layers' outputs are held for so many frames


def pooled_side(side: int, pool: Pool) -> int:
    """Features along one side of a frame, after pooling `side` patches by two."""
    return math.ceil(side / 2) if pool == "bilinear" else side // 2


def pool_frames(features: torch.Tensor, pool: Pool) -> torch.Tensor:
    """Pool each frame's square of features 2×2: [n, side², d] → [n, rows, columns, d].

    As in LLaVA-NeXT's `get_2dPool`; pooling comes after the projector.
    """
    side = math.isqrt(features.shape[1])
    grid = features.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if pool == "average":
        grid = functional.avg_pool2d(grid, 2)
    else:
        grid = functional.interpolate(grid, size=[pooled_side(side, pool)] * 2, mode="bilinear")
    return grid.permute(0, 2, 3, 1)


def add_newlines(grid: torch.Tensor, newline: torch.Tensor | None, where: Newline) -> torch.Tensor:
    """[n, rows, columns, d] → [tokens, d] with the newline token behind every row, behind the video, or nowhere."""
    if where == "grid":
        assert newline is not None
        rows = newline.to(grid).expand(*grid.shape[:2], 1, -1)
        return torch.cat([grid, rows], dim=2).flatten(0, 2)
    tokens = grid.flatten(0, 2)
    if where == "one_token":
        assert newline is not None
        tokens = torch.cat([tokens, newline.to(tokens)[None]])
    return tokens


def num_tokens(num_frames: int, side: int, newline: Newline) -> int:
    """Tokens of a video whose frames have side × side features after pooling."""
    if newline == "grid":
        return num_frames * side * (side + 1)
    return num_frames * side**2 + (newline == "one_token")


class LlavaOnevision(Family):
    """Every model of class LlavaOnevisionForConditionalGeneration."""

    model_class: ClassVar[Any] = LlavaOnevisionForConditionalGeneration
    template_video = "<video>"
    frames_apart = True
    tower = "vision_tower."
    trained = ("multi_modal_projector.", "language_model.", "lm_head.", "image_newline")

    def __init__(self, config: Any, processor: dict[str, Any], max_frame_pixels: int | None) -> None:
        self.config = config
        if max_frame_pixels is not None:
            raise UserError(
                f"model.max_frame_pixels is {max_frame_pixels}, but a {config.model_type} model shows every frame at "
                "one size. Set it to null; fewer frames make a shorter prompt."
            )
        self.spec = FrameSpec.of(processor)

    @property
    def layout(self) -> tuple[Pool, Newline]:
        """How features are pooled and where newlines stand."""
        return "bilinear", "one_token"

    @property
    def _side(self) -> int:
        """Features along one side of a frame."""
        vision = self.config.vision_config
        return pooled_side(vision.image_size // vision.patch_size, self.layout[0])

    def fewest_features(self, num_frames: int) -> int:
        return num_tokens(num_frames, self._side, self.layout[1])

    def prepare(self, frames: Frames) -> VideoInput:
        height_px, width_px = frames.pixels.shape[1:3]
        video = self.lay_out(height_px, width_px, frames.timestamps_s.tolist(), frames.duration_s)
        return replace(video, pixels=self.spec.prepare(frames.pixels))

    def lay_out(
        self,
        height_px: int,  # noqa: ARG002
        width_px: int,  # noqa: ARG002
        timestamps_s: Sequence[float],
        duration_s: float,
    ) -> VideoInput:
        count = self.fewest_features(len(timestamps_s))
        return VideoInput(
            pixels=torch.empty(0),
            grid=(len(timestamps_s), self._side, self._side),
            text=self.template_video * count,
            num_features=count,
            timestamps_s=tuple(timestamps_s),
            duration_s=duration_s,
        )

    def encode(self, model: Any, video: VideoInput) -> list[torch.Tensor]:
        """One of [n, side², width of the tower]; a class token is dropped."""
        layer, tower = self.config.vision_feature_layer, model.model.vision_tower
        chunks = [
            tower(part.to(tower.device, tower.dtype), output_hidden_states=True).hidden_states[layer]
            for part in video.pixels.split(_FRAMES_AT_ONCE)
        ]
        encoded = torch.cat(chunks)
        return [encoded[:, 1:] if self.config.vision_feature_select_strategy == "default" else encoded]

    def project(self, model: Any, encoded: Sequence[torch.Tensor]) -> BaseModelOutputWithPooling:
        pool, newline = self.layout
        grid = pool_frames(model.model.multi_modal_projector(encoded[0]), pool)
        return BaseModelOutputWithPooling(pooler_output=add_newlines(grid, model.model.image_newline, newline)[None])

    def positions(self, ids: Sequence[int], video: VideoInput) -> torch.Tensor:  # noqa: ARG002
        return torch.arange(len(ids))[None]

    def forward_inputs(self, videos: Sequence[VideoInput]) -> dict[str, torch.Tensor]:
        return {"pixel_values_videos": torch.stack([video.pixels for video in videos])}
