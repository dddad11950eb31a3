"""Stages as real processes: killed in their middle, given mistakes to report, and asked to account for everything."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tpo.curation.captions import caption_video
from tpo.curation.queries import ask_video
from tpo.demo.benchmarks import write_benchmarks
from tpo.demo.build import build_videos
from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events
from tpo.params import load_params
from tpo.records import Answer, Caption, Prediction, Query, Record, Rejection, Video, content_id
from tpo.store import Manifest, publish, read_manifest, read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = {
    "ingest": ("data/catalog", {"videos.jsonl": Video, "rejected.jsonl": Rejection}),
    "ask": ("data/queries", {"queries.jsonl": Query, "rejected.jsonl": Rejection}),
    "answer": ("data/answers", {"answers.jsonl": Answer, "rejected.jsonl": Rejection}),
    "evaluate": ("data/evaluation", {"predictions.jsonl": Prediction, "rejected.jsonl": Rejection}),
}
Edit = Callable[[dict[str, Any]], None]


def edit_params(folder: Path, edit: Edit) -> None:
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    edit(settings)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def make_small(settings: dict[str, Any]) -> None:
    settings["demo"] |= {"num_train_videos": 6, "num_eval_videos": 6, "questions_per_eval_video": 3}
    settings["ask"] |= {"localized_per_video": 4, "comprehensive_per_video": 2}
    settings["runtime"]["items_per_task"] = 1  # so that every stage has a middle
    settings["evaluate"]["bootstrap_samples"] = 200


def start(stage: str, folder: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"flows.{stage}"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(stage: str, folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    with start(stage, folder, environment) as process:
        out, err = process.communicate()
    return process.returncode, out, err


def must_work(stage: str, folder: Path, environment: dict[str, str]) -> str:
    code, out, err = finish(stage, folder, environment)
    assert code == 0, err
    return out


def published(folder: Path, stage: str) -> dict[str, list[Record]]:
    out, kinds = OUTPUTS[stage]
    return {name: read_records(folder / out / name, kind) for name, kind in kinds.items()}


def manifest(stage: str, item: str, count: int, **facts: Any) -> Manifest:
    return Manifest(stage=stage, item=item, items_in=count, items_out=count, set_aside={}, seconds=0, facts=facts)


def publish_questions(folder: Path) -> None:
    """data/captions and data/queries from data/catalog, without the flows: they have tests of their own."""
    params = load_params(folder / "params.yaml")
    videos = read_records(folder / "data/catalog/videos.jsonl", Video)
    captions = {video.id: caption_video(video, folder / params.data.videos)[0] for video in videos}
    asked = [video for video in videos if captions[video.id]]
    queries = [query for v in asked for query in ask_video(v, captions[v.id], params.ask, params.data.seed)[0]]
    texts = [caption for video in asked for caption in captions[video.id]]
    publish(folder / "data/captions", {"captions.jsonl": texts}, manifest("caption", "videos", len(asked)))
    publish(folder / "data/queries", {"queries.jsonl": queries}, manifest("ask", "videos", len(asked)))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, environment: dict[str, str]) -> Path:
    """A small demo project, undisturbed: ingested, answered and evaluated, with random models that know nothing."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, make_small)
    demo = load_params(folder / "params.yaml").demo
    build_videos(folder / "data/demo/videos", demo)
    write_benchmarks(
        folder / "data/demo/benchmarks",
        demo.num_eval_videos, demo.questions_per_eval_video, demo.min_events, demo.max_events, demo.seed,
    )  # fmt: skip
    shutil.copytree(tiny_checkpoint, folder / "demo/checkpoint")
    tokenizer = build_tokenizer()
    tuned = build_model(tokenizer, 1)
    publish(
        folder / "models/tuned",
        {".": lambda out: save_checkpoint(tuned, tokenizer, out)},
        manifest("train", "pairs", 0, mlflow_run_id="none"),
    )
    must_work("ingest", folder, environment)
    publish_questions(folder)
    must_work("answer", folder, environment)
    must_work("evaluate", folder, environment)
    return folder


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "project"))


