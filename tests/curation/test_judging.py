"""Which pairs of answers are kept, and why the others are not."""

from pathlib import Path

import pytest

from tpo.curation.judging import RuleJudge, candidates_of, judge_pairs, reason_to_drop
from tpo.params import load_params
from tpo.records import (
    Answer,
    Branch,
    Caption,
    Granularity,
    PreferencePair,
    Query,
    QuestionType,
    Reason,
    Rejection,
    Segment,
    Verdict,
    Video,
    View,
    ViewKind,
)
from tpo.video.sample import dense

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").answer
VIDEO = Video(
    id="a" * 64, path="walk.mp4", size_bytes=1, duration_s=40.0, fps=2, num_frames=80, width=64, height=64,
    last_frame_s=39.5, longest_frame_s=0.5,
    rotation_deg=0, codec="h264", is_vfr=False, has_audio=False, num_restarts=1, brightness=90.0, change=3.0,
)  # fmt: skip
TEXTS = ["a red star", "a blue moon", "an orange ring", "a green heart"]
CAPTIONS = [
    Caption(id=text, video_id=VIDEO.id, start_s=10.0 * i, end_s=10.0 * i + 10, text=text, source="walk.srt")
    for i, text in enumerate(TEXTS)
]
SEGMENT = Segment(video_id=VIDEO.id, start_s=0, end_s=20)
TRUTH = "after the red star comes a blue moon"
WRONG = "after the red star comes a green heart"


def a_query(name: str, reference: str | None = TRUTH) -> Query:
    return Query(
        id=name, video_id=VIDEO.id, granularity=Granularity.LOCALIZED, question_type=QuestionType.TEMPORAL_REASONING,
        segment=SEGMENT, question="What comes right after the red star?", reference_answer=reference, asker="rule",
    )  # fmt: skip


def an_answer(query: Query, branch: Branch, text: str, *, ended: bool = True, sample: int = 0) -> Answer:
    kind = ViewKind.SEGMENT if branch is Branch.PREFERRED else ViewKind.WITHOUT_SEGMENT
    return Answer(
        id=f"{query.id}/{branch}/{sample}", query_id=query.id, branch=branch, sample=sample, text=text, ended=ended,
        view=View(video_id=VIDEO.id, kind=kind, timestamps_s=(1.0, 2.0)), num_tokens=len(text.split()), model_id="m",
        decoding="greedy",
    )  # fmt: skip


def judged(queries: list[Query], answers: list[Answer]) -> tuple[list[PreferencePair], list[Rejection]]:
    """By rule, what was kept and what was not."""
    candidates, unanswered = candidates_of(VIDEO, CAPTIONS, queries, answers)
    outcomes = judge_pairs(candidates, RuleJudge(), PARAMS.full_frames)
    pairs = [one for one in outcomes if isinstance(one, PreferencePair)]
    return pairs, [*unanswered, *(one for one in outcomes if isinstance(one, Rejection))]


def two_answers(query: Query, preferred: str, other: str) -> list[Answer]:
    return [an_answer(query, Branch.DISPREFERRED, other), an_answer(query, Branch.PREFERRED, preferred)]


# What a model says with the evidence in view, what it says without, and why that is no pair (None: it is one).
NATURAL = {
    "right, and wrong without the evidence": (TRUTH, WRONG, None),
    "right in other words": ("After the red star comes the blue moon.", WRONG, None),
    "nothing said": ("", WRONG, Reason.EMPTY_ANSWER),
    "nothing said without the evidence": (TRUTH, "  ", Reason.EMPTY_ANSWER),
    "the same both times": (TRUTH, f" {TRUTH}", Reason.IDENTICAL_ANSWERS),
    "right both times": (TRUTH, "After the red star comes the blue moon.", Reason.TIE),
    "right only without the evidence": (WRONG, TRUTH, Reason.NOT_BETTER),
    "something that is not in the video": (f"{TRUTH} and a dog", WRONG, Reason.CONFLICT),
    "nearly right": ("after the red star comes a blue ring", WRONG, Reason.INCORRECT),
}


@pytest.mark.parametrize("case", NATURAL)
def test_a_pair_is_kept_if_its_preferred_answer_is_better_consistent_and_correct(case: str) -> None:
    preferred, other, reason = NATURAL[case]
    query = a_query("q")
    pairs, rejections = judged([query], two_answers(query, preferred, other))
    assert [rejection.reason for rejection in rejections] == ([reason] if reason else [])
    assert [(pair.chosen, pair.rejected) for pair in pairs] == ([] if reason else [(preferred, other)])
    assert all(rejection.item == "q" and rejection.stage == "judge" for rejection in rejections)


