"""The command line as a person meets it: real processes, readable errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video
from tpo.records import Granularity, PreferencePair, Query, QuestionType, Segment, Video
from tpo.store import Manifest, publish
from tpo.video.probe import Prober
from tpo.video.sample import dense

ROOT = Path(__file__).resolve().parents[1]


def tpo(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tpo.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_names_the_commands_and_loads_nothing_heavy(tmp_path: Path):
    done = tpo(tmp_path, "--help")
    assert done.returncode == 0
    for command in ("summary", "ask", "registry", "promote", "rollback", "reproduce"):
        assert command in done.stdout
    code = "import sys, tpo.cli; print([m for m in ('torch', 'mlflow', 'transformers', 'pandas') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_what_the_user_can_fix_is_one_message_and_exit_code_1(tmp_path: Path):
    for arguments, message in (
        (["summary"], "No stage has run"),
        (["registry"], "No params.yaml here"),
        (["rollback", "--reason", "why"], "No params.yaml here"),
        (["needles"], "No params.yaml here"),
        (["ask", "clip.mp4", "What?"], "No params.yaml here"),
        (["ask", "clip.mp4", "What?", "--model", "nothing"], "There is no folder 'nothing'"),
    ):
        done = tpo(tmp_path, *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("tpo: ")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_checkpoint_folder_answers_about_a_real_video(tmp_path: Path):
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 0), tokenizer, tmp_path / "checkpoint")
    write_video(tmp_path / "clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = tpo(tmp_path, "ask", "clip.mp4", "Which color is the star?", "--model", "checkpoint")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    missing = tpo(tmp_path, "ask", "nowhere.mp4", "What?", "--model", "checkpoint")
    assert missing.returncode == 1
    assert "There is no video file 'nowhere.mp4'" in missing.stderr


def project_with(folder: Path, *, held_out: bool) -> list[Video]:
    """Three videos, two questions about each, and one of the videos held out or none."""
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    root = folder / "data/demo/videos"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abc":
        write_video(root / f"{name}.mp4", plan_events(rng, 6), 0.0)
    with Prober(folder / ".tpo/frames") as prober:
        videos = [video for name in "abc" if isinstance(video := prober.probe(root, root / f"{name}.mp4"), Video)]
    queries = [
        Query(
            id=f"{video.id[:6]}{number}", video_id=video.id, granularity=Granularity.LOCALIZED,
            question_type=QuestionType.TEMPORAL_REASONING,
            segment=Segment(video_id=video.id, start_s=10.0 * number, end_s=10.0 * number + 8),
            question=f"What comes after number {number}?", reference_answer=f"answer {number}", asker="a person",
        )
        for video in videos
        for number in range(4)
    ]  # fmt: skip
    view = dense(videos[0], 4)
    pair = PreferencePair(
        id="p", video_id=videos[0].id, query_id="q", granularity=Granularity.LOCALIZED, question_type=None,
        question="Why?", chosen="a", rejected="b", view=view, chosen_tokens=1, rejected_tokens=1, chosen_view=view,
        rejected_view=view, segment=None, model_id="m", verdicts=(), judge="rule",
    )  # fmt: skip
    for stage, out, files in (
        ("ingest", "catalog", {"videos.jsonl": videos}),
        ("ask", "queries", {"queries.jsonl": queries}),
        ("mix", "pairs", {"held_out.jsonl": [pair] if held_out else []}),
    ):
        done = Manifest(stage=stage, item="items", items_in=0, items_out=0, set_aside={}, seconds=0)
        publish(folder / "data" / out, files, done)
    return videos


def test_a_needle_test_is_made_of_held_out_videos_alone(tmp_path: Path):
    videos = project_with(tmp_path, held_out=True)
    done = tpo(tmp_path, "needles")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "data/demo/benchmarks/needle/needles.json").read_text())
    assert [row["source"] for row in rows] == [videos[0].id] * 4
    assert all((tmp_path / "data/demo/benchmarks/needle/clips" / row["clip"]).is_file() for row in rows)
    again = tpo(tmp_path, "needles")
    assert again.returncode == 1
    assert "holds a needle test already" in again.stderr


def test_without_held_out_videos_no_needle_test_is_made(tmp_path: Path):
    project_with(tmp_path, held_out=False)
    done = tpo(tmp_path, "needles")
    assert done.returncode == 1
    assert "Set mix.held_out_share" in done.stderr
    assert not (tmp_path / "data/demo/benchmarks").exists()
