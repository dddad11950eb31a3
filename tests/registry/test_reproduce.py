"""Code and data of a registered version come back in a worktree of their own; real git, DVC and MLflow."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.registry.package import register, versions
from tpo.registry.reproduce import reproduce
from tpo.registry.tracking import log_stage, recorded

PIPELINE = """
stages:
  pairs:
    cmd: cat source.txt data/vidéos > pairs.txt
    deps: [source.txt, data/vidéos]
    outs: [pairs.txt]
"""


def run(*command: str) -> str:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def repro() -> None:
    run(sys.executable, "-m", "dvc", "repro", "--quiet")


def commit() -> str:
    run("git", "add", "source.txt", "dvc.yaml", ".dvc", "data/vidéos.dvc")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "as it was")
    return run("git", "rev-parse", "HEAD").strip()


def registered(tags: dict[str, str]) -> str:
    return register(
        Path("full"),
        base="base",
        base_revision=None,
        name="demo",
        measured_with={"num_frames": 4, "max_new_tokens": 5, "model": {"dtype": "float32"}},
        tags=tags,
        metrics={},
        run_id=log_stage("train", "tpo", params={}, metrics={}),
        example={"video": "clip.mp4", "question": "Which color is the star?"},
        project=recorded(),
    )


@pytest.fixture(scope="module")
def project(tracking_folder: Path) -> Path:
    """A project in git and DVC whose version 1 was made from "old" data, part of it new at that time, and "new" now."""
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 0), tokenizer, tracking_folder / "full")
    write_video(tracking_folder / "clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    run("git", "init", "--quiet")
    run(sys.executable, "-m", "dvc", "init", "--quiet")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("params.yaml").write_text("register: as it was\n")
    Path("source.txt").write_text("old")
    added = Path("data/vidéos")
    added.parent.mkdir()
    added.write_text("older")
    run(sys.executable, "-m", "dvc", "add", "--quiet", str(added))
    commit()
    added.unlink()
    added.write_text("old")
    repro()
    registered({})
    Path("source.txt").write_text("new")
    added.unlink()
    added.write_text("new")
    repro()
    commit()
    return tracking_folder


def test_code_and_data_of_a_version_come_back_and_the_users_own_stay(project: Path, tmp_path: Path) -> None:
    before = run("git", "status", "--porcelain")
    found = reproduce("demo", "1", tmp_path / "then")
    assert found.commit == versions("demo")[0].tags["git_sha"]
    assert [(found.folder / name).read_text() for name in ("source.txt", "data/vidéos")] == ["old", "old"]
    assert (found.folder / "pairs.txt").read_text() == "oldold"
    assert (found.folder / "params.yaml").read_text() == "register: as it was\n"
    assert (found.notes, found.status) == ((), "")
    assert [Path(name).read_text() for name in ("source.txt", "data/vidéos")] == ["new", "new"]
    assert run("git", "status", "--porcelain") == before
    with pytest.raises(UserError, match="exists"):
        reproduce("demo", "1", tmp_path / "then")


def test_data_that_is_nowhere_and_code_that_was_not_committed_are_told(project: Path, tmp_path: Path) -> None:
    edited = Path("source.txt")
    edited.write_text("never committed")
    repro()
    version = registered({})
    for kept in Path(".dvc/cache/files").rglob("*"):
        if kept.is_file() and kept.read_text().startswith("never committed"):
            kept.unlink()
    edited.write_text("new")
    repro()
    found = reproduce("demo", version, tmp_path / "then")
    assert "edits are not here" in found.notes[0]
    assert "neither in this project's cache nor in its remote" in found.notes[1]
    assert "pairs.txt" in found.status


def test_what_cannot_be_had_again_is_an_error_that_says_why(project: Path, tmp_path: Path) -> None:
    import mlflow

    with pytest.raises(UserError, match="has no version 9"):
        reproduce("demo", "9", tmp_path / "then")
    source = mlflow.MlflowClient().get_model_version("demo", "1").source
    for tags, message in (
        ({}, "does not say from which git commit"),
        ({"git_sha": "0" * 40}, "not in this repository"),
    ):
        version = mlflow.MlflowClient().create_model_version("demo", source, tags=tags).version
        with pytest.raises(UserError, match=message):
            reproduce("demo", str(version), tmp_path / "then")
    assert not (tmp_path / "then").exists()