def test_a_query_without_both_answers_or_without_a_reference_is_set_aside() -> None:
    half, none, unjudgeable = a_query("half"), a_query("none"), a_query("unjudgeable", reference=None)
    answers = [an_answer(half, Branch.PREFERRED, TRUTH), *two_answers(unjudgeable, TRUTH, WRONG)]
    pairs, rejections = judged([half, none, unjudgeable], answers)
    assert pairs == []
    assert [(rejection.item, rejection.reason) for rejection in rejections] == [
        ("half", Reason.NO_ANSWER_PAIR),
        ("none", Reason.NO_ANSWER_PAIR),
        ("unjudgeable", Reason.NO_REFERENCE_ANSWER),
    ]
    assert rejections[0].detail == "1 of 2 answers are there"


@pytest.mark.parametrize("branch", Branch)
def test_an_answer_that_was_cut_is_no_answer(branch: Branch) -> None:
    query = a_query("q")
    answers = [
        an_answer(query, one, text, ended=one is not branch)
        for one, text in ((Branch.PREFERRED, TRUTH), (Branch.DISPREFERRED, WRONG))
    ]
    pairs, (rejection,) = judged([query], answers)
    assert (pairs, rejection.reason) == ([], Reason.RUNAWAY_ANSWER)
    assert rejection.detail.startswith(f"{branch}, cut after")


def test_each_sample_is_judged_against_its_like_and_named_by_its_number() -> None:
    query = a_query("q")
    said = {0: (TRUTH, WRONG), 1: (WRONG, TRUTH), 2: (TRUTH, TRUTH)}
    answers = [an_answer(query, b, said[n][i], sample=n) for n in said for i, b in enumerate(Branch)]
    pairs, rejections = judged([query], [*answers, an_answer(query, Branch.PREFERRED, TRUTH, sample=3)])
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(TRUTH, WRONG)]
    assert {(one.item, one.reason) for one in rejections} == {
        ("q#1", Reason.NOT_BETTER),
        ("q#2", Reason.IDENTICAL_ANSWERS),
        ("q#3", Reason.NO_ANSWER_PAIR),
    }


def test_a_verdict_that_changes_with_the_order_of_the_answers_keeps_nothing() -> None:
    """The rule judge has no such bias; a language model that always likes the first answer does."""
    verdicts = [
        Verdict(
            preferred_shown_first=first,
            preferred_is="better" if first else "worse",
            conflicts_with_captions=False,
            is_correct=True,
        )
        for first in (True, False)
    ]
    dropped = reason_to_drop(TRUTH, WRONG, verdicts)
    assert dropped is not None
    assert dropped.reason is Reason.ORDER_DISAGREEMENT
    assert reason_to_drop(TRUTH, WRONG, verdicts[:1]) is None


def test_a_kept_pair_carries_both_verdicts_and_where_everything_came_from() -> None:
    query = a_query("q")
    answers = two_answers(query, TRUTH, WRONG)
    (pair,), _ = judged([query], answers)
    assert [verdict.preferred_shown_first for verdict in pair.verdicts] == [True, False]
    assert {(v.preferred_is, v.conflicts_with_captions, v.is_correct) for v in pair.verdicts} == {
        ("better", False, True)
    }
    assert pair.view == dense(VIDEO, PARAMS.full_frames), "trained on the full video, whatever the answers came from"
    assert (pair.chosen_view, pair.rejected_view) == (answers[1].view, answers[0].view)
    assert (pair.chosen_tokens, pair.rejected_tokens) == (len(TRUTH.split()), len(WRONG.split()))
    assert (pair.segment, pair.granularity, pair.question) == (SEGMENT, query.granularity, query.question)
    assert (pair.video_id, pair.query_id, pair.model_id, pair.judge) == (VIDEO.id, "q", "m", "rule")


def test_every_query_ends_as_one_pair_or_one_rejection() -> None:
    queries = [a_query(case) for case in NATURAL]
    answers = [answer for query in queries for answer in two_answers(query, NATURAL[query.id][0], NATURAL[query.id][1])]
    pairs, rejections = judged(queries, answers)
    ended = [pair.query_id for pair in pairs] + [rejection.item for rejection in rejections]
    assert sorted(ended) == sorted(NATURAL)
    assert len({pair.id for pair in pairs}) == len(pairs) == 2
    assert judged(queries, answers[::-1]) == (pairs, rejections)
