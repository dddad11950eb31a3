"""answer: the policy model answers every query twice, once with the evidence in view and once without it.

| granularity   | preferred answer sees            | dis-preferred answer sees           |
|---------------|----------------------------------|-------------------------------------|
| localized     | the segment alone, zoomed in     | the video with the segment cut out  |
| comprehensive | the full view                    | a sparse random subset of it        |

(arXiv 2501.13919, figure 1.)
"""

import contextlib
from collections.abc import Iterator, Sequence

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
    """Both answers to each query, greedy. A query whose frames cannot be had is a `Rejection`.

    The video runs through the model once for all queries with a view in common.
    """
    shown: dict[View, list[tuple[Query, Branch]]] = {}
    failed: dict[str, str] = {}
    for query in queries:
        try:
            for branch, view in views_of(query, video, params, seed).items():
                shown.setdefault(view, []).append((query, branch))
        except ValueError as error:
            failed[query.id] = str(error)
    with contextlib.suppress(DecodeError):  # each view that needs these frames meets it again
        folder.prepare(video.path, list(shown))
    answered: list[tuple[View, list[tuple[Query, Branch]]]] = []

    def views_in_turn() -> Iterator[tuple[Frames, list[str]]]:
        """Frames are read when the model comes to them: those of a single 1080p view take 200 MB."""
        for view, asked in shown.items():
            try:
                frames = folder.frames(video.path, view)
            except DecodeError as error:
                failed.update({query.id: str(error) for query, _ in asked})
                continue
            answered.append((view, asked))
            yield frames, [query.question for query, _ in asked]

    texts = model.generate_many(views_in_turn(), params.max_new_tokens, params.batch_size)
    answers = {
        (query.id, branch): _answer(query, branch, view, text, model, params)
        for (view, asked), said in zip(answered, texts, strict=True)
        for (query, branch), text in zip(asked, said, strict=True)
    }
    rejections = [
        Rejection(stage=STAGE, item=query.id, reason=Reason.DECODE_FAILED, detail=failed[query.id])
        for query in queries
        if query.id in failed
    ]
    return [answers[query.id, branch] for query in queries if query.id not in failed for branch in Branch], rejections


def _answer(query: Query, branch: Branch, view: View, text: str, model: VideoLMM, params: AnswerParams) -> Answer:
    decoding = f"greedy, at most {params.max_new_tokens} tokens"
    return Answer(
        id=content_id(query.id, branch, view.model_dump(mode="json"), model.id, decoding),
        query_id=query.id,
        branch=branch,
        view=view,
        text=text,
        model_id=model.id,
        decoding=decoding,
    )
