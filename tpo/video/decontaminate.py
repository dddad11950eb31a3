"""Videos of a benchmark must not be trained on. Which are, and what was checked against what.

    report = check_videos(videos, group_by_benchmark(probed, items), fingerprints, limits)

The report is evidence for a later promotion, so it never says more than was checked: no benchmark means "not checked",
and a benchmark video that cannot be read, or a video that shows too little to be recognised, is named.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from tpo.params import CopyParams
from tpo.records import Checked, Item, Reason, Rejection, Video
from tpo.video.copies import find_copies, is_recognisable
from tpo.video.fingerprint import Fingerprint
from tpo.video.probe import STAGE

_MAX_NAMED = 3  # videos in a rejection, and items of each; the report has all of them


class BenchmarkCheck(BaseModel, extra="forbid"):
    """One benchmark: how many of its videos were compared, and which could not be: unusable, or too short or static."""

    name: str
    status: Checked
    videos: int
    unusable: list[Rejection]
    not_comparable: list[str]


class Contamination(BaseModel, extra="forbid"):
    """A training video that shows what a benchmark video shows."""

    video: str
    benchmark: str
    benchmark_video: str
    items: list[str]
    same_bytes: bool
    overlap_s: float
    offset_s: float


class VideoReport(BaseModel, extra="forbid"):
    """`data/catalog/decontamination.json`. `found` were set aside, unless `score_only`."""

    status: Checked
    videos: int
    not_comparable: list[str]
    benchmarks: list[BenchmarkCheck]
    found: list[Contamination]
    limits: CopyParams
    note: str


class BenchmarkVideos(BaseModel, extra="forbid"):
    """What is known of the files of one benchmark: paths are relative to its folder; `items` are its questions' ids."""

    name: str
    videos: list[Video]
    unusable: list[Rejection]
    items: dict[str, list[str]]


def group_by_benchmark(probed: Sequence[Video | Rejection], items: Sequence[Item]) -> list[BenchmarkVideos]:
    """What was found in the folder of all benchmarks, by its subfolders, with what their questions are about.

    Args:
        probed: every video file, named relative to the folder of all benchmarks.
        items: of all benchmarks. A video that is asked about and is not there is unusable.
    """
    asked: dict[str, dict[str, list[str]]] = {}
    for item in items:
        asked.setdefault(item.benchmark, {}).setdefault(item.video, []).append(item.id)
    by_name: dict[str, dict[str, Video | Rejection]] = {name: {} for name in asked}
    for record in probed:
        name, _, path = (record.path if isinstance(record, Video) else record.item).partition("/")
        renamed = {"path": path} if isinstance(record, Video) else {"item": path}
        by_name.setdefault(name, {})[path] = record.model_copy(update=renamed)
    groups = []
    for name, found in sorted(by_name.items()):
        missing = [
            Rejection(stage=STAGE, item=path, reason=Reason.VIDEO_MISSING, detail="there is no such file")
            for path in asked.get(name, {})
            if path not in found
        ]
        groups.append(
            BenchmarkVideos(
                name=name,
                videos=[record for record in found.values() if isinstance(record, Video)],
                unusable=[*(record for record in found.values() if isinstance(record, Rejection)), *missing],
                items=asked.get(name, {}),
            )
        )
    return groups


def check_videos(
    videos: Sequence[Video],
    benchmarks: Sequence[BenchmarkVideos],
    fingerprints: Mapping[str, Fingerprint],
    params: CopyParams,
    note: str = "",
) -> VideoReport:
    """Compare every video with every video of the benchmarks, by bytes and by what they show.

    Args:
        fingerprints: of the videos and of the benchmarks' videos, by video id.
        note: what else whoever reads the report should know.
    """
    shown = {video.id: fingerprints[video.id] for video in videos}
    found = [same for one in benchmarks for same in _compare(videos, shown, one, fingerprints, params)]
    checks = [_check_of(one, fingerprints, params) for one in benchmarks]
    not_comparable = _not_comparable(videos, shown, params)
    return VideoReport(
        status=_overall(checks, not_comparable),
        videos=len(videos),
        not_comparable=not_comparable,
        benchmarks=checks,
        found=found,
        limits=params,
        note=note,
    )


def _compare(
    videos: Sequence[Video],
    shown: Mapping[str, Fingerprint],
    benchmark: BenchmarkVideos,
    fingerprints: Mapping[str, Fingerprint],
    params: CopyParams,
) -> list[Contamination]:
    by_id = {video.id: video for video in videos}
    theirs = {video.id: video for video in benchmark.videos}
    references = {id_: fingerprints[id_] for id_ in theirs}
    copies = find_copies(shown, references, params)
    found = {(copy.video, copy.of): (False, copy.overlap_s, copy.offset_s) for copy in copies}
    found |= {(id_, id_): (True, by_id[id_].duration_s, 0.0) for id_ in by_id if id_ in theirs}
    return [
        Contamination(
            video=by_id[video].path,
            benchmark=benchmark.name,
            benchmark_video=theirs[of].path,
            items=benchmark.items.get(theirs[of].path, []),
            same_bytes=same_bytes,
            overlap_s=overlap_s,
            offset_s=offset_s,
        )
        for (video, of), (same_bytes, overlap_s, offset_s) in sorted(found.items())
    ]


def _check_of(
    benchmark: BenchmarkVideos, fingerprints: Mapping[str, Fingerprint], params: CopyParams
) -> BenchmarkCheck:
    not_comparable = _not_comparable(benchmark.videos, fingerprints, params)
    status = Checked.PARTLY if benchmark.unusable or not_comparable else Checked.CHECKED
    return BenchmarkCheck(
        name=benchmark.name,
        status=status if benchmark.videos else Checked.NOT,
        videos=len(benchmark.videos),
        unusable=benchmark.unusable,
        not_comparable=not_comparable,
    )


def _not_comparable(videos: Sequence[Video], fingerprints: Mapping[str, Fingerprint], params: CopyParams) -> list[str]:
    return [video.path for video in videos if not is_recognisable(fingerprints[video.id], params)]


def _overall(checks: Sequence[BenchmarkCheck], not_comparable: Sequence[str]) -> Checked:
    statuses = {check.status for check in checks}
    if not statuses - {Checked.NOT}:
        return Checked.NOT
    return Checked.CHECKED if statuses == {Checked.CHECKED} and not not_comparable else Checked.PARTLY


def rejections(report: VideoReport) -> list[Rejection]:
    """One for each contaminated video, with all benchmark videos that it shows."""
    by_video: dict[str, list[Contamination]] = {}
    for found in report.found:
        by_video.setdefault(found.video, []).append(found)
    return [
        Rejection(stage=STAGE, item=video, reason=Reason.CONTAMINATED, detail=_told(found))
        for video, found in by_video.items()
    ]


def _told(found: list[Contamination]) -> str:
    return "; ".join(map(_told_one, found[:_MAX_NAMED])) + _and_more(found)


def _told_one(found: Contamination) -> str:
    how = "has the bytes of" if found.same_bytes else f"shows {found.overlap_s:g} s of"
    items = ", ".join(found.items[:_MAX_NAMED]) + _and_more(found.items)
    return f"{how} {found.benchmark}/{found.benchmark_video}" + (f" (asked about in {items})" if items else "")


def _and_more(named: Sequence[object]) -> str:
    return f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
