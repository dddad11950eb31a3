"""ingest: a folder of videos → data/catalog. What cannot be used, is there twice or is a benchmark's is set aside."""

import os
from collections.abc import Sequence
from pathlib import Path

from flows.frames import INDEXES, prober
from flows.stage import CATALOG, Done, Stage, of_kind, run, stage_flow, stage_task
from tpo.errors import UserError
from tpo.evaluation.benchmarks import NEEDLES, find_items
from tpo.params import CopyParams, Params, ProbeParams, load_params
from tpo.records import Record, Rejection, Video
from tpo.store import count_reasons
from tpo.video.catalog import drop_same_bytes, find_files, find_near_duplicates, find_videos
from tpo.video.decontaminate import VideoReport, check_videos, group_by_benchmark, rejections
from tpo.video.filters import filter_videos
from tpo.video.fingerprint import Fingerprint
from tpo.video.measure import VERSION, FileState, load_measured, state
from tpo.video.probe import readable

File = tuple[Path, Path]


@stage_task("probe files")
def probe_files(files: list[File], params: ProbeParams) -> Done:
    """Probe each file, given with the folder it lies in, in a child process that cannot hang this one."""
    return [(_name((root, path)), [prober(params).probe(root, path)]) for root, path in files]


def _name(file: File) -> str:
    """Of the file in the journal: a name of its own, also where two names are shown alike."""
    name = file[1].as_posix()
    return name if name == readable(file[1]) else os.fsencode(name).hex()


def _state(file: File) -> tuple[str, FileState | None]:
    """What tells whether a file is still the one that was probed; a broken link has no state."""
    try:
        return _name(file), state(file[1])
    except OSError:
        return _name(file), None


@stage_flow("ingest")
def ingest() -> None:
    params = load_params()
    settings = params.ingest
    files = [(params.data.videos, path) for path in find_videos(params.data.videos, settings.extensions)]
    theirs = [
        (params.data.benchmarks, path)
        for path in find_files(params.data.benchmarks, settings.extensions)
        if not path.is_relative_to(params.data.benchmarks / NEEDLES)
    ]
    key = (settings.probe.model_dump(mode="json"), VERSION, [_state(file) for file in files + theirs])
    with Stage("ingest", "files", *key, unit="files") as stage:
        probed = stage.map(probe_files, files + theirs, _name, params.runtime.items_per_task, settings.probe)
        found = probed[: len(files)]
        fit, unfit, flagged = filter_videos(of_kind(found, Video), settings.filters)
        unique, copies = drop_same_bytes(fit)
        report = decontaminate(unique, probed[len(files) :], params)
        clean, contaminated = _set_aside(unique, rejections(report), settings.contamination)
        near = find_near_duplicates(clean, _fingerprints(clean), settings.near_duplicates)
        videos, near_copies = _set_aside(clean, near, settings.near_duplicates)
        rejected = of_kind(found, Rejection) + unfit + copies + contaminated + near_copies
        flagged += [r for r in rejections(report) + near if r not in rejected]
        stage.publish(
            CATALOG,
            {
                "videos.jsonl": videos,
                "rejected.jsonl": rejected,
                "flagged.jsonl": flagged,
                "decontamination.json": report.model_dump_json(indent=2) + "\n",
            },
            items_in=len(files),
            items_out=len(videos),
            set_aside=rejected,
            counts={f"flagged: {reason}": count for reason, count in count_reasons(flagged).items()},
            facts={"hours": round(sum(video.duration_s for video in videos) / 3600, 3), "benchmarks": report.status},
        )
    told = ", ".join(f"{check.name}: {check.status}" for check in report.benchmarks) or report.note
    print(f"ingest: benchmark videos {report.status} ({told})")
    if not videos:
        found_none = f"None of the {len(files)} files in {params.data.videos} can be used"
        raise UserError(f"{found_none}; {CATALOG}/rejected.jsonl says why.")


def decontaminate(videos: Sequence[Video], probed: Sequence[Record], params: Params) -> VideoReport:
    """Compare the videos with what was probed below the folder of benchmarks."""
    items, note = find_items(params.data.benchmarks)
    benchmarks = group_by_benchmark([record for record in probed if isinstance(record, Video | Rejection)], items)
    known = [*videos, *(video for benchmark in benchmarks for video in benchmark.videos)]
    return check_videos(videos, benchmarks, _fingerprints(known), params.ingest.contamination, note)


def _fingerprints(videos: Sequence[Video]) -> dict[str, Fingerprint]:
    return {video.id: load_measured(INDEXES, video.id).fingerprint for video in videos}


def _set_aside(
    videos: list[Video], rejected: list[Rejection], params: CopyParams
) -> tuple[list[Video], list[Rejection]]:
    """The videos that remain and what is set aside: nothing if it is only scored."""
    if params.score_only:
        return videos, []
    gone = {rejection.item for rejection in rejected}
    return [video for video in videos if video.path not in gone], rejected


if __name__ == "__main__":
    run(ingest)
