"""Frames as a vision tower wants them, prepared from the numbers in the checkpoint's own processor files.

The library's video processors need torchvision; these few tensor operations do not.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from tpo.errors import UserError

_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True)
class FrameSpec:
    """What a checkpoint's tower expects: size, interpolation and normalisation."""

    height_px: int
    width_px: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale_factor: float

    @classmethod
    def load(cls, checkpoint: Path) -> "FrameSpec":
        """Read `video_preprocessor_config.json` (or the image one, where a checkpoint has no other).

        Raises:
            UserError: the folder has neither file.
        """
        for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
            if (checkpoint / name).is_file():
                config = json.loads((checkpoint / name).read_text())
                break
        else:
            raise UserError(
                f"{checkpoint} has no video_preprocessor_config.json or preprocessor_config.json, "
                "so its frame size and normalisation are unknown. Is the checkpoint folder complete?"
            )
        return cls(
            height_px=config["size"]["height"],
            width_px=config["size"]["width"],
            interpolation=_RESAMPLE[config["resample"]],
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            rescale_factor=config["rescale_factor"],
        )


def prepare_frames(pixels: np.ndarray, spec: FrameSpec) -> torch.Tensor:
    """Resize, round to grey levels and normalise: uint8 [n, h, w, 3] → float32 [n, 3, height, width]."""
    frames = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
    size = (spec.height_px, spec.width_px)
    if frames.shape[-2:] != size:
        frames = functional.interpolate(frames, size, mode=spec.interpolation, antialias=True, align_corners=False)
        frames = frames.round().clamp(0, 255)  # the library resizes in 8 bits
    mean = torch.tensor(spec.mean)[:, None, None]
    std = torch.tensor(spec.std)[:, None, None]
    return (frames * spec.rescale_factor - mean) / std
