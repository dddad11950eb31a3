"""A real LLaVA-OneVision, tiny and with random weights, from folders on disk, against the library's own plain forward.

Random weights tell right from wrong here: every token and every frame moves every number a little.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import Event, render_frame
from tpo.errors import UserError
from tpo.models import VideoLMM, load_model
from tpo.training.trainer import save_tuned
from tpo.video.decode import Frames

QUESTIONS = ["What color is the star ?", "What comes right after the blue moon ?", "video"]
ANSWERS = [["red", "a blue moon, then a red star, then a green ring", "a"], ["a red star"], ["yes", "a moon"]]


def load(folder: Path) -> VideoLMM:
    return load_model(str(folder), dtype="float32", device="cpu")


def frames(seed: int = 0, count: int = 5) -> Frames:
    rng = np.random.default_rng(seed)
    shapes = rng.choice(["star", "moon", "ring", "heart"], count)
    colors = rng.choice(["red", "blue", "green", "white"], count)
    pixels = [render_frame(Event(0, 9, c, s), 0.5, seed) for c, s in zip(colors, shapes, strict=True)]
    return Frames(np.stack(pixels), np.arange(count) / 2, "pyav", "18")


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
    prompt, ids = model.prompt_ids(question, len(shown.pixels)), model.answer_ids(answer)
    output = model.model(
        input_ids=torch.tensor([prompt + ids]), pixel_values_videos=model.pixel_values(shown)[None], use_cache=False
    )
    logprobs = output.logits[0].log_softmax(-1)
    return torch.stack([logprobs[len(prompt) + n - 1, token] for n, token in enumerate(ids)])


def test_answer_logprobs_are_those_of_a_plain_forward(model: VideoLMM) -> None:
    scores = model.answer_logprobs(frames(), QUESTIONS, ANSWERS)
    assert [len(row) for row in scores] == [3, 1, 2]
    for question, answers, row in zip(QUESTIONS, ANSWERS, scores, strict=True):
        for answer, score in zip(answers, row, strict=True):
            assert score == pytest.approx(float(plain_logprobs(model, frames(), question, answer).sum()), abs=1e-4)


def test_the_token_that_ends_the_turn_is_part_of_an_answer(model: VideoLMM) -> None:
    per_token = plain_logprobs(model, frames(), QUESTIONS[0], "a red star")
    assert model.answer_ids("a red star")[-1] == model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert len(per_token) == 4
    ((score,),) = model.answer_logprobs(frames(), QUESTIONS[:1], [["a red star"]])
    assert score == pytest.approx(float(per_token.sum()), abs=1e-4)
    assert abs(score - float(per_token[:-1].sum())) > 0.1


def test_candidates_of_other_lengths_do_not_influence_a_score(model: VideoLMM) -> None:
    question = QUESTIONS[0]
    ((alone,),) = model.answer_logprobs(frames(), [question], [["red"]])
    for others in (["a " * 40], ["", "moon"], ["blue", "green", "a red star, then a blue ring"]):
        (row,) = model.answer_logprobs(frames(), [question], [[*others, "red"]])
        assert row[-1] == pytest.approx(alone, abs=1e-4)


def test_questions_asked_together_score_as_when_asked_alone(model: VideoLMM) -> None:
    together = model.answer_logprobs(frames(), QUESTIONS, ANSWERS)
    for number in range(3):
        (alone,) = model.answer_logprobs(frames(), [QUESTIONS[number]], [ANSWERS[number]])
        assert alone == pytest.approx(together[number], abs=1e-4)


def test_one_frame_is_a_video_too(model: VideoLMM) -> None:
    ((score,),) = model.answer_logprobs(frames(count=1), QUESTIONS[:1], [["red"]])
    assert score == pytest.approx(float(plain_logprobs(model, frames(count=1), QUESTIONS[0], "red").sum()), abs=1e-4)


def test_what_is_shown_and_in_which_order_changes_every_score(model: VideoLMM) -> None:
    shown = frames()
    ((seen,),) = model.answer_logprobs(shown, QUESTIONS[:1], [["red"]])
    black = Frames(np.zeros_like(shown.pixels), shown.timestamps_s, "pyav", "18")
    backwards = Frames(shown.pixels[::-1], shown.timestamps_s, "pyav", "18")
    one_changed = Frames(shown.pixels.copy(), shown.timestamps_s, "pyav", "18")
    one_changed.pixels[2] = 255
    for other in (black, backwards, one_changed):
        ((score,),) = model.answer_logprobs(other, QUESTIONS[:1], [["red"]])
        assert abs(score - seen) > 1e-4


def test_a_prompt_holds_one_placeholder_for_every_feature_of_the_video(model: VideoLMM) -> None:
    video = model.model.config.video_token_id
    for count in (1, 2, 7, 32):
        features = model.family.encode_video(model.model, model.pixel_values(frames(count=count))[None])
        assert model.prompt_ids(QUESTIONS[0], count).count(video) == features.shape[1] == count + 1
    words = model.tokenizer.decode([i for i in model.prompt_ids(QUESTIONS[0], 3) if i != video])
    assert words == "<|im_start|> user What color is the star ? <|im_end|> <|im_start|> assistant"


@pytest.mark.parametrize("question", ["What is <video> ?", "<video>", "Compare <video> and <video>"])
def test_a_question_that_contains_the_placeholder_is_refused(model: VideoLMM, question: str) -> None:
    for ask in (
        lambda: model.answer(frames(), question, max_new_tokens=2),
        lambda: model.answer_logprobs(frames(), [question], [["red"]]),
    ):
        with pytest.raises(UserError, match=r"video placeholders of one video and the question .*expected 1"):
            ask()


def test_a_prompt_that_does_not_fit_the_video_is_an_error_and_not_a_blind_run(model: VideoLMM) -> None:
    prompt = torch.tensor([model.prompt_ids(QUESTIONS[0], 5)])
    for count in (4, 6):
        with pytest.raises(ValueError, match="do not match"):
            model.model(input_ids=prompt, pixel_values_videos=model.pixel_values(frames(count=count))[None])


def test_an_answer_is_the_most_probable_token_each_time(restless: VideoLMM) -> None:
    answer = restless.answer(frames(), QUESTIONS[0], max_new_tokens=4)
    ids, prompt = [], restless.prompt_ids(QUESTIONS[0], 5)
    for _ in range(4):
        with torch.no_grad():
            output = restless.model(
                input_ids=torch.tensor([prompt + ids]), pixel_values_videos=restless.pixel_values(frames())[None]
            )
        ids.append(int(output.logits[0, -1].argmax()))
        if ids[-1] == restless.tokenizer.eos_token_id:
            break
    assert answer == restless.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_answers_given_in_batches_are_those_given_one_by_one(restless: VideoLMM) -> None:
    asked = [(frames(n, count=3 + n % 3), question) for n in range(4) for question in QUESTIONS]
    one_by_one = [restless.answer(shown, question, max_new_tokens=6) for shown, question in asked]
    assert len(set(one_by_one)) == len(asked)
    for batch_size in (1, 2, 5, 100):
        assert restless.answers(asked, 6, batch_size) == one_by_one
    assert restless.answers([], 6, 4) == []


def test_the_id_is_the_weights_and_stays_the_same_wherever_they_lie(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load(tiny_checkpoint)
    assert load(tiny_checkpoint).id == first.id
    shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    (tmp_path / "moved" / "manifest.json").write_text('{"seconds": 12.5}')  # a stage's own, other each time
    assert load(tmp_path / "moved").id == first.id
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 1), tokenizer, tmp_path / "other")
    assert load(tmp_path / "other").id != first.id
    assert load_model(str(tiny_checkpoint), dtype="bfloat16", device="cpu").id != first.id


def test_one_changed_weight_is_another_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = load(tiny_checkpoint)
    with torch.no_grad():
        model.model.model.multi_modal_projector.linear_1.bias[0] += 1e-3
    save_tuned(model, tmp_path / "nudged")
    assert load(tmp_path / "nudged").id != model.id


def test_a_saved_model_loads_to_the_same_numbers_and_the_same_answers(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = load(tiny_checkpoint)
    save_tuned(model, tmp_path / "tuned")
    again = load(tmp_path / "tuned")
    assert again.answer_logprobs(frames(), QUESTIONS, ANSWERS) == model.answer_logprobs(frames(), QUESTIONS, ANSWERS)
    assert again.answer(frames(), QUESTIONS[0], 6) == model.answer(frames(), QUESTIONS[0], 6)
    assert again.frame_spec == model.frame_spec
    save_tuned(again, tmp_path / "twice")
    assert load(tmp_path / "twice").id == again.id


def test_an_adapter_folder_is_its_base_with_the_adapter_merged(tiny_checkpoint: Path, tmp_path: Path) -> None:
    base = load(tiny_checkpoint)
    expected_without = base.answer_logprobs(frames(), QUESTIONS, ANSWERS)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=base.family.LORA_TARGETS, base_model_name_or_path=str(tiny_checkpoint)
    )
    torch.manual_seed(0)
    adapted = get_peft_model(load(tiny_checkpoint).model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    base.model = adapted.eval()
    expected = base.answer_logprobs(frames(), QUESTIONS, ANSWERS)
    save_tuned(base, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    tuned = load(tmp_path / "adapter")
    found = tuned.answer_logprobs(frames(), QUESTIONS, ANSWERS)
    for row, expected_row, without in zip(found, expected, expected_without, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-4)
        assert row != pytest.approx(without, abs=1e-2)
    assert tuned.id != base.id
    save_tuned(tuned, tmp_path / "merged")
    assert load(tmp_path / "merged").answer_logprobs(frames(), QUESTIONS, ANSWERS) == found


def test_what_is_not_a_checkpoint_is_said_with_what_to_set(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(UserError, match=r"does not exist or has no config\.json\. Set model\.base"):
            load(folder)
    with pytest.raises(UserError, match=r"'somebody/nothing' is neither a checkpoint folder nor a reachable hub id"):
        load_model("somebody/nothing", dtype="float32", device="cpu")
    shutil.copytree(tiny_checkpoint, tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match=r"is a 'bert' model; supported are: llava_onevision"):
        load(tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "no_such_family"}))
    with pytest.raises(UserError, match="neither a checkpoint folder nor"):
        load(tmp_path / "bert")


def test_an_adapter_whose_base_is_gone_names_the_base(tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = {"base_model_name_or_path": str(tmp_path / "gone"), "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(UserError, match=r"base model folder '.*gone' does not exist"):
        load(tmp_path)
