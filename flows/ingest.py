"""ingest: a folder of videos → data/catalog. Every file is probed; what cannot be used is set aside with its reason."""

from pathlib import Path

from prefect import task

from flows.stage import CATALOG, INDEXES, TASK, Done, Stage, of_kind, run, stage_flow
from tpo.errors import UserError
from tpo.params import load_params
from tpo.records import Rejection, Video
from tpo.video.catalog import find_files, keep
from tpo.video.probe import Prober, readable


@task(name="probe files", **TASK)
def probe_files(paths: list[Path], root: Path, timeout_s: float) -> Done:
    """Probe each file in a child process that is killed after `timeout_s`."""
    with Prober(timeout_s, INDEXES) as prober:
        return [(readable(path), [prober.probe(root, path)]) for path in paths]


@stage_flow("ingest")
def ingest() -> None:
    params = load_params()
    root = params.data.videos
    paths = find_files(root, params.ingest)
    stats = [(readable(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths]
    with Stage("ingest", "files", params.ingest.model_dump(mode="json"), stats, unit="files") as stage:
        found = stage.map(
            probe_files, paths, readable, params.runtime.items_per_task, root, params.ingest.probe_timeout_s
        )
        videos, not_kept = keep(of_kind(found, Video), params.ingest)
        rejections = of_kind(found, Rejection) + not_kept
        stage.publish(
            CATALOG,
            {"videos.jsonl": videos, "rejected.jsonl": rejections},
            items_in=len(paths),
            items_out=len(videos),
            set_aside=rejections,
            facts={"hours": round(sum(video.duration_s for video in videos) / 3600, 3)},
        )
    if not videos:
        raise UserError(f"None of the {len(paths)} files in {root} can be used; {CATALOG}/rejected.jsonl says why.")


if __name__ == "__main__":
    run(ingest)