@contextmanager
def killed_in_the_middle(stage: str, folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """Start a stage, kill it (and only it) with SIGKILL when its first items are done; how many those are."""

    def num_done() -> int:
        return sum(path.read_bytes().count(b"\n") for path in (folder / ".tpo" / stage).glob("*/journal.jsonl"))

    with start(stage, folder, environment) as process:
        try:
            while num_done() < 1:
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
        finally:
            process.kill()
    try:
        yield num_done()
    finally:  # Prefect's temporary server outlives a killed flow
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def resume(stage: str, folder: Path, environment: dict[str, str], num_items: int) -> Manifest:
    """Kill a stage in its middle, run it again; its manifest, after checking that it went on and did no item twice."""
    out = folder / OUTPUTS[stage][0]
    shutil.rmtree(out, ignore_errors=True)
    with killed_in_the_middle(stage, folder, environment) as done:
        assert 1 <= done < num_items, "the kill came too late to be in the middle"
        assert not out.exists(), "nothing half-written is to be seen"
        said = must_work(stage, folder, environment)
    assert f"{stage}: going on, {done} " in said
    found = read_manifest(out)
    assert found.resumed == done
    assert not list((folder / ".tpo" / stage).iterdir()), "a finished stage leaves no journal"
    return found


@pytest.mark.parametrize(("stage", "num_items"), [("ingest", 13), ("answer", 6), ("evaluate", 6)])
def test_a_killed_stage_goes_on_and_ends_as_an_undisturbed_one(
    project: Path, copy: Path, environment: dict[str, str], stage: str, num_items: int
) -> None:
    resumed = resume(stage, copy, environment, num_items)
    undisturbed = read_manifest(project / OUTPUTS[stage][0])
    assert published(copy, stage) == published(project, stage)
    passing = {"resumed", "seconds", "facts"}
    assert resumed.model_dump(exclude=passing) == undisturbed.model_dump(exclude=passing)
    if stage == "evaluate":
        assert (copy / "reports/evaluation.json").read_text() == (project / "reports/evaluation.json").read_text()


def test_a_killed_ask_goes_on_with_the_videos_that_were_not_asked_about(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Asking takes a few milliseconds a video, so it needs many of them to have a middle. It reads records alone."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    edit_params(tmp_path, make_small)
    params = load_params(tmp_path / "params.yaml")
    rng = np.random.default_rng(0)
    videos, captions, queries = [], [], []
    for number in range(300):
        events = plan_events(rng, 8)
        name = f"walk_{number}.mp4"
        video = Video(
            id=content_id(name) * 4, path=name, size_bytes=1, duration_s=events[-1].end_s, fps=2, num_frames=1,
            width=64, height=64, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False,
        )  # fmt: skip
        cues = [
            Caption(id=e.caption, video_id=video.id, start_s=e.start_s, end_s=e.end_s, text=e.caption, source="x.srt")
            for e in events
        ]
        videos.append(video)
        captions += cues
        queries += ask_video(video, cues, params.ask, params.data.seed)[0]
    publish(tmp_path / "data/catalog", {"videos.jsonl": videos}, manifest("ingest", "files", len(videos)))
    publish(tmp_path / "data/captions", {"captions.jsonl": captions}, manifest("caption", "videos", len(videos)))
    found = resume("ask", tmp_path, environment, len(videos))
    assert published(tmp_path, "ask") == {"queries.jsonl": queries, "rejected.jsonl": []}
    assert (found.items_in, found.items_out) == (300, 300)


def test_every_stage_accounts_for_everything_that_came_in(project: Path) -> None:
    told = {stage: read_manifest(project / OUTPUTS[stage][0]) for stage in ("ingest", "answer", "evaluate")}
    for stage, found in told.items():
        assert found.items_in == found.items_out + sum(found.set_aside.values())
        rejected = published(project, stage)["rejected.jsonl"]
        assert len(rejected) == sum(found.set_aside.values()), "each thing set aside is on disk with its reason"
    assert (told["ingest"].items_in, told["ingest"].items_out) == (13, 8)
    assert told["answer"].items_in == len(read_records(project / "data/queries/queries.jsonl", Query)) == 6 * 6
    assert len(published(project, "answer")["answers.jsonl"]) == 2 * told["answer"].items_out
    assert told["evaluate"].items_in == 6 * 3
    assert len(published(project, "evaluate")["predictions.jsonl"]) == 2 * told["evaluate"].items_out


def fails_with(message: str, stage: str, folder: Path, environment: dict[str, str]) -> None:
    code, _, err = finish(stage, folder, environment)
    assert code == 1
    assert "Traceback" not in err
    assert err.count(message) == 1, err
    assert err.splitlines()[-1].startswith((f"{stage}: ", "  ")), "the message comes last"


def test_an_unknown_setting_is_named_with_those_that_exist(copy: Path, environment: dict[str, str]) -> None:
    edit_params(copy, lambda settings: settings["ask"].update(questions_per_video=3))
    fails_with("ask.questions_per_video: unknown key. Allowed here: asker, capt", "ask", copy, environment)


def test_a_missing_base_model_is_named(copy: Path, environment: dict[str, str]) -> None:
    edit_params(copy, lambda settings: settings["model"].update(base="demo/nowhere"))
    message = "'demo/nowhere' is neither a checkpoint folder nor a reachable hub id"
    fails_with(message, "answer", copy, environment)


def test_a_folder_without_videos_is_named(copy: Path, environment: dict[str, str]) -> None:
    (copy / "my/videos").mkdir(parents=True)
    edit_params(copy, lambda settings: settings["data"].update(videos="my/videos"))
    fails_with("No video in my/videos: no file ends in one of", "ingest", copy, environment)


def test_when_no_pair_is_left_the_reasons_are_on_disk(copy: Path, environment: dict[str, str]) -> None:
    """A random model is never right, so no pair of its answers is kept."""
    fails_with("judge: Not one preference pair was kept", "judge", copy, environment)
    found = read_manifest(copy / "data/pairs")
    assert (found.items_in, found.items_out) == (6 * 6, 0)
    assert sum(found.set_aside.values()) == 6 * 6
    assert len(read_records(copy / "data/pairs/rejected.jsonl", Rejection)) == 6 * 6
