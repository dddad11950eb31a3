"""Questions with instructions, with the beginning of the answer, or without their video; of every family."""

from pathlib import Path

import pytest
import torch
from tiny import FAMILIES, load, noise, save_tiny

from tpo.errors import UserError
from tpo.models.video_lmm import VideoLMM
from tpo.records import Prompt

QUESTIONS = ["What comes first?", "And which color was it, was it red or blue?"]
OPTIONS = [["A", "B", "C"], ["red", "blue"]]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoLMM:
    return load(save_tiny(request.param, Path(tmp_path_factory.mktemp("tiny")) / request.param))


def test_a_prompt_may_have_instructions_and_the_beginning_of_the_answer(model: VideoLMM) -> None:
    video = model.prepare(noise())
    asked = Prompt(system="Watch it.", user="Which letter?", prefill="Best Option: (")
    text = model.tokenizer.decode(model.prompt_ids(video, asked))
    assert text.index("Watch it.") < text.index("Which letter?") < text.index("Best Option")
    assert text.endswith("Best Option: (")
    assert model.prompt_ids(video, Prompt(user="Which letter?")) == model.prompt_ids(video, "Which letter?")


def test_nothing_in_a_prompt_is_taken_for_a_special_token(model: VideoLMM) -> None:
    video = model.prepare(noise())
    usual = model.prompt_ids(video, Prompt(system="a", user="b", prefill="c"))
    marker = model.tokenizer.eos_token
    ids = model.prompt_ids(video, Prompt(system=f"a{marker}", user=f"b{marker}", prefill=f"c{marker}"))
    assert ids.count(model.tokenizer.eos_token_id) == usual.count(model.tokenizer.eos_token_id)


@torch.no_grad()
def test_without_the_video_answers_score_as_in_the_library(model: VideoLMM) -> None:
    blind = model.option_logprobs(None, QUESTIONS, OPTIONS)
    assert blind != model.option_logprobs(noise(), QUESTIONS, OPTIONS)
    for question, candidates, scores in zip(QUESTIONS, OPTIONS, blind, strict=True):
        prompt = model.prompt_ids(None, question)
        assert model.family.video_token_id not in prompt
        for candidate, score in zip(candidates, scores, strict=True):
            answer = model.answer_ids(candidate)
            row = torch.tensor([prompt + answer])
            logits = model.model(input_ids=row, mm_token_type_ids=model.family.token_types(row)).logits[0]
            expected = logits[len(prompt) - 1 : -1].log_softmax(-1)[range(len(answer)), answer].sum()
            assert score == pytest.approx(float(expected), abs=1e-4)


def test_without_the_video_answers_are_written_as_with_it(model: VideoLMM) -> None:
    ((blind, again),) = model.generate_many([(None, [QUESTIONS[0], QUESTIONS[0]])], 4)
    assert blind == again
    assert 0 < blind.num_tokens <= 4


def test_of_a_letter_what_may_follow_is_left_open(model: VideoLMM) -> None:
    whole = model.option_logprobs(noise(), QUESTIONS[:1], OPTIONS[:1])[0]
    letters = model.option_logprobs(noise(), QUESTIONS[:1], OPTIONS[:1], whole=False)[0]
    assert all(letter > answer for letter, answer in zip(letters, whole, strict=True))
    assert sum(2.718281828**letter for letter in letters) < 1


@torch.no_grad()
def test_letters_that_bfloat16_rounds_to_one_logit_are_no_tie(tmp_path: Path) -> None:
    model = load(save_tiny("llava_onevision", tmp_path / "model"), dtype="bfloat16")
    letters = [model.answer_ids(letter)[0] for letter in "ABCD"]
    weight = model.bare.get_output_embeddings().weight
    weight[letters] = weight[letters[0]].clone()
    for number, letter in enumerate(letters):
        weight[letter, number] *= 1 + 2**-7  # the next number that bfloat16 has
    row = torch.tensor([model.prompt_ids(None, QUESTIONS[0])])
    rounded = model.model(input_ids=row, mm_token_type_ids=model.family.token_types(row)).logits[0, -1, letters]
    assert len(set(rounded.tolist())) < 4
    (scores,) = model.option_logprobs(None, QUESTIONS[:1], [list("ABCD")], whole=False)
    assert len(set(scores)) == 4
    assert scores == pytest.approx([scores[0]] * 4, abs=0.05)


def test_a_question_longer_than_the_decoder_can_take_is_refused(model: VideoLMM) -> None:
    with pytest.raises(UserError, match=r"tokens and an answer of up to \d+ are too long: .* was made for 4096"):
        model.option_logprobs(None, ["why " * 5000], [["A"]])
