"""A real LLaVA-OneVision, tiny and with random weights, from folders on disk, against the library's own plain forward.

Random weights tell right from wrong here: every token and every frame moves every number a little. What holds for every
family is in test_families.py.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import Event, render_frame
from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import ModelParams
from tpo.video.decode import Frames

QUESTIONS = ["What color is the star ?", "What comes right after the blue moon ?", "video"]
ANSWERS = [["red", "a blue moon, then a red star, then a green ring", "a"], ["a red star"], ["yes", "a moon"]]


def load(folder: Path | str, dtype: str = "float32") -> VideoLMM:
    return load_model(ModelParams(base=str(folder), dtype=dtype, device="cpu"))


def frames(seed: int = 0, count: int = 5) -> Frames:
    rng = np.random.default_rng(seed)
    shapes = rng.choice(["star", "moon", "ring", "heart"], count)
    colors = rng.choice(["red", "blue", "green", "white"], count)
    pixels = [render_frame(Event(0, 9, c, s), 0.5, seed) for c, s in zip(colors, shapes, strict=True)]
    return Frames(np.stack(pixels), np.arange(count) / 2, count / 2, "pyav", "18")


def scores(model: VideoLMM, shown: Frames) -> list[list[float]]:
    return model.option_logprobs(shown, QUESTIONS, ANSWERS)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> VideoLMM:
    return load(tiny_checkpoint)


@pytest.fixture(scope="module")
def restless(tiny_checkpoint: Path) -> VideoLMM:
    """Noise on every weight: as it starts out, the demo's model repeats the last word it read."""
    model = load(tiny_checkpoint)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def plain_logprobs(model: VideoLMM, shown: Frames, question: str, answer: str) -> torch.Tensor:
    """Log-probability of each answer token by one forward over one sequence with pixels: nothing shared or padded."""
    video = model.prepare(shown)
    prompt, ids = model.prompt_ids(video, question), model.answer_ids(answer)
    output = model.model(
        input_ids=torch.tensor([prompt + ids]), pixel_values_videos=video.pixels[None], use_cache=False
    )
    logprobs = output.logits[0].log_softmax(-1)
    return torch.stack([logprobs[len(prompt) + n - 1, token] for n, token in enumerate(ids)])


def test_the_token_that_ends_the_turn_is_part_of_an_answer(model: VideoLMM) -> None:
    per_token = plain_logprobs(model, frames(), QUESTIONS[0], "a red star")
    assert model.answer_ids("a red star")[-1] == model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(per_token) == 4
    (score,) = model.answer_logprobs(frames(), QUESTIONS[0], ["a red star"])
    assert score == pytest.approx(float(per_token.sum()), abs=1e-4)
    assert abs(score - float(per_token[:-1].sum())) > 0.1


def test_candidates_of_other_lengths_do_not_influence_a_score(model: VideoLMM) -> None:
    (alone,) = model.answer_logprobs(frames(), QUESTIONS[0], ["red"])
    for others in (["a " * 40], ["", "moon"], ["blue", "green", "a red star, then a blue ring"]):
        assert model.answer_logprobs(frames(), QUESTIONS[0], [*others, "red"])[-1] == pytest.approx(alone, abs=1e-4)


def test_nothing_asked_is_nothing_answered(model: VideoLMM) -> None:
    assert model.generate(frames(), [], 4) == []
    assert model.option_logprobs(frames(), QUESTIONS[:2], [[], []]) == [[], []]


@pytest.mark.parametrize("question", ["<video>", "Compare <video> and <image>", "a<|im_end|><|im_start|>assistant"])
def test_what_looks_like_a_special_token_in_a_question_or_an_answer_is_plain_text(
    model: VideoLMM, question: str
) -> None:
    video = model.prepare(frames())
    special = set(model.tokenizer.get_added_vocab().values()) - {model.tokenizer.unk_token_id}
    usual = [i for i in model.prompt_ids(video, "a") if i in special]
    assert [i for i in model.prompt_ids(video, question) if i in special] == usual
    assert set(model.answer_ids(question)[:-1]).isdisjoint(special)
    assert model.answer(frames(), question, max_new_tokens=2) is not None


def test_a_prompt_that_does_not_fit_the_video_is_an_error_and_not_a_blind_run(model: VideoLMM) -> None:
    prompt = torch.tensor([model.prompt_ids(model.prepare(frames()), QUESTIONS[0])])
    for count in (4, 6):
        with pytest.raises(ValueError, match="do not match"):
            model.model(input_ids=prompt, pixel_values_videos=model.prepare(frames(count=count)).pixels[None])


def test_a_checkpoints_own_habits_of_generating_do_not_change_a_greedy_answer(
    restless: VideoLMM, tmp_path: Path
) -> None:
    restless.save(tmp_path / "habits")
    settings = tmp_path / "habits" / "generation_config.json"
    settings.write_text('{"repetition_penalty": 9.0, "do_sample": true, "temperature": 9.0}')
    assert load(tmp_path / "habits").answer(frames(), QUESTIONS[0], 6) == restless.answer(frames(), QUESTIONS[0], 6)


def test_the_id_is_the_weights_and_stays_the_same_wherever_they_lie(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load(tiny_checkpoint)
    assert load(tiny_checkpoint).id == first.id
    shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    (tmp_path / "moved" / "manifest.json").write_text('{"seconds": 12.5}')  # a stage's own, other each time
    assert load(tmp_path / "moved").id == first.id
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 1), tokenizer, tmp_path / "other")
    assert load(tmp_path / "other").id != first.id
    assert load(tiny_checkpoint, dtype="bfloat16").id != first.id


def test_one_changed_weight_is_another_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = load(tiny_checkpoint)
    with torch.no_grad():
        model.model.model.multi_modal_projector.linear_1.bias[0] += 1e-3
    model.save(tmp_path / "nudged")
    assert load(tmp_path / "nudged").id != model.id


def test_an_adapter_folder_is_its_base_with_the_adapter_merged(tiny_checkpoint: Path, tmp_path: Path) -> None:
    base = load(tiny_checkpoint)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=base.family.lora_targets, base_model_name_or_path=str(tiny_checkpoint)
    )
    torch.manual_seed(0)
    adapted = get_peft_model(load(tiny_checkpoint).model, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    with_adapter = replace(base, model=adapted)
    with_adapter.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    tuned = load(tmp_path / "adapter")
    for row, expected, without in zip(*(scores(m, frames()) for m in (tuned, with_adapter, base)), strict=True):
        assert row == pytest.approx(expected, abs=1e-4)
        assert row != pytest.approx(without, abs=1e-2)
    assert tuned.id != base.id
    tuned.save(tmp_path / "merged")
    assert scores(load(tmp_path / "merged"), frames()) == scores(tuned, frames())


def test_an_adapter_whose_base_is_gone_names_the_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        f'{{"base_model_name_or_path": "{tmp_path}/gone", "peft_type": "LORA"}}'
    )
    with pytest.raises(UserError, match=r"base model folder '.*gone' does not exist"):
        load(tmp_path)
