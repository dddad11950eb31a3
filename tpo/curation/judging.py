"""judge: keep a pair of answers only if the preferred one is better, conflicts with nothing, and is correct.

The keep rule is (Yes, No, Yes) of the paper's three checks, asked in both orders of the answers (ours: the paper asks
in one order, which leaves position bias uncontrolled). Everything else is dropped with its reason.
"""

from collections.abc import Sequence
from itertools import groupby

from tpo.llm.judging import JUDGE, judge
from tpo.params import AnswerParams
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


def reason_to_drop(chosen: str, rejected: str, verdicts: Sequence[Verdict]) -> tuple[Reason, str] | None:
    """Why a pair is not kept, with a detail, or none if it is."""
    first, *others = verdicts
    facts = {(v.preferred_is, v.conflicts_with_captions, v.is_correct) for v in verdicts}
    if not chosen.strip() or not rejected.strip():
        return Reason.EMPTY_ANSWER, f"preferred {chosen!r}, dis-preferred {rejected!r}"
    if chosen.strip() == rejected.strip():
        return Reason.IDENTICAL_ANSWERS, repr(chosen)
    if others and len(facts) > 1:
        return Reason.ORDER_DISAGREEMENT, "the verdict changes with the order of the answers"
    if first.preferred_is != "better":
        return Reason.NOT_BETTER, f"{chosen!r} against {rejected!r}: {first.preferred_is}"
    if first.conflicts_with_captions:
        return Reason.CONFLICT, f"{chosen!r} speaks of something that no caption mentions"
    if not first.is_correct:
        return Reason.INCORRECT, f"{chosen!r} is not what the captions say"
    return None


def judge_video(
    video: Video,
    captions: Sequence[Caption],
    queries: Sequence[Query],
    answers: Sequence[Answer],
    params: AnswerParams,
) -> tuple[list[PreferencePair], list[Rejection]]:
    """One pair or one `Rejection` per query of a video."""
    by_query = {
        query_id: {answer.branch: answer for answer in group}
        for query_id, group in groupby(sorted(answers, key=lambda a: a.query_id), key=lambda a: a.query_id)
    }
    texts = [caption.text for caption in captions]
    pairs: list[PreferencePair] = []
    rejections: list[Rejection] = []

    def drop(query: Query, reason: Reason, detail: str) -> None:
        rejections.append(Rejection(stage=STAGE, item=query.id, reason=reason, detail=detail))

    for query in queries:
        branches = by_query.get(query.id, {})
        if len(branches) < 2:
            drop(query, Reason.NO_ANSWER_PAIR, f"{len(branches)} of 2 answers are there")
            continue
        if query.reference_answer is None:
            drop(query, Reason.NO_REFERENCE_ANSWER, "the rule judge needs the asker's answer, and there is none")
            continue
        chosen, rejected = branches[Branch.PREFERRED], branches[Branch.DISPREFERRED]
        verdicts = (
            judge(texts, query.reference_answer, chosen.text, rejected.text, preferred_first=True),
            judge(texts, query.reference_answer, rejected.text, chosen.text, preferred_first=False),
        )
        dropped = reason_to_drop(chosen.text, rejected.text, verdicts)
        if dropped:
            drop(query, *dropped)
            continue
        pairs.append(
            PreferencePair(
                id=content_id(query.id, chosen.id, rejected.id, chosen.text, rejected.text),
                video_id=video.id,
                query_id=query.id,
                granularity=query.granularity,
                question_type=query.question_type,
                question=query.question,
                view=dense(video, params.full_frames),
                chosen=chosen.text,
                rejected=rejected.text,
                chosen_view=chosen.view,
                rejected_view=rejected.view,
                segment=query.segment,
                model_id=chosen.model_id,
                verdicts=verdicts,
                judge=JUDGE,
            )
        )
    return pairs, rejections
