"""answer: the policy model answers every query twice, once with the evidence in view and once without it.

| granularity   | preferred answer sees            | dis-preferred answer sees           |
|---------------|----------------------------------|-------------------------------------|
| localized     | the segment alone, zoomed in     | the video with the segment cut out  |
| comprehensive | the full view                    | a sparse random subset of it        |

(arXiv 2501.13919, figure 1.)
"""

import contextlib
import math
from collections.abc import Sequence

from tpo.models import VideoLMM
from tpo.params import AnswerParams
from tpo.records import Answer, Branch, Query, Reason, Rejection, Video, View, content_id
from tpo.video.decode import DecodeError, Frames, VideoFolder
from tpo.video.sample import dense, segment, sparse, without_segment

STAGE = "answer"


def views_of(query: Query, video: Video, params: AnswerParams, seed: int) -> dict[Branch, View]:
    """What each branch is shown. Raises ValueError when nothing of the video is left without the segment."""
    full = dense(video, params.full_frames)
    if query.segment is None:
        return {Branch.PREFERRED: full, Branch.DISPREFERRED: sparse(full, params.sparse_keep, seed)}
    return {
        Branch.PREFERRED: segment(video, query.segment, params.segment_frames),
        Branch.DISPREFERRED: without_segment(video, query.segment, params.full_frames),
    }


def answer_video(
    model: VideoLMM, video: Video, folder: VideoFolder, queries: Sequence[Query], params: AnswerParams, seed: int
) -> tuple[list[Answer], list[Rejection]]:
    """Both answers to each query, greedy. A query whose frames cannot be had is a `Rejection`."""
    # Queries that share their views come one after the other; only one batch's frames are held, since those of a
    # single 1080p view take 200 MB.
    ordered = sorted(queries, key=lambda query: query.segment.start_s if query.segment else math.inf)
    per_batch = max(1, params.batch_size // len(Branch))
    with contextlib.suppress(DecodeError, ValueError):  # each query that needs these frames meets it again
        shown = [view for query in ordered for view in views_of(query, video, params, seed).values()]
        folder.prepare(video.path, shown)
    answers: list[Answer] = []
    rejections: list[Rejection] = []
    for first in range(0, len(ordered), per_batch):
        done, failed = _answer_batch(model, video, folder, ordered[first : first + per_batch], params, seed)
        answers += done
        rejections += failed
    return answers, rejections


def _answer_batch(
    model: VideoLMM, video: Video, folder: VideoFolder, queries: Sequence[Query], params: AnswerParams, seed: int
) -> tuple[list[Answer], list[Rejection]]:
    frames: dict[View, Frames] = {}
    shown: list[tuple[Query, Branch, View]] = []
    rejections: list[Rejection] = []
    for query in queries:
        try:
            views = views_of(query, video, params, seed)
            for view in views.values():
                if view not in frames:
                    frames[view] = folder.frames(video.path, view)
        except (DecodeError, ValueError) as error:
            rejections.append(Rejection(stage=STAGE, item=query.id, reason=Reason.DECODE_FAILED, detail=str(error)))
            continue
        shown += [(query, branch, view) for branch, view in views.items()]
    asked = [(frames[view], query.question) for query, _, view in shown]
    texts = model.answers(asked, params.max_new_tokens, params.batch_size)
    decoding = f"greedy, at most {params.max_new_tokens} tokens"
    answers = [
        Answer(
            id=content_id(query.id, branch, view.model_dump(mode="json"), model.id, decoding),
            query_id=query.id,
            branch=branch,
            view=view,
            text=text,
            model_id=model.id,
            decoding=decoding,
        )
        for (query, branch, view), text in zip(shown, texts, strict=True)
    ]
    return answers, rejections
