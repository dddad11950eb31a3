"""The demo world as a folder: sound videos with captions in three formats, and damaged files with their reasons."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tpo.curation.captions import caption_video
from tpo.demo.build import build_videos
from tpo.demo.world import plan_events
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.params import DemoParams, load_params
from tpo.records import Reason, Rejection, Video
from tpo.store import digest
from tpo.video.catalog import drop_same_bytes, find_videos
from tpo.video.filters import filter_videos
from tpo.video.probe import Prober

ROOT = Path(__file__).resolve().parents[2]
PARAMS = DemoParams(
    num_train_videos=4,
    num_eval_videos=3,
    questions_per_eval_video=2,
    num_needles=2,
    num_haystacks=1,
    min_events=4,
    max_events=5,
    seed=7,
)
INGEST = load_params(ROOT / "params.yaml").ingest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "videos"
    build_videos(folder, PARAMS)
    return folder


@pytest.fixture(scope="module")
def ingested(folder: Path) -> tuple[list[Video], list[Rejection]]:
    with Prober(folder.with_name("frames")) as prober:
        found = [prober.probe(folder, path) for path in find_videos(folder, INGEST.extensions)]
    kept, unfit, _ = filter_videos([record for record in found if isinstance(record, Video)], INGEST.filters)
    videos, copies = drop_same_bytes(kept)
    return videos, [record for record in found if isinstance(record, Rejection)] + unfit + copies


def test_damaged_files_are_set_aside_each_for_its_own_reason(ingested: tuple[list[Video], list[Rejection]]) -> None:
    assert {rejection.item: rejection.reason for rejection in ingested[1]} == {
        "cut_short.mp4": Reason.UNREADABLE,
        "empty.mp4": Reason.EMPTY_FILE,
        "login_page.mp4": Reason.UNREADABLE,
        "sound_only.mp4": Reason.NO_VIDEO_STREAM,
        "walk_0000_copy.mp4": Reason.DUPLICATE,
    }


def test_captions_in_every_format_tell_what_the_video_shows(
    folder: Path, ingested: tuple[list[Video], list[Rejection]]
) -> None:
    rng = np.random.default_rng([PARAMS.seed, 1])
    sources: set[str] = set()
    set_aside: dict[str, Reason] = {}
    for video in ingested[0]:
        captions, rejections = caption_video(video, folder)
        set_aside.update((video.path, rejection.reason) for rejection in rejections)
        if not video.path.startswith("walk"):
            continue
        events = plan_events(rng, int(rng.integers(PARAMS.min_events, PARAMS.max_events, endpoint=True)))
        rng.uniform(0, 6.28)  # the phase
        assert [(c.start_s, c.end_s, c.text) for c in captions] == [(e.start_s, e.end_s, e.caption) for e in events]
        assert video.duration_s == events[-1].end_s
        sources.add(captions[0].source.split(".", 1)[1])
    assert sources == {"captions.json", "srt", "vtt"}
    assert set_aside == {"no_captions.mp4": Reason.NO_CAPTIONS, "bad_captions.mp4": Reason.BAD_CAPTION_FILE}


def test_the_world_is_built_anew_the_same_each_time_and_evaluates_on_unseen_videos(tmp_path: Path) -> None:
    shown = "\n".join(f"  {name}: {value}" for name, value in PARAMS.model_dump().items())
    settings = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(f"{settings[: settings.index('demo:')]}demo:\n{shown}\n")
    left_over = tmp_path / "data/demo/videos/left_over.mp4"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    digests = []
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-m", "tpo.demo.build"],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
        )  # fmt: skip
        digests.append(digest(tmp_path / "data/demo"))
    assert digests[0] == digests[1]
    assert not left_over.exists()
    items, rejections = load_benchmarks(tmp_path / "data/demo/benchmarks")
    assert (len(items), rejections) == (6, [])
    trained, evaluated = (
        {path.read_bytes() for path in (tmp_path / "data/demo" / part).rglob("*.mp4")}
        for part in ("videos", "benchmarks")
    )
    assert len(evaluated) == 3 + 2 + 1, "benchmarks, needles, a haystack"
    assert trained.isdisjoint(evaluated)
