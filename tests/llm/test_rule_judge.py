"""The three checks by rule: better, no conflict with the captions, correct."""

import pytest

from tpo.llm.judging import agreement, judge, words

CAPTIONS = ["a red star", "a blue moon", "an orange ring"]
TRUTH = "after the red star comes a blue moon"


def test_answers_are_compared_without_case_punctuation_and_articles() -> None:
    assert words("After the Red star, comes: A blue moon.") == words(TRUTH)
    assert agreement("After the red star comes blue moon!", TRUTH) == 1


def test_agreement_counts_shared_words_both_ways() -> None:
    assert agreement("red star", "red star blue moon") == pytest.approx(2 * 2 / (2 + 4))
    assert agreement("red red red", "red star") == pytest.approx(2 * 1 / (3 + 2)), "a word said thrice is shared once"
    assert agreement("", TRUTH) == 0
    assert agreement("...", "...") == 0, "no words agree on nothing"


@pytest.mark.parametrize("preferred_first", [True, False])
def test_the_verdict_is_about_the_preferred_answer_in_either_order(preferred_first: bool) -> None:
    pair = (TRUTH, "after the red star comes an orange ring")
    shown = pair if preferred_first else pair[::-1]
    verdict = judge(CAPTIONS, TRUTH, *shown, preferred_first=preferred_first)
    assert verdict.preferred_shown_first is preferred_first
    assert (verdict.preferred_is, verdict.conflicts_with_captions, verdict.is_correct) == ("better", False, True)


@pytest.mark.parametrize(
    ("preferred", "other", "expected"),
    [
        ("after the red star comes a blue ring", "a green heart", ("better", False, False)),
        ("after the red star comes a blue moon again", "a blue moon", ("better", True, False)),
        ("an orange ring", TRUTH, ("worse", False, False)),
        (TRUTH, "After the red star comes the blue moon.", ("equal", False, True)),
        ("a purple ladder", "a yellow fence", ("equal", True, False)),
    ],
)
def test_each_check_by_itself(preferred: str, other: str, expected: tuple[str, bool, bool]) -> None:
    verdict = judge(CAPTIONS, TRUTH, preferred, other, preferred_first=True)
    assert (verdict.preferred_is, verdict.conflicts_with_captions, verdict.is_correct) == expected


def test_words_of_the_reference_are_no_conflict_though_no_caption_has_them() -> None:
    assert not judge(
        ["a red star"], "first comes a red star", "first comes", "", preferred_first=True
    ).conflicts_with_captions
