import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpo.demo.world import Event, render_frame
from tpo.errors import UserError
from tpo.models.frames import FrameSpec, prepare_frames

SPEC = FrameSpec(32, 32, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255)


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
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_frames_are_resized_as_pil_does_it(
    source: tuple[int, int], wanted: tuple[int, int], interpolation: str
) -> None:
    pixels = pictures(*source)
    ours = prepare_frames(pixels, FrameSpec(*wanted, interpolation, (0.0,) * 3, (1.0,) * 3, 1.0))
    resample = Image.Resampling[interpolation.upper()]
    pil = [np.asarray(Image.fromarray(p).resize(wanted[::-1], resample), np.int16) for p in pixels]
    assert ours.shape == (3, 3, *wanted)
    assert ours.dtype.is_floating_point
    difference = np.abs(ours.permute(0, 2, 3, 1).numpy() - np.stack(pil))
    assert difference.max() <= 1  # PIL rounds after each of its two passes


def test_frames_of_the_right_size_are_only_normalised() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    spec = FrameSpec(32, 32, "bicubic", (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), 1 / 255)
    expected = (pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    np.testing.assert_allclose(prepare_frames(pixels, spec).permute(0, 2, 3, 1), expected, atol=1e-6)


def test_a_frame_is_prepared_the_same_alone_as_among_others() -> None:
    pixels = pictures(48, 100)
    together = prepare_frames(pixels, SPEC)
    np.testing.assert_array_equal(together[1:2], prepare_frames(pixels[1:2], SPEC))


def test_a_view_of_an_array_and_a_read_only_array_are_frames_too() -> None:
    pixels = pictures(64, 64)
    flipped = pixels[:, :, ::-1]
    np.testing.assert_array_equal(prepare_frames(flipped, SPEC), prepare_frames(flipped.copy(), SPEC))


def test_the_checkpoints_own_numbers_are_used(tiny_checkpoint: Path) -> None:
    assert FrameSpec.load(tiny_checkpoint) == SPEC


def test_the_video_processors_file_comes_before_the_image_processors(tmp_path: Path) -> None:
    config = {"size": {"height": 8, "width": 16}, "resample": 2, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config | {"rescale_factor": 1.0}))
    assert FrameSpec.load(tmp_path) == FrameSpec(8, 16, "bilinear", (0, 0, 0), (1, 1, 1), 1.0)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(config | {"rescale_factor": 0.5}))
    assert FrameSpec.load(tmp_path).rescale_factor == 0.5


def test_a_checkpoint_without_processor_files_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"has no video_preprocessor_config\.json or .*Is the checkpoint folder complete"
    ):
        FrameSpec.load(tmp_path)
