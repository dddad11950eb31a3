"""What may be said of a gain. Tables are made so that each sentence is the right one."""

import numpy as np
import pytest
from said import BOOTSTRAP, answers

from tpo.evaluation.comparison import compare
from tpo.evaluation.contrasts import contrasts
from tpo.evaluation.verdict import is_better, verdict
from tpo.records import Condition, Role

FULL, TEXT_ONLY, SHUFFLED = Condition.FULL, Condition.TEXT_ONLY, Condition.SHUFFLED
NUM_VIDEOS = 120


def right(share: float) -> np.ndarray:
    """The same videos are the easy ones, whoever is asked; [videos, 2 questions]."""
    return np.repeat(np.arange(NUM_VIDEOS) < share * NUM_VIDEOS, 2).reshape(NUM_VIDEOS, 2)


def said_of(**shares: tuple[float, float]) -> str:
    """The verdict where base and tuned model are right on these shares of items under each condition."""
    roles: tuple[Role, Role] = ("base", "tuned")
    asked = {
        (role, Condition(condition)): answers(role, right(share), condition=condition)
        for condition, pair in shares.items()
        for role, share in zip(roles, pair, strict=True)
    }
    comparison = compare(asked["base", FULL], asked["tuned", FULL], **BOOTSTRAP)[1]
    return verdict(comparison, contrasts([one for each in asked.values() for one in each], **BOOTSTRAP))


def test_a_clear_gain_is_better_with_its_interval_and_p() -> None:
    said = said_of(full=(0.5, 0.6))
    assert said.startswith("better: +10.0 points [+5.0, +15.8], p 1.2e-07 (Holm).")


def test_a_clear_loss_is_worse_and_nothing_more_is_said() -> None:
    said = said_of(full=(0.6, 0.5), text_only=(0.3, 0.4), shuffled=(0.4, 0.5))
    assert said == "worse: -10.0 points [-15.8, -5.0], p 1.2e-07 (Holm)."


def test_a_small_gain_is_not_shown_and_what_could_be_seen_is_said() -> None:
    said = said_of(full=(0.5, 0.51))
    assert said.startswith("not shown: +1.7 points [+0.0, +4.2], p 0.12 (Holm); ")
    assert said.endswith("smaller than what could be seen here (3.3 points).")


def test_no_change_is_not_shown() -> None:
    assert said_of(full=(0.5, 0.5)).endswith("p 1 (Holm); no answer changed.")


def test_an_interval_above_nothing_is_not_enough_where_the_exact_test_says_chance() -> None:
    base, tuned = (answers(role, np.tile([now, False], (4, 1))) for role, now in (("base", False), ("tuned", True)))
    comparison = compare(base, tuned, **BOOTSTRAP)[0]
    assert comparison.difference.low == 0.5, "four videos, each with one gained: the bootstrap sees no variation"
    assert not is_better(comparison)
    assert verdict(comparison).startswith("not shown: +50.0 points [+50.0, +50.0], p 0.12 (Holm)")


def test_one_video_shows_nothing() -> None:
    base, tuned = (answers(role, np.full((1, 30), now)) for role, now in (("base", False), ("tuned", True)))
    said = verdict(compare(base, tuned, **BOOTSTRAP)[0])
    assert said == "not shown: +100.0 points [-100.0, +100.0], p 1.9e-09 (Holm); one video says nothing about others."


def test_a_gain_without_the_video_is_language() -> None:
    said = said_of(full=(0.5, 0.6), text_only=(0.3, 0.4))
    assert "The gain shows without the video as well (+10.0 points [" in said
    assert "it is language, not time." in said


@pytest.mark.parametrize(
    ("text_only", "expected"),
    [
        ((0.3, 0.3), "Without the video no gain is shown (+0.0 points ["),
        ((0.3, 0.35), "Part of the gain shows without the video as well (+5.0 points ["),
    ],
)
def test_a_gain_that_needs_the_video_is_told_from_one_that_partly_does(
    text_only: tuple[float, float], expected: str
) -> None:
    said = said_of(full=(0.5, 0.7), text_only=text_only)
    assert expected in said
    assert "not time" not in said


def test_of_a_few_items_without_the_video_it_is_not_said_that_the_gain_needs_it() -> None:
    """Twelve videos, and without seeing them the models are right about others of them."""
    asked = {role: answers(role, right(share)) for role, share in (("base", 0.5), ("tuned", 0.6))}
    comparison = compare(asked["base"], asked["tuned"], **BOOTSTRAP)[1]
    blind = [
        asked[role][2 * video].model_copy(update={"condition": TEXT_ONLY, "score": float(video % 4 == rest)})
        for video in range(70, 82)
        for role, rest in (("base", 0), ("tuned", 1))
    ]
    controls = contrasts([*asked["base"], *asked["tuned"], *blind], **BOOTSTRAP)
    assert "Whether it needs the video is not shown: all of it may be there without (" in verdict(comparison, controls)


@pytest.mark.parametrize(
    ("shuffled", "expected"),
    [
        ((0.45, 0.45), "What the order of frames is worth rose by +20.0 points ["),
        ((0.3, 0.5), "That the order of frames became worth more is not shown (+0.0 points ["),
        ((0.3, 0.65), "What the order of frames is worth fell: -15.0 points ["),
    ],
)
def test_what_became_of_temporal_gain_is_said(shuffled: tuple[float, float], expected: str) -> None:
    assert expected in said_of(full=(0.5, 0.7), shuffled=shuffled)


def test_controls_that_were_not_asked_are_said_not_to_have_been() -> None:
    said = said_of(full=(0.5, 0.6))
    assert "Whether it needs the video was not asked (text_only)." in said
    assert "Whether it needs the order of frames was not asked (shuffled)." in said


def test_controls_of_another_benchmark_say_nothing() -> None:
    asked = [one for role in ("base", "tuned") for one in answers(role, right(0.5 if role == "base" else 0.6))]
    blind = [one.model_copy(update={"condition": TEXT_ONLY}) for one in asked]
    comparison = compare(asked[: len(asked) // 2], asked[len(asked) // 2 :], **BOOTSTRAP)[1]
    controls = [one for one in contrasts(asked + blind, **BOOTSTRAP) if one.benchmark == "all"]
    assert len(controls) == 1
    assert "was not asked (text_only)" in verdict(comparison, controls)
