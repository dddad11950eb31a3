"""ask: questions about a video, written from its captions: localized ones from a segment, comprehensive from all."""

from collections.abc import Sequence

import numpy as np

from tpo.llm.rules import RuleQuestion, comprehensive_questions, localized_questions
from tpo.params import AskParams
from tpo.records import Caption, Granularity, Query, QuestionType, Reason, Rejection, Segment, Video, content_id

STAGE = "ask"
ASKER = "rule"


def ask_video(
    video: Video, captions: Sequence[Caption], params: AskParams, seed: int
) -> tuple[list[Query], list[Rejection]]:
    """Questions about one video, at most so many of each granularity as `params` says, drawn evenly over it.

    A video that gives no question at all is a `Rejection` of the video.
    """
    ordered = sorted(captions, key=lambda caption: (caption.start_s, caption.end_s))
    rng = np.random.default_rng([seed, int(video.id[:8], 16)])
    queries = [
        *_draw(rng, _localized(video, ordered, params.captions_per_segment), params.localized_per_video),
        *_draw(rng, _comprehensive(video, ordered), params.comprehensive_per_video),
    ]
    if queries:
        return queries, []
    reason = Reason.TOO_FEW_CAPTIONS if len(ordered) < 2 else Reason.NOTHING_TO_ASK
    detail = f"{len(ordered)} caption(s) gave no question by rule"
    return [], [Rejection(stage=STAGE, item=video.id, reason=reason, detail=detail)]


def segments_of(video: Video, captions: Sequence[Caption], per_segment: int) -> list[tuple[Segment, list[Caption]]]:
    """Every run of `per_segment` captions (in time order) that leaves something of the video out, with its segment."""
    segments: list[tuple[Segment, list[Caption]]] = []
    if per_segment >= len(captions):
        return segments
    for first in range(len(captions) - per_segment + 1):
        run = list(captions[first : first + per_segment])
        segment = Segment(
            video_id=video.id, start_s=run[0].start_s, end_s=min(max(c.end_s for c in run), video.duration_s)
        )
        if video.duration_s - (segment.end_s - segment.start_s) >= 1 / video.fps:  # a caption may span the whole video
            segments.append((segment, run))
    return segments


def _localized(video: Video, captions: list[Caption], per_segment: int) -> list[list[Query]]:
    """The questions of each segment."""
    texts = [caption.text for caption in captions]
    return [
        [
            _query(video, Granularity.LOCALIZED, segment, question)
            for question in localized_questions([caption.text for caption in run], texts)
        ]
        for segment, run in segments_of(video, captions, per_segment)
    ]


def _comprehensive(video: Video, captions: list[Caption]) -> list[list[Query]]:
    questions = comprehensive_questions([caption.text for caption in captions])
    by_type: dict[str, list[Query]] = {}
    for question in questions:
        query = _query(video, Granularity.COMPREHENSIVE, None, question)
        by_type.setdefault(question.question_type, []).append(query)
    return list(by_type.values())


def _query(video: Video, granularity: Granularity, segment: Segment | None, asked: RuleQuestion) -> Query:
    where = segment.model_dump() if segment else None
    return Query(
        id=content_id(video.id, granularity, where, asked.question),
        video_id=video.id,
        granularity=granularity,
        question_type=QuestionType(asked.question_type),
        segment=segment,
        question=asked.question,
        reference_answer=asked.answer,
        asker=ASKER,
    )


def _draw(rng: np.random.Generator, groups: list[list[Query]], count: int) -> list[Query]:
    """Take `count` queries, one from each group in turn; no question twice, whatever segment it came from."""
    in_turn = [groups[g] for g in rng.permutation(len(groups))]
    shuffled = [[group[i] for i in rng.permutation(len(group))] for group in in_turn]
    drawn: dict[str, Query] = {}
    while len(drawn) < count and any(shuffled):
        for group in shuffled:
            if group and len(drawn) < count:
                query = group.pop()
                drawn.setdefault(query.question, query)
    return list(drawn.values())
