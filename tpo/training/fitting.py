"""Which pairs can be trained on: their videos are there and the same, and what is shown fits into the decoder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tpo.errors import UserError
from tpo.models.video_lmm import VideoLMM
from tpo.params import TrainParams
from tpo.progress import waiting
from tpo.records import PreferencePair, Reason, Rejection, Video, View
from tpo.video.decode import DecodeError, VideoFolder

STAGE = "train"


@dataclass(frozen=True)
class Fitted:
    """Pairs that can be trained on, why others cannot, and how many are shown fewer frames than they were made for."""

    pairs: list[PreferencePair]
    set_aside: list[Rejection]
    num_shortened: int


@waiting("sorting out pairs")
def fit_pairs(
    pairs: Sequence[PreferencePair],
    videos: Mapping[str, Video],
    folder: VideoFolder,
    model: VideoLMM,
    params: TrainParams,
) -> Fitted:
    """Sort out pairs before anything is decoded. A pair is never replaced by another, and never cut."""
    usable: list[PreferencePair] = []
    set_aside: list[Rejection] = []
    lost = {video_id: why for video_id in {pair.video_id for pair in pairs} if (why := _lost(video_id, videos, folder))}
    for pair in pairs:
        if pair.video_id in lost:
            reason, detail = lost[pair.video_id]
            set_aside.append(Rejection(stage=STAGE, item=pair.id, reason=reason, detail=detail))
        else:
            usable.append(pair)
    most = min(params.max_tokens or model.max_tokens, model.max_tokens)
    by_view: dict[View, list[PreferencePair]] = {}
    for pair in usable:
        by_view.setdefault(pair.view, []).append(pair)
    fitting = {view: _fit(view, videos[view.video_id], some, most, model, params) for view, some in by_view.items()}
    fitted, num_shortened = [], 0
    for pair in usable:
        shown = fitting[pair.view]
        if isinstance(shown, str):
            set_aside.append(Rejection(stage=STAGE, item=pair.id, reason=Reason.TOO_LONG, detail=shown))
        else:
            num_shortened += shown != pair.view
            fitted.append(pair if shown == pair.view else pair.model_copy(update={"view": shown}))
    return Fitted(fitted, set_aside, num_shortened)


def count_tokens(model: VideoLMM, video: Video, view: View, pairs: Sequence[PreferencePair]) -> int:
    """Of the longest of the pairs' questions with the longest of their answers, without decoding anything."""
    height, width = (video.width, video.height) if video.rotation_deg % 180 else (video.height, video.width)
    shown = model.family.lay_out(height, width, view.timestamps_s, video.duration_s)
    question = max((pair.question for pair in pairs), key=lambda text: len(model.answer_ids(text)))
    answers = [len(model.answer_ids(text)) for pair in pairs for text in (pair.chosen, pair.rejected)]
    return len(model.prompt(shown, question)) + max(answers)


def _fit(
    view: View, video: Video, pairs: Sequence[PreferencePair], most: int, model: VideoLMM, params: TrainParams
) -> View | str:
    """The view, one with fewer of its moments, or what is wrong."""
    moments_s, tokens = view.timestamps_s, count_tokens(model, video, view, pairs)
    if tokens <= most:
        return view
    said = f"{len(moments_s)} frames and text make {tokens} tokens, and {most} are allowed"
    if params.too_long == "set_aside":
        return said
    for count in range(len(moments_s) * most // tokens, 0, -1):
        middles = [(2 * place + 1) * len(moments_s) // (2 * count) for place in range(count)]
        fewer = view.model_copy(update={"timestamps_s": tuple(moments_s[middle] for middle in middles)})
        if count_tokens(model, video, fewer, pairs) <= most:
            return fewer
    return f"{said}; not even one frame fits"


def _lost(video_id: str, videos: Mapping[str, Video], folder: VideoFolder) -> tuple[Reason, str] | None:
    video = videos.get(video_id)
    if video is None:
        return Reason.VIDEO_MISSING, f"no video {video_id} in the catalog"
    if not (folder.root / video.path).is_file():
        return Reason.VIDEO_MISSING, f"{video.path} is not there any more"
    try:
        folder.check(video.path, video_id)
    except DecodeError as error:
        return Reason.VIDEO_CHANGED, str(error)
    return None


@contextmanager
def lost_later_named(pairs: str) -> Iterator[None]:
    """Raises UserError where a video cannot be decoded meanwhile that was there and the same when pairs were sorted.

    Leaving its pairs out then would change what every later step is made of, and in one of several processes alone.
    """
    try:
        yield
    except DecodeError as error:
        raise UserError(
            f"The video of {pairs} can no longer be decoded: {error}. Put it back and run again: training goes on from "
            "its last checkpoint. If it is gone or another, `dvc repro` ingests again."
        ) from error
