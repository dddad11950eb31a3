"""Before any model is loaded: is every video there, and is enough of each benchmark left to measure on?"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tpo.errors import UserError
from tpo.evaluation.benchmarks.defects import UNASKABLE
from tpo.evaluation.benchmarks.rows import STAGE
from tpo.evaluation.benchmarks.subtitles import SubtitleError, read_subtitles, under_frames
from tpo.evaluation.scoring import predict_failure
from tpo.params import EvaluateParams
from tpo.records import Item, Method, Prediction, PredictionStatus, Reason, Rejection, Role, Task, Video
from tpo.video.probe import Prober
from tpo.video.sample import dense


def group_by_video(items: Sequence[Item]) -> list[list[Item]]:
    """The items of each video together, videos in the order of their first item."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.benchmark, item.video), []).append(item)
    return list(groups.values())


def video_path(items: Sequence[Item]) -> str:
    """Where the video of one group of items lies, relative to the folder of all benchmarks."""
    return f"{items[0].benchmark}/{items[0].video}"


def check_video(root: Path, items: Sequence[Item], prober: Prober) -> Video | Rejection:
    """Measure the video that `items` ask about, in a child process. `root` is the folder of all benchmarks."""
    path = root / video_path(items)
    if not path.exists():
        detail = "there is no such file"
        return Rejection(stage=STAGE, item=video_path(items), reason=Reason.VIDEO_MISSING, detail=detail)
    found = prober.probe(root / items[0].benchmark, path)  # which may itself be a link to another disk
    if isinstance(found, Rejection):
        return found.model_copy(update={"stage": STAGE, "item": video_path(items)})
    return found


def file_state(root: Path, items: Sequence[Item]) -> str:
    """Stands for the video of `items` as it lies there now: once it is downloaded or repaired, it is another one."""
    try:
        found = (root / video_path(items)).stat()
    except OSError:
        return f"{video_path(items)}, not there"
    return f"{video_path(items)}, {found.st_size} bytes of {found.st_mtime_ns}"


def without_video(items: Sequence[Item], role: Role, rejection: Rejection, params: EvaluateParams) -> list[Prediction]:
    """Of items whose video is missing or broken: wrong, in every way in which they would have been asked."""
    missing = rejection.reason is Reason.VIDEO_MISSING
    status = PredictionStatus.VIDEO_MISSING if missing else PredictionStatus.VIDEO_BROKEN
    detail = f"{rejection.reason}: {rejection.detail}"
    methods = [Method.LOGPROB] if params.max_new_tokens is None else [Method.LOGPROB, Method.GENERATION]
    return [
        predict_failure(item, role, status, detail, method=method)
        for item in items
        for method in methods
        if item.task is Task.CHOICE or method is Method.GENERATION
    ]


def unanswered(
    groups: Iterable[Sequence[Item]], role: Role, unusable: Mapping[str, Rejection], params: EvaluateParams
) -> list[Prediction]:
    """`without_video` of all videos that cannot be used, given by `video_path`."""
    return [
        prediction
        for group in groups
        if (rejection := unusable.get(video_path(group)))
        for prediction in without_video(group, role, rejection, params)
    ]


def read_lines(
    items: Sequence[Item], root: Path, video: Video, num_frames: int
) -> tuple[dict[str, list[str]], list[Rejection]]:
    """By item id, what is said under the frames of the full view; and whose subtitles are there but of no use.

    An item without subtitles is asked without them, as the benchmarks' own code does.
    """
    moments_s = dense(video, num_frames).timestamps_s
    lines: dict[str, list[str]] = {}
    flagged = []
    for item in items:
        if item.subtitles is not None:
            try:
                path = root / item.benchmark / item.subtitles
                lines[item.id] = under_frames(read_subtitles(path, item.subtitles_start_s, video.duration_s), moments_s)
            except SubtitleError as error:
                reason = Reason.SUBTITLES_UNUSABLE
                flagged.append(Rejection(stage=STAGE, item=item.id, reason=reason, detail=str(error)))
    return lines, flagged


def describe_left_out(left_out: Sequence[Rejection]) -> list[str]:
    """What settings leave out, a line for each benchmark and reason."""
    counts = Counter((one.item.split("/")[0], one.detail) for one in left_out)
    return [f"{benchmark}: {count} questions are not asked: {why}" for (benchmark, why), count in counts.items()]


def describe_silent(flagged: Sequence[Rejection]) -> list[str]:
    """Whose subtitles are there but of no use (`read_lines`), a line for each benchmark."""
    by_benchmark: dict[str, list[Rejection]] = {}
    for one in flagged:
        by_benchmark.setdefault(one.item.split("/")[0], []).append(one)
    return [
        f"{benchmark}: {len(own)} questions are asked without their subtitles, and the gate refuses what is "
        f"incomplete. The first: {own[0].item}: {own[0].detail}"
        for benchmark, own in by_benchmark.items()
    ]


def num_lost(bad_rows: Sequence[Rejection]) -> int:
    """Rows that could be asked if the files were as published."""
    return sum(row.item not in UNASKABLE for row in bad_rows)


def check_complete(
    items: Sequence[Item], unusable: Mapping[str, Rejection], bad_rows: Sequence[Rejection], max_share: float
) -> list[str]:
    """What cannot be asked, a line for each benchmark that lacks something.

    Args:
        items: all questions of the benchmarks, also those that settings leave out.
        unusable: by `video_path`, why a video that is asked about cannot be used.
        bad_rows: rows that no question could be made of, named "<benchmark>/<file>:<row>".

    Raises:
        UserError: it is a larger share of a benchmark than `max_share`.
    """
    planned = Counter(item.benchmark for item in items)
    rows = Counter(row.item.split("/")[0] for row in bad_rows)
    without = Counter(item.benchmark for item in items if video_path([item]) in unusable)
    lines = []
    for benchmark in sorted({*rows, *without}):
        total, lost = planned[benchmark] + rows[benchmark], rows[benchmark] + without[benchmark]
        videos = Counter(one.reason.value for path, one in unusable.items() if path.startswith(f"{benchmark}/"))
        told = ", ".join(f"{count} videos {reason}" for reason, count in sorted(videos.items()))
        line = f"{benchmark}: {lost} of {total} questions cannot be asked: {rows[benchmark]} bad rows"
        lines.append(f"{line}, {told}" if told else line)
        if lost > max_share * total:
            complaints = [one for one in (*bad_rows, *unusable.values()) if one.item.startswith(f"{benchmark}/")]
            raise UserError(
                f"{lines[-1]}. That is more than evaluate.max_unusable_share ({max_share:g}) allows. The first: "
                f"{complaints[0].item}: {complaints[0].detail}. Is the download complete?"
            )
    return lines
