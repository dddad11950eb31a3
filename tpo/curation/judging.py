"""judge: keep a pair of answers only if the preferred one is better, conflicts with nothing, and is correct.

The keep rule is (Yes, No, Yes) of the paper's three checks (figure 9), asked in both orders of the answers (ours: the
paper asks in one order, which leaves position bias uncontrolled). Everything else is dropped with its reason. Who
judges is a `Judge`: rules on words (`RuleJudge`), or a language model (`tpo.curation.model_judging`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tpo.llm import judging as rule
from tpo.records import (
    Answer,
    Branch,
    Caption,
    PreferencePair,
    Query,
    Reason,
    Rejection,
    Verdict,
    Video,
    content_id,
)
from tpo.video.sample import dense

STAGE = "judge"


class Drop(NamedTuple):
    """Why two answers are no pair."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Candidate:
    """Two answers to one query, and what the judge may know: the captions of the whole video, in time order."""

    video: Video
    captions: Sequence[Caption]
    query: Query
    preferred: Answer
    other: Answer


class Judge(Protocol):
    """Attributes: id: who judges, in the records."""

    id: str

    def verdicts(self, candidates: Sequence[Candidate]) -> list[tuple[Verdict, Verdict] | Drop]:
        """Of each candidate a verdict with the preferred answer shown first and one with it shown second, or why not.

        Raises:
            UserError: the judge cannot be reached.
        """
        ...


class RuleJudge:
    """Compares words with the asker's own answer, offline."""

    id = rule.JUDGE

    def verdicts(self, candidates: Sequence[Candidate]) -> list[tuple[Verdict, Verdict] | Drop]:
        return [self._judge(candidate) for candidate in candidates]

    def _judge(self, candidate: Candidate) -> tuple[Verdict, Verdict] | Drop:
        reference = candidate.query.reference_answer
        if reference is None:
            return Drop(Reason.NO_REFERENCE_ANSWER, "the rule judge needs the asker's answer, and there is none")
        texts = [caption.text for caption in candidate.captions]
        preferred, other = candidate.preferred.text, candidate.other.text
        return (
            rule.judge(texts, reference, preferred, other, preferred_first=True),
            rule.judge(texts, reference, other, preferred, preferred_first=False),
        )


def candidates_of(
    video: Video, captions: Sequence[Caption], queries: Sequence[Query], answers: Sequence[Answer]
) -> tuple[list[Candidate], list[Rejection]]:
    """The n-th answers of both branches to each query, and the queries that lack one.

    A query is one item, or as many as the most answers that one of its branches has; a query without any is one item.
    """
    given = {(answer.query_id, answer.branch, answer.sample): answer for answer in answers}
    candidates: list[Candidate] = []
    rejections: list[Rejection] = []
    ordered = sorted(captions, key=lambda caption: (caption.start_s, caption.end_s))
    num_samples = {query.id: 1 for query in queries}
    for answer in answers:
        num_samples[answer.query_id] = max(num_samples.get(answer.query_id, 1), answer.sample + 1)
    for query in queries:
        for sample in range(num_samples[query.id]):
            both = [given[query.id, branch, sample] for branch in Branch if (query.id, branch, sample) in given]
            if len(both) == len(Branch):
                candidates.append(Candidate(video, ordered, query, *both))
            else:
                detail = f"{len(both)} of {len(Branch)} answers are there"
                rejections.append(_rejection(query, sample, Drop(Reason.NO_ANSWER_PAIR, detail)))
    return candidates, rejections


def judge_pairs(candidates: Sequence[Candidate], judge: Judge, full_frames: int) -> list[PreferencePair | Rejection]:
    """A pair or a `Rejection` for each candidate, in their order. What needs no judge is dropped unasked.

    Args:
        full_frames: of the view that a pair is trained with.
    """
    unfit_ones = [unfit(candidate.preferred, candidate.other) for candidate in candidates]
    judged = iter(judge.verdicts([one for one, drop in zip(candidates, unfit_ones, strict=True) if drop is None]))
    outcomes = [drop or next(judged) for drop in unfit_ones]
    return [
        _kept_or_not(candidate, outcome, judge.id, full_frames)
        for candidate, outcome in zip(candidates, outcomes, strict=True)
    ]


def _kept_or_not(
    candidate: Candidate, outcome: tuple[Verdict, Verdict] | Drop, judge_id: str, full_frames: int
) -> PreferencePair | Rejection:
    if isinstance(outcome, Drop):
        return _rejection(candidate.query, candidate.preferred.sample, outcome)
    drop = reason_to_drop(candidate.preferred.text, candidate.other.text, outcome)
    if drop is not None:
        return _rejection(candidate.query, candidate.preferred.sample, drop)
    return pair_of(candidate, outcome, judge_id, full_frames)


def unfit(preferred: Answer, other: Answer) -> Drop | None:
    """Why two answers are no pair, whoever would judge them."""
    first, second = preferred.text.strip(), other.text.strip()
    if not first or not second:
        return Drop(Reason.EMPTY_ANSWER, f"preferred {first!r}, dis-preferred {second!r}")
    if first == second:
        return Drop(Reason.IDENTICAL_ANSWERS, repr(first))
    cut = next((answer for answer in (preferred, other) if not answer.ended), None)
    if cut is not None:
        detail = f"{cut.branch}, cut after {cut.num_tokens} tokens: {cut.text[:200]!r}"
        return Drop(Reason.RUNAWAY_ANSWER, detail)
    return None


def reason_to_drop(preferred: str, other: str, verdicts: Sequence[Verdict]) -> Drop | None:
    """Why a judged pair is not kept, with a detail, or none if it is."""
    first, *others = verdicts
    facts = {(v.preferred_is, v.conflicts_with_captions, v.is_correct) for v in verdicts}
    if others and len(facts) > 1:
        return Drop(Reason.ORDER_DISAGREEMENT, f"the verdict changes with the order of {preferred!r} and {other!r}")
    if first.preferred_is == "equal":
        return Drop(Reason.TIE, f"{preferred!r} is as good as {other!r}")
    if first.preferred_is == "worse":
        return Drop(Reason.NOT_BETTER, f"{preferred!r} is worse than {other!r}")
    if first.conflicts_with_captions:
        return Drop(Reason.CONFLICT, f"{preferred!r} or its question conflicts with the captions")
    if not first.is_correct:
        return Drop(Reason.INCORRECT, f"{preferred!r} is not what the captions say")
    return None


def _rejection(query: Query, sample: int, drop: Drop) -> Rejection:
    item = f"{query.id}#{sample}" if sample else query.id
    return Rejection(stage=STAGE, item=item, reason=drop.reason, detail=drop.detail)


def pair_of(candidate: Candidate, verdicts: Sequence[Verdict], judge_id: str, full_frames: int) -> PreferencePair:
    """The pair that a candidate is, or would have been had it been kept."""
    query, chosen, rejected = candidate.query, candidate.preferred, candidate.other
    return PreferencePair(
        id=content_id(query.id, chosen.id, rejected.id, chosen.text, rejected.text),
        video_id=candidate.video.id,
        query_id=query.id,
        granularity=query.granularity,
        question_type=query.question_type,
        question=query.question,
        view=dense(candidate.video, full_frames),
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_tokens=chosen.num_tokens,
        rejected_tokens=rejected.num_tokens,
        chosen_view=chosen.view,
        rejected_view=rejected.view,
        segment=query.segment,
        model_id=chosen.model_id,
        verdicts=tuple(verdicts),
        judge=judge_id,
    )
