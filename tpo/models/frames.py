"""Frames as a vision tower wants them, prepared from the numbers in the checkpoint's own processor files.

The library's video processors need torchvision; these few tensor operations do not. They give the same pictures, within
one grey level (tests/models/reference).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tpo.errors import UserError

_BICUBIC = 3
_RESAMPLE = {2: "bilinear", _BICUBIC: "bicubic"}  # PIL's numbers


def read_processor(checkpoint: Path) -> dict[str, Any]:
    """The numbers of a checkpoint's video processor, or of its image processor where it has no other.

    transformers 4 wrote one file for each, transformers 5 writes them into processor_config.json. The order is the
    library's.

    Raises:
        UserError: the folder has no such file, or one that is not JSON.
    """
    sources = (
        ("processor_config.json", "video_processor"),
        ("video_preprocessor_config.json", None),
        ("preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
    )
    for name, section in sources:
        file = checkpoint / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file} is not JSON: {error}. Is the checkpoint folder complete?") from error
        found: dict[str, Any] | None = content if section is None else content.get(section)
        if found:
            return found
    raise UserError(
        f"{checkpoint} has no video_preprocessor_config.json, preprocessor_config.json or processor_config.json with a "
        "video_processor, so its frame size and normalisation are unknown. Is the checkpoint folder complete?"
    )


@dataclass(frozen=True)
class Normalisation:
    """From grey levels to what a tower was trained on, and how pictures are resized before."""

    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale_factor: float

    @classmethod
    def of(cls, processor: Mapping[str, Any]) -> "Normalisation":
        """Of a processor's numbers; files from before transformers 5 leave out those that all families share.

        Raises:
            UserError: mean or deviation is missing, or the interpolation is neither bilinear nor bicubic.
        """
        missing = [key for key in ("image_mean", "image_std") if key not in processor]
        if missing:
            raise UserError(f"The checkpoint's processor file lacks {', '.join(missing)}. Is it complete?")
        resample = processor.get("resample", _BICUBIC)
        if resample not in _RESAMPLE:
            allowed = ", ".join(f"{number} ({name})" for number, name in _RESAMPLE.items())
            raise UserError(f"The checkpoint's processor resizes with {resample!r}; supported: {allowed}.")
        return cls(
            interpolation=_RESAMPLE[resample],
            mean=tuple(processor["image_mean"]),
            std=tuple(processor["image_std"]),
            rescale_factor=processor.get("rescale_factor", 1 / 255),
        )

    def resize(self, pixels: np.ndarray, height_px: int, width_px: int) -> torch.Tensor:
        """uint8 [n, h, w, 3] → whole grey levels, float32 [n, 3, height, width]."""
        frames = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        if frames.shape[-2:] == (height_px, width_px):
            return frames.float()
        # In 8 bits, as PIL and the library on a CPU do it: first one direction, rounded and clipped, then the other.
        # In floats, hard edges come out up to 27 grey levels off (tests/models/reference).
        size = (height_px, width_px)
        resized = functional.interpolate(frames, size, mode=self.interpolation, antialias=True, align_corners=False)
        return resized.float()

    def normalise(self, frames: torch.Tensor) -> torch.Tensor:
        """Grey levels [n, 3, h, w] → the tower's units, float32."""
        mean = torch.tensor(self.mean)[:, None, None]
        std = torch.tensor(self.std)[:, None, None]
        return (frames * self.rescale_factor - mean) / std


@dataclass(frozen=True)
class FrameSpec:
    """Frames of one size: resized to it, or by the shorter side with the middle cut out (CLIP's way)."""

    height_px: int
    width_px: int
    normalisation: Normalisation
    shortest_edge_px: int | None = None

    @classmethod
    def of(cls, processor: Mapping[str, Any]) -> "FrameSpec":
        """Raises UserError when the processor's numbers do not say the size."""
        size, normalisation = processor.get("size", {}), Normalisation.of(processor)
        if isinstance(size, list):
            size = {"height": size[0], "width": size[1]}
        if "height" in size:
            return cls(size["height"], size["width"], normalisation)
        crop = processor.get("crop_size", {})
        if "shortest_edge" in size and "height" in crop:
            return cls(crop["height"], crop["width"], normalisation, size["shortest_edge"])
        raise UserError(f"The checkpoint's processor file gives the frame size as {size!r}; expected height and width.")

    def prepare(self, pixels: np.ndarray) -> torch.Tensor:
        """Resize, round to grey levels and normalise: uint8 [n, h, w, 3] → float32 [n, 3, height, width]."""
        if self.shortest_edge_px is None:
            frames = self.normalisation.resize(pixels, self.height_px, self.width_px)
        else:
            height, width = pixels.shape[1:3]
            short = min(height, width)
            scaled = (int(self.shortest_edge_px * height / short), int(self.shortest_edge_px * width / short))
            top, left = (scaled[0] - self.height_px) // 2, (scaled[1] - self.width_px) // 2
            frames = self.normalisation.resize(pixels, *scaled)
            frames = frames[..., top : top + self.height_px, left : left + self.width_px]
        return self.normalisation.normalise(frames)
