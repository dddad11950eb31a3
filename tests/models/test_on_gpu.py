"""What only a GPU machine can show: the library's own processors, bf16, 4-bit, flash attention, several cards.

pytest -m gpu
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import FAMILIES, PROCESSORS, load, noise, prompter, save_tiny
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from tpo.models.frames import read_processor

pytestmark = pytest.mark.gpu

QUESTIONS = ["What comes first?", "And which color was it, was it red or blue?", "Why"]
OPTIONS = [["red", "a blue moon", "a"], ["a red star"], ["yes", "no, a moon"]]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(request.param, tmp_path_factory.mktemp("tiny") / request.param)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="the library's video processors need torchvision")
@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_pixels_and_prompt_are_what_the_librarys_processor_makes(family: str) -> None:
    model = prompter(family)
    processor = AutoProcessor.from_pretrained(PROCESSORS / family)
    for count, height, width in ((4, 270, 480), (5, 96, 96), (2, 720, 1280)):
        shown = noise(count=count, height_px=height, width_px=width)
        metadata = VideoMetadata(count, fps=1.0, duration=float(count), frames_indices=list(range(count)))
        videos = torch.from_numpy(shown.pixels).permute(0, 3, 1, 2)
        made = processor(
            text=["<video>" if family == "llava_onevision" else "<|vision_start|><|video_pad|><|vision_end|>"],
            videos=[videos], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt",
        )  # fmt: skip
        ours = model.prepare(shown)
        scale = 255 * min(read_processor(PROCESSORS / family)["image_std"])
        theirs = made["pixel_values_videos"].reshape(ours.pixels.shape)
        assert float((theirs - ours.pixels).abs().max()) * scale <= 1.001
        assert int((made["input_ids"] == model.family.video_token_id).sum()) == ours.num_features


def test_a_gpu_says_what_a_cpu_says(folder: Path) -> None:
    cpu, gpu = load(folder), load(folder, device="cuda")
    for one, other in zip(*(m.option_logprobs(noise(), QUESTIONS, OPTIONS) for m in (cpu, gpu)), strict=True):
        assert one == pytest.approx(other, abs=5e-3)
    assert gpu.model.device.type == "cuda"


def test_in_bfloat16_sharing_a_prefix_changes_no_more_than_rounding_does(folder: Path) -> None:
    model = load(folder, device="cuda", dtype="bfloat16")
    together = model.option_logprobs(noise(), QUESTIONS, OPTIONS)
    for question, options, row in zip(QUESTIONS, OPTIONS, together, strict=True):
        np.testing.assert_allclose(row, model.answer_logprobs(noise(), question, options), rtol=0.02, atol=0.2)


@pytest.mark.skipif(find_spec("flash_attn") is None, reason="flash-attn is not installed")
def test_flash_attention_says_the_same(folder: Path) -> None:
    settings = {"device": "cuda", "dtype": "bfloat16"}
    sdpa, flash = load(folder, **settings), load(folder, attention="flash_attention_2", **settings)
    for one, other in zip(*(m.option_logprobs(noise(), QUESTIONS, OPTIONS) for m in (sdpa, flash)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=0.3)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_a_model_in_four_bits_answers_and_keeps_its_tower_whole(folder: Path) -> None:
    model = load(folder, device="cuda", dtype="bfloat16", quantization="4bit")
    assert model.generate(noise(), QUESTIONS, 4)
    kinds = {name: type(module).__name__ for name, module in model.model.named_modules()}
    assert kinds["model.language_model.layers.0.mlp.up_proj"] == "Linear4bit"
    assert not [n for n, kind in kinds.items() if kind == "Linear4bit" and ("vision_tower" in n or "visual" in n)]


def test_layers_spread_over_the_cards_say_the_same(folder: Path) -> None:
    one, spread = (load(folder, device=device) for device in ("cuda", "balanced"))
    assert spread.generate(noise(), QUESTIONS, 6) == one.generate(noise(), QUESTIONS, 6)
