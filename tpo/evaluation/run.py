"""evaluate: ask a model everything that is planned about each video (`tpo.evaluation.asking`).

    for job, predictions in examine(Examinee("base", model, cache, code), folder, jobs, params): ...

What a model said is kept by everything that it depends on, and is on disk before the next view is run: a killed run
goes on where it was, and a model that was measured before is not asked again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from tpo.errors import TooLongError, UserError
from tpo.evaluation.asking import Ask, Job
from tpo.evaluation.benchmarks.rows import STAGE
from tpo.evaluation.grounding import predict_span
from tpo.evaluation.scoring import predict, predict_failure, predict_from_text, prediction
from tpo.models.video_lmm import Generated, VideoLMM
from tpo.params import EvaluateParams
from tpo.records import Method, Prediction, PredictionStatus, Role, Task, Video, View, content_id
from tpo.replies import ReplyCache
from tpo.video.ahead import decoded_ahead
from tpo.video.decode import DecodeError, Frames, VideoFolder


@dataclass(frozen=True)
class Examinee:
    """A model that is asked, and what it has said before.

    `code` stands for the code that prepares frames and runs the model: what was said under another does not count.
    """

    role: Role
    model: VideoLMM
    said: ReplyCache
    code: str

    def key(self, ask: Ask, params: EvaluateParams) -> str:
        """Content id of everything that the answer depends on."""
        view = None if ask.view is None else ask.view.model_dump(mode="json")
        longest = None if ask.candidates else params.max_new_tokens
        return content_id(STAGE, self.model.id, self.code, view, ask.prompt.model_dump(), ask.candidates, longest)


def examine(
    examinee: Examinee, folder: VideoFolder, jobs: Sequence[Job], params: EvaluateParams
) -> Iterator[tuple[Job, list[Prediction]]]:
    """Ask a model about videos, one after the other: each view is decoded ahead of its turn and run once.

    Every ask has one prediction. One that was answered before is not asked again, and its view is not decoded.

    Raises:
        UserError: the model's template or tokenizer cannot show a video, or memory runs out.
    """
    todo = [(job, _not_yet_said(examinee, job, params)) for job in jobs]
    wanted = [(job.path, view) for job, by_view in todo for view in by_view if view is not None]
    decoded = decoded_ahead(folder, wanted)
    for job, by_view in todo:
        failed: dict[str, tuple[PredictionStatus, str]] = {}
        for view, asks in by_view.items():
            frames = None if view is None else next(decoded)
            if isinstance(frames, DecodeError):
                broken = (PredictionStatus.VIDEO_BROKEN, str(frames))
                failed |= {examinee.key(ask, params): broken for ask in asks}
            else:
                for alike in _by_instructions(asks):
                    failed |= _ask(examinee, frames, alike, params)
        found = [_prediction(examinee, ask, job.video, params, failed) for ask in job.asks]
        yield job, [one.model_copy(update={"video_id": job.video.id}) for one in found]


def _not_yet_said(examinee: Examinee, job: Job, params: EvaluateParams) -> dict[View | None, list[Ask]]:
    """By view. What is to be said twice, such as of options not moved on, is asked once."""
    todo = {key: ask for ask in job.asks if examinee.said.get(key := examinee.key(ask, params)) is None}
    by_view: dict[View | None, list[Ask]] = {}
    for ask in todo.values():
        by_view.setdefault(ask.view, []).append(ask)
    return by_view


def _by_instructions(asks: Sequence[Ask]) -> list[list[Ask]]:
    """Instructions stand before the video: only what has the same ones can share it."""
    groups: dict[str, list[Ask]] = {}
    for ask in asks:
        groups.setdefault(ask.prompt.system, []).append(ask)
    return list(groups.values())


def _ask(
    examinee: Examinee, frames: Frames | None, asks: Sequence[Ask], params: EvaluateParams
) -> dict[str, tuple[PredictionStatus, str]]:
    """Ask about one view and keep what is said; of what could not be asked, by key, why not."""
    scored = [ask for ask in asks if ask.candidates]
    written = [ask for ask in asks if not ask.candidates]
    try:
        scores, texts = examinee.model.examine(
            frames,
            [ask.prompt for ask in scored],
            [ask.candidates for ask in scored],
            [ask.prompt for ask in written],
            params.max_new_tokens or 0,
            params.batch_size,
            whole=params.prompts == "question",  # of a letter it is open what follows
        )
    except TooLongError as error:
        if len(asks) == 1:
            return {examinee.key(asks[0], params): (PredictionStatus.TOO_LONG, str(error))}
        alone = [_ask(examinee, frames, [ask], params) for ask in asks]
        return {key: why for failed in alone for key, why in failed.items()}
    except torch.OutOfMemoryError as error:
        num_frames = 0 if frames is None else len(frames.pixels)
        raise UserError(
            f"Out of memory with {num_frames} frames and {params.batch_size} answers at a time: "
            f"{str(error).splitlines()[0]} Lower evaluate.batch_size, or show all models fewer frames "
            "(evaluate.num_frames, evaluate.needle.num_frames), which is another measurement. What was asked so far is "
            "kept."
        ) from error
    said = [json.dumps(one) for one in scores] + [json.dumps(asdict(one)) for one in texts]
    keys = [examinee.key(ask, params) for ask in scored + written]
    examinee.said.put_all(dict(zip(keys, said, strict=True)))
    return {}


def _prediction(
    examinee: Examinee,
    ask: Ask,
    video: Video,
    params: EvaluateParams,
    failed: dict[str, tuple[PredictionStatus, str]],
) -> Prediction:
    item, role, key = ask.item, examinee.role, examinee.key(ask, params)
    if key in failed:
        status, detail = failed[key]
        return predict_failure(item, role, status, detail, ask.condition, ask.method, ask.rotation)
    kept = examinee.said.get(key)
    assert kept is not None
    said = json.loads(kept)
    if ask.method is Method.LOGPROB:
        count = len(item.options)
        in_order = [said[(place + ask.rotation) % count] for place in range(count)]
        return predict(item, role, in_order, ask.condition, ask.rotation)
    text = Generated(**said).text
    match item.task:
        case Task.CHOICE:
            return predict_from_text(item, role, text, ask.condition)
        case Task.SPAN:
            return predict_span(item, role, text, video.duration_s)
        case Task.OPEN:
            not_yet = {"status": PredictionStatus.NOT_JUDGED, "detail": "it was not shown to a judge"}
            return prediction(item, role, method=ask.method, text=text, score=0, correct=False, **not_yet)
