"""Frames: what the library's processors make of moving pictures, in grey levels before normalisation."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from make_processors import hub_folder
from pictures import video
from safetensors.torch import save_file

HERE = Path(__file__).parent
NUM_VALUES = 3000
QWEN2_CLASS_LIMITS = {"min_pixels": 128 * 28 * 28, "max_pixels": 768 * 28 * 28}
QWEN3_CLASS_LIMITS = {"size": {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}}
CAPPED = {"cap_pixels_per_frame": True}
CLIP_336 = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}


@dataclass(frozen=True)
class Case:
    """A video of frames × height × width, and entries that replace those of the checkpoint's processor file."""

    family: str
    shape: tuple[int, int, int]
    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.family}/{'x'.join(map(str, self.shape))}" + (f", {self.note}" if self.note else "")


def cases() -> list[Case]:
    plain = [(4, 48, 100), (3, 270, 480), (8, 720, 1280), (2, 1080, 1920), (4, 640, 360), (2, 20, 30)]
    large = (8, 720, 1280)
    return [
        *(Case("llava_onevision", shape) for shape in [*plain, (2, 384, 384)]),
        *(Case("clip_336", shape) for shape in [*plain, (2, 336, 336)]),
        *(Case("qwen2_5_vl", shape) for shape in [*plain, (4, 70, 98), (2, 56, 84), (1, 270, 480), (1, 3024, 4480)]),
        Case("qwen2_5_vl", (4, 48, 100), QWEN2_CLASS_LIMITS, "class limits"),
        Case("qwen2_5_vl", large, QWEN2_CLASS_LIMITS, "class limits"),
        Case("qwen2_5_vl", large, {"max_pixels": 200_000}, "max 200000"),
        Case("qwen2_5_vl", large, {**QWEN2_CLASS_LIMITS, **CAPPED, "max_video_tokens": 2000}, "capped, 2000 tokens"),
        Case("qwen2_5_vl", large, {**QWEN2_CLASS_LIMITS, **CAPPED, "max_video_tokens": 300}, "capped, 300 tokens"),
        *(Case("qwen3_vl", shape) for shape in [*plain, (4, 80, 112), (5, 80, 112), (2, 64, 96), (120, 360, 640)]),
        Case("qwen3_vl", large, QWEN3_CLASS_LIMITS, "class limits"),
        Case("qwen3_vl", large, {"size": {"shortest_edge": 4096, "longest_edge": 2_097_152}}, "max 2097152"),
        Case("qwen3_vl", (5, 270, 480), {"size": {"shortest_edge": 4096, "longest_edge": 300_000}}, "max 300000"),
        Case("qwen3_vl", large, CAPPED, "capped"),
        Case("qwen3_vl", (64, 360, 640), CAPPED, "capped"),
    ]


def make_frames() -> None:
    """Write frames.json and frames.safetensors."""
    described, values = [], {}
    for case in cases():
        description, levels = describe(case)
        described.append(json.dumps(description))
        values.update(levels)
    (HERE / "frames.json").write_text("[\n" + ",\n".join(described) + "\n]\n")
    save_file(values, HERE / "frames.safetensors")
    (HERE / "frames.safetensors").chmod(0o644)


def describe(case: Case) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    pixels = video(*case.shape)
    processor = build_processor(case)
    output, grid = run(processor, pixels)
    first, step, count = spread(output.numel())
    at = first + step * torch.arange(count)
    values = {case.name: grey_levels(processor, output, at)}
    size = [side * processor.patch_size for side in grid[1:]] if grid else list(output.shape[-2:])
    description = {
        "name": case.name,
        "family": case.family,
        "video": case.shape,
        "settings": case.settings,
        "resized": size,
        "output_shape": list(output.shape),
        "video_grid_thw": grid,
        "first": first,
        "step": step,
        "count": count,
        "normalised": [[int(i), output.flatten()[i].item()] for i in at[:: count // 3]],
    }
    if case.family != "clip_336":
        with resized_in_floating_point():
            other, _ = run(processor, pixels)
        values[f"{case.name}@float"] = grey_levels(processor, other, at)
        other -= output
        steps = torch.tensor(processor.image_std) / processor.rescale_factor
        largest = (by_channel(other).abs().amax(dim=(0, 2)) * steps).max()
        description["float_differs"] = {
            "share": round((other.abs() > 1e-3).float().mean().item(), 6),
            "largest": round(largest.item()),
        }
    return description, values


def build_processor(case: Case) -> Any:
    """The library's processor with the numbers of the hub checkpoint's file, read as `from_pretrained` reads it."""
    if case.family == "clip_336":
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        return CLIPImageProcessorPil(**CLIP_336)
    from transformers import LlavaOnevisionVideoProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

    cls, file = {
        "llava_onevision": (LlavaOnevisionVideoProcessor, "preprocessor_config.json"),
        "qwen2_5_vl": (Qwen2VLVideoProcessor, "preprocessor_config.json"),
        "qwen3_vl": (Qwen3VLVideoProcessor, "video_preprocessor_config.json"),
    }[case.family]
    config = json.loads((hub_folder(case.family) / file).read_text())
    if case.family != "llava_onevision":
        config["cap_pixels_per_frame"] = False
    return cls.from_dict({**config, **case.settings})


def run(processor: Any, pixels: np.ndarray) -> tuple[torch.Tensor, list[int] | None]:
    """The library's output and grid. PIL's processor takes pictures one by one, the others a uint8 tensor."""
    if type(processor).__name__ == "CLIPImageProcessorPil":
        return processor(list(pixels), return_tensors="pt")["pixel_values"], None
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    output = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
    grid = output["video_grid_thw"][0].tolist() if "video_grid_thw" in output else None
    return output["pixel_values_videos"], grid


def by_channel(output: torch.Tensor) -> torch.Tensor:
    """[..., 3, n]: frames [..., 3, h, w], or patches, whose values go by channel, frame of the pair, row, column."""
    return output.view(-1, 3, output.shape[-1] // 3) if output.ndim == 2 else output.flatten(-2).flatten(0, -3)


def grey_levels(processor: Any, output: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """uint8 at these places of the flattened output: normalisation and rescaling undone in float64."""
    channel = at // by_channel(output).shape[-1] % 3
    mean = torch.tensor(processor.image_mean, dtype=torch.float64)[channel]
    std = torch.tensor(processor.image_std, dtype=torch.float64)[channel]
    levels = (output.flatten()[at].double() * std + mean) / processor.rescale_factor
    whole = levels.round()
    assert (levels - whole).abs().max() < 1e-3, "the library did not round to grey levels"
    assert whole.min() >= 0
    assert whole.max() <= 255
    return whole.to(torch.uint8)


def spread(num_values: int) -> tuple[int, int, int]:
    """First index, step and count. The step shares no factor with the number of values, so that rows, columns,
    channels and frames all take turns."""
    step = max(1, num_values // NUM_VALUES)
    while math.gcd(step, num_values) > 1:
        step -= 1
    return step // 2, step, (num_values - step // 2 - 1) // step + 1


@contextlib.contextmanager
def resized_in_floating_point() -> Iterator[None]:
    """The library's other path, the one it takes on a GPU: resized in float32, clamped, rounded."""
    target = "torchvision.transforms.v2.functional._geometry._do_native_uint8_resize_on_cpu"
    with mock.patch(target, return_value=False):
        yield
