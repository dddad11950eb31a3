"""Frames against PIL, which the models' authors used, and against what a checkpoint's own files say.

The library's processors are compared in test_families.py, by frozen values, and in test_on_gpu.py, by running them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpo.demo.world import Event, render_frame
from tpo.errors import UserError
from tpo.models.frames import FrameSpec, Normalisation, read_processor

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SQUARE = FrameSpec.of(HALF | {"size": {"height": 32, "width": 32}})
AS_IS = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "rescale_factor": 1.0}


def pictures(height_px: int, width_px: int) -> np.ndarray:
    """uint8 [3, h, w, 3]: a drawn scene, a soft gradient with some grain, hard stripes."""
    rng = np.random.default_rng(0)
    scene = Image.fromarray(render_frame(Event(0, 9, "red", "star"), 1.0, 0.5)).resize((width_px, height_px))
    x, y = np.meshgrid(np.linspace(0, 3, width_px), np.linspace(0, 2, height_px))
    soft = 127 + 90 * np.stack([np.sin(x + y), np.cos(x * y), np.sin(x - 2 * y)], axis=-1)
    stripes = np.broadcast_to((np.arange(width_px)[None, :, None] // 3 % 2) * 255, (height_px, width_px, 3))
    grain = rng.normal(0, 4, soft.shape)
    return np.stack([np.asarray(scene), (soft + grain).clip(0, 255).astype(np.uint8), stripes.astype(np.uint8)])


@pytest.mark.parametrize("source", [(64, 64), (432, 768), (48, 100), (20, 20), (33, 31)])
@pytest.mark.parametrize("wanted", [(32, 32), (384, 384)])
@pytest.mark.parametrize(("interpolation", "number"), [("BILINEAR", 2), ("BICUBIC", 3)])
def test_frames_are_resized_as_pil_does_it(
    source: tuple[int, int], wanted: tuple[int, int], interpolation: str, number: int
) -> None:
    pixels = pictures(*source)
    spec = FrameSpec.of(AS_IS | {"size": {"height": wanted[0], "width": wanted[1]}, "resample": number})
    ours = spec.prepare(pixels)
    pil = [
        np.asarray(Image.fromarray(p).resize(wanted[::-1], Image.Resampling[interpolation]), np.int16) for p in pixels
    ]
    assert ours.shape == (3, 3, *wanted)
    assert ours.dtype.is_floating_point
    difference = np.abs(ours.permute(0, 2, 3, 1).numpy() - np.stack(pil))
    assert difference.max() <= 2  # both round after each of two passes, with weights of other precision
    assert (difference > 1).mean() < 1e-3


def test_clip_shows_the_middle_of_a_frame() -> None:
    clip = FrameSpec.of(AS_IS | {"size": {"shortest_edge": 36}, "crop_size": {"height": 36, "width": 36}})
    for height, width in ((72, 128), (128, 72), (36, 90)):
        pixels = pictures(height, width)
        scale = 36 / min(height, width)
        size = (int(width * scale), int(height * scale))
        left, top = (size[0] - 36) // 2, (size[1] - 36) // 2
        pil = Image.fromarray(pixels[0]).resize(size, Image.Resampling.BICUBIC).crop((left, top, left + 36, top + 36))
        difference = np.abs(clip.prepare(pixels)[0].permute(1, 2, 0).numpy() - np.asarray(pil, np.int16))
        assert difference.max() <= 2


def test_frames_of_the_right_size_are_only_normalised() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    numbers = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 2.0], "size": {"height": 32, "width": 32}}
    expected = (pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    np.testing.assert_allclose(FrameSpec.of(numbers).prepare(pixels).permute(0, 2, 3, 1), expected, atol=1e-6)


def test_a_frame_is_prepared_the_same_alone_as_among_others() -> None:
    pixels = pictures(48, 100)
    np.testing.assert_array_equal(SQUARE.prepare(pixels)[1:2], SQUARE.prepare(pixels[1:2]))


def test_a_view_of_an_array_and_a_read_only_array_are_frames_too() -> None:
    pixels = pictures(64, 64)
    flipped = pixels[:, :, ::-1]
    np.testing.assert_array_equal(SQUARE.prepare(flipped), SQUARE.prepare(flipped.copy()))


def test_the_checkpoints_own_numbers_are_used(tiny_checkpoint: Path) -> None:
    normalisation = Normalisation("bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255)
    assert FrameSpec.of(read_processor(tiny_checkpoint)) == FrameSpec(32, 32, normalisation)


def test_a_video_processors_numbers_come_before_an_image_processors(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"from": 4}}))
    assert read_processor(tmp_path) == {"from": 4}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"from": 3}))
    assert read_processor(tmp_path) == {"from": 3}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"from": 2}))
    assert read_processor(tmp_path) == {"from": 2}
    (tmp_path / "processor_config.json").write_text(json.dumps({"video_processor": {"from": 1}}))
    assert read_processor(tmp_path) == {"from": 1}


def test_a_checkpoint_without_processor_files_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no video_preprocessor_config\.json, .*Is the checkpoint folder complete"):
        read_processor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config\.json is not JSON"):
        read_processor(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"size": {"height": 8, "width": 8}}, "lacks image_mean, image_std"),
        (
            HALF | {"size": {"longest_edge": 8}},
            r"gives the frame size as \{'longest_edge': 8\}; expected height and width",
        ),
        (HALF | {"size": {"height": 8, "width": 8}, "resample": 1}, r"resizes with 1; supported: 2 \(bilinear\), 3"),
    ],
)
def test_incomplete_numbers_are_named(numbers: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        FrameSpec.of(numbers)
