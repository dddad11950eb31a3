"""answer: the policy model answers every query twice, once with the evidence in view and once without it.

| granularity   | preferred answer sees         | dis-preferred answer sees (paper)        |
|---------------|-------------------------------|------------------------------------------|
| localized     | the segment alone, zoomed in  | the video with the segment cut out       |
| comprehensive | the full view                 | a sparse random subset of it             |

(arXiv 2501.13919, figure 1.) What the dis-preferred answer sees is a parameter: `answer.dispreferred` names views of
`tpo.video.sample`, and one of them is drawn for each query.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from tpo.models.video_lmm import Generated, VideoLMM
from tpo.params import AnswerParams
from tpo.records import Answer, Branch, Query, Reason, Rejection, Video, View, content_id
from tpo.replies import ReplyCache
from tpo.video.decode import DecodeError, Frames, VideoFolder
from tpo.video.sample import degraded, dense, segment

STAGE = "answer"


class _Ask(NamedTuple):
    """One query under one view; `key` is the content id of everything that the answers depend on."""

    query: Query
    branch: Branch
    view: View
    key: str


@dataclass(frozen=True)
class Policy:
    """The model that answers, and what it has said before.

    `code` stands for the code that prepares frames and runs the model: what was said under another does not count.
    """

    model: VideoLMM
    said: ReplyCache
    code: str

    def ask(self, query: Query, branch: Branch, view: View, decoding: str) -> _Ask:
        shown = view.model_dump(mode="json")
        return _Ask(query, branch, view, content_id(STAGE, self.model.id, self.code, shown, query.question, decoding))

    def remembered(self, asked: Sequence[_Ask]) -> dict[str, list[Generated]]:
        """By key, the answers that were given before."""
        found = {ask.key: self.said.get(ask.key) for ask in asked}
        return {key: [Generated(**one) for one in json.loads(text)] for key, text in found.items() if text is not None}

    def remember(self, said: dict[str, list[Generated]]) -> None:
        for key, answers in said.items():
            self.said.put(key, json.dumps([asdict(one) for one in answers]))


def views_of(
    query: Query, video: Video, others: Sequence[Video], params: AnswerParams, seed: int
) -> dict[Branch, View]:
    """What each branch is shown. Raises ValueError when there is no such view, as of a segment that is the whole."""
    full = dense(video, params.full_frames)
    choices = params.dispreferred[query.granularity]
    drawn = choices[int(content_id(seed, query.id), 16) % len(choices)]
    return {
        Branch.PREFERRED: full if query.segment is None else segment(video, query.segment, params.segment_frames),
        Branch.DISPREFERRED: degraded(drawn.view, full, video, query.segment, others, drawn.strength, seed),
    }


def answer_video(
    policy: Policy,
    video: Video,
    others: Sequence[Video],
    folder: VideoFolder,
    queries: Sequence[Query],
    params: AnswerParams,
    seed: int,
) -> tuple[list[Answer], list[Rejection]]:
    """`params.samples` answers to each query under both views. A query whose views cannot be had is a `Rejection`.

    The video is decoded once, and runs through the model once for all queries with a view in common. What the policy
    said before to the same question about the same view is not asked again.

    Args:
        others: videos whose frames may be inserted as distractors.
    """
    decoding = _decoding(params, seed)
    asked: list[_Ask] = []
    failed: dict[str, Rejection] = {}
    for query in queries:
        try:
            views = views_of(query, video, others, params, seed)
            asked += [policy.ask(query, branch, view, decoding) for branch, view in views.items()]
        except ValueError as error:
            failed[query.id] = _rejection(query, Reason.NO_VIEW, str(error))
    said = policy.remembered(asked)
    new, undecoded = _ask_model(policy.model, video, folder, [a for a in asked if a.key not in said], params, seed)
    policy.remember(new)
    said |= new
    for ask in asked:
        if ask.view in undecoded:
            failed[ask.query.id] = _rejection(ask.query, Reason.DECODE_FAILED, undecoded[ask.view])
    answers = [
        _answer(ask, sample, one, policy.model.id, decoding)
        for ask in asked
        if ask.query.id not in failed
        for sample, one in enumerate(said[ask.key])
    ]
    return answers, [failed[query.id] for query in queries if query.id in failed]


def _ask_model(
    model: VideoLMM, video: Video, folder: VideoFolder, asked: Sequence[_Ask], params: AnswerParams, seed: int
) -> tuple[dict[str, list[Generated]], dict[View, str]]:
    """Answers by key, and of the views whose frames cannot be had why not."""
    by_view: dict[View, dict[str, str]] = {}
    for ask in asked:
        by_view.setdefault(ask.view, {})[ask.query.question] = ask.key
    with contextlib.suppress(DecodeError):  # each view that needs these frames meets it again
        folder.prepare(video.path, list(by_view))
    keys: list[str] = []
    undecoded: dict[View, str] = {}

    def views_in_turn() -> Iterator[tuple[Frames, list[str]]]:
        """Frames are read when the model comes to them: those of a single 1080p view take 200 MB."""
        for view, questions in by_view.items():
            try:
                frames = folder.frames(video.path, view)
            except DecodeError as error:
                undecoded[view] = str(error)
                continue
            keys.extend(questions.values())
            yield frames, [question for question in questions for _ in range(params.samples)]

    found = model.generate_many(
        views_in_turn(), params.max_new_tokens, params.batch_size, temperature=params.temperature, seed=seed
    )
    texts = [text for of_view in found for text in of_view]
    groups = [texts[first : first + params.samples] for first in range(0, len(texts), params.samples)]
    return dict(zip(keys, groups, strict=True)), undecoded


def _decoding(params: AnswerParams, seed: int) -> str:
    how = f"{params.samples} at temperature {params.temperature:g}, seed {seed}" if params.temperature else "greedy"
    return f"{how}, at most {params.max_new_tokens} tokens"


def _rejection(query: Query, reason: Reason, detail: str) -> Rejection:
    return Rejection(stage=STAGE, item=query.id, reason=reason, detail=detail)


def _answer(ask: _Ask, sample: int, said: Generated, model_id: str, decoding: str) -> Answer:
    return Answer(
        id=content_id(ask.query.id, ask.branch, ask.view.model_dump(mode="json"), model_id, decoding, sample),
        query_id=ask.query.id,
        branch=ask.branch,
        view=ask.view,
        sample=sample,
        text=said.text,
        num_tokens=said.num_tokens,
        ended=said.ended,
        model_id=model_id,
        decoding=decoding,
    )
