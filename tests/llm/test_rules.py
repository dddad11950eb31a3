"""Questions by rule: their answers follow from the captions, and what cannot be named is not named."""

import numpy as np
import pytest

from tpo.demo.world import plan_events
from tpo.llm.rules import comprehensive_questions, definite, localized_questions

WALK = ["a red star", "a blue moon", "an orange ring", "a green heart"]


def answers(questions: list) -> dict[str, str]:
    """Question → answer; no question is asked twice with two answers."""
    found = {}
    for question in questions:
        assert found.setdefault(question.question, question.answer) == question.answer
    return found


def test_questions_about_a_segment_are_answered_by_its_captions() -> None:
    assert answers(localized_questions(WALK[1:3], WALK)) == {
        "What color is the moon?": "the moon is blue",
        "What color is the ring?": "the ring is orange",
        "What comes right after the blue moon?": "after the blue moon comes an orange ring",
        "What comes right before the orange ring?": "before the orange ring comes a blue moon",
    }


def test_questions_about_the_whole_video_are_answered_by_the_order_of_its_captions() -> None:
    found = answers(comprehensive_questions(WALK))
    assert found["What comes first?"] == "first comes a red star"
    assert found["What comes last?"] == "last comes a green heart"
    compared = {question: answer for question, answer in found.items() if question.startswith("Which")}
    assert len(compared) == 6
    for question, answer in compared.items():
        named = [definite(text) for text in WALK if definite(text) in question]
        assert answer == f"first comes {named[0]}", "captions are in time order, so the first one named in it is first"


def test_which_of_two_is_named_first_says_nothing_about_which_comes_first() -> None:
    first_named_first = []
    for seed in range(20):
        captions = [event.caption for event in plan_events(np.random.default_rng(seed), 12)]
        for question, answer in answers(comprehensive_questions(captions)).items():
            if question.startswith("Which"):
                named = answer.removeprefix("first comes ")
                first_named_first.append(question.startswith(f"Which comes first, {named}"))
    assert 0.4 < np.mean(first_named_first) < 0.6


@pytest.mark.parametrize("again", ["a red star", "A red star.", "the red star"])
def test_a_caption_that_comes_again_is_never_named(again: str) -> None:
    captions = ["a red star", "a blue moon", again, "a green heart"]
    for questions in (localized_questions(captions, captions), comprehensive_questions(captions)):
        assert questions
        assert not [question for question in questions if "the red star" in question.question.lower()]
    assert "What color is the star?" not in answers(localized_questions(captions, captions))


def test_what_comes_again_may_still_be_an_answer() -> None:
    captions = ["a red star", "a blue moon", "a red star"]
    found = answers(localized_questions(captions, captions))
    assert found["What comes right after the blue moon?"] == "after the blue moon comes a red star"


def test_two_things_of_one_noun_have_no_one_color() -> None:
    captions = ["a red star", "a blue star", "a green heart"]
    assert "What color is the star?" not in answers(localized_questions(captions, captions))


def test_a_repetition_outside_the_segment_counts_too() -> None:
    assert not [
        question
        for question in localized_questions(WALK[:2], [*WALK, "a red star"])
        if "star?" in question.question
    ]  # fmt: skip


def test_sentences_are_quoted_without_their_full_stop() -> None:
    captions = ["Two men carry a ladder across the yard.", "A woman opens the red door.", "It starts to rain."]
    found = answers(localized_questions(captions, captions))
    assert found['What comes right after "Two men carry a ladder across the yard"?'] == (
        'after "Two men carry a ladder across the yard" comes A woman opens the red door'
    )
    assert found["What color is the door?"] == "the door is red"
    compared = answers(comprehensive_questions(captions))
    assert compared["What comes last?"] == "last comes It starts to rain"
    assert 'first comes "A woman opens the red door"' in compared.values()


def test_quotes_within_a_sentence_stay_apart_from_those_around_it() -> None:
    captions = ['She says "stop."', "The cab drives off slowly again."]
    found = answers(localized_questions(captions, captions))
    assert "What comes right after \"She says 'stop.'\"?" in found


@pytest.mark.parametrize("caption", ["a black and white cat sleeps", "the red or green light"])
def test_a_second_color_is_not_a_thing(caption: str) -> None:
    questions = localized_questions([caption, "a dog"], [caption, "a dog"])
    assert not [question for question in questions if question.question.startswith("What color")]


def test_fewer_than_two_captions_give_no_order_to_ask_about() -> None:
    assert comprehensive_questions([]) == []
    assert comprehensive_questions(["a red star"]) == []
    assert localized_questions([], []) == []
    assert answers(localized_questions(["a red star"], ["a red star"])) == {
        "What color is the star?": "the star is red"
    }


def test_a_film_of_a_thousand_captions_gives_a_few_thousand_questions() -> None:
    captions = [f"Somebody says line number {number}." for number in range(1000)]
    questions = comprehensive_questions(captions)
    assert 1000 < len(questions) < 3000
    named = " ".join(question.question for question in questions)
    assert all(any(f"number {n}" in named for n in range(start, start + 100)) for start in range(0, 1000, 100))
