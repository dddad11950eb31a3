"""evaluate: ask a model all questions of one video. The flow maps these functions over videos and models.

groups = group_by_video(items)
video = check_video(root, groups[0], prober)
folder = VideoFolder(root, prober.index_dir)
predictions = evaluate_video(model, "base", folder, groups[0], video, num_frames=32, style="official")
"""

from collections.abc import Sequence
from pathlib import Path

from tpo.evaluation.benchmarks.rows import STAGE
from tpo.evaluation.prompts import candidates, render
from tpo.evaluation.scoring import predict, predict_failure
from tpo.models import VideoLMM
from tpo.params import PromptStyle
from tpo.records import Item, Prediction, PredictionStatus, Reason, Rejection, Role, Video
from tpo.video.decode import DecodeError, VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense


def group_by_video(items: Sequence[Item]) -> list[list[Item]]:
    """The items of each video together, videos in the order of their first item."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.benchmark, item.video), []).append(item)
    return list(groups.values())


def check_video(root: Path, items: Sequence[Item], prober: Prober) -> Video | Rejection:
    """Measure the video that `items` ask about, in a child process. `root` is the folder of all benchmarks."""
    folder = root / items[0].benchmark
    path = folder / items[0].video
    if not path.exists():
        detail = "there is no such file"
        return Rejection(stage=STAGE, item=items[0].video, reason=Reason.VIDEO_MISSING, detail=detail)
    return prober.probe(folder, path)


def evaluate_video(
    model: VideoLMM,
    role: Role,
    folder: VideoFolder,
    items: Sequence[Item],
    video: Video | Rejection,
    num_frames: int,
    style: PromptStyle,
) -> list[Prediction]:
    """One prediction per item: the video is decoded once and its frames are encoded once for all its questions.

    Without a readable video the predictions say so and count as wrong.
    """
    if isinstance(video, Rejection):
        missing = video.reason is Reason.VIDEO_MISSING
        status = PredictionStatus.VIDEO_MISSING if missing else PredictionStatus.VIDEO_BROKEN
        return [predict_failure(item, role, status, f"{video.reason}: {video.detail}") for item in items]
    try:
        frames = folder.frames(f"{items[0].benchmark}/{items[0].video}", dense(video, num_frames))
    except DecodeError as error:
        return [predict_failure(item, role, PredictionStatus.VIDEO_BROKEN, str(error)) for item in items]
    scores = model.option_logprobs(
        frames, [render(item, style) for item in items], [candidates(item, style) for item in items]
    )
    return [predict(item, role, logprobs) for item, logprobs in zip(items, scores, strict=True)]
