"""A small demo through every stage to a registered model, with the shipped base, and stages killed on that way."""

import csv
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from processes import edit_params, finish, killed_when, must_work

from tpo.demo.build import build_benchmarks, build_videos
from tpo.params import load_params
from tpo.records import GateDecision
from tpo.store import read_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("ingest", "caption", "ask", "answer", "judge", "mix", "validate", "train", "evaluate", "register")
NAME = "tpo-demo"


def make_small(settings: dict[str, Any]) -> None:
    settings["demo"] |= {
        "num_train_videos": 12,
        "num_eval_videos": 6,
        "questions_per_eval_video": 4,
        "num_needles": 4,
        "num_haystacks": 2,
    }
    settings["evaluate"]["bootstrap_samples"] = 200
    settings["evaluate"]["needle"] |= {"num_frames": [16], "minutes": [0.5], "per_cell": 2}
    settings["validate"]["min_pairs"] = 10
    settings["train"]["save_every_steps"] = 2


def registry(folder: Path) -> tuple[list[int], dict[str, int]]:
    """Versions and aliases, as MLflow's database has them."""
    if not (folder / "mlflow.db").is_file():
        return [], {}
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        versions = database.execute("SELECT version FROM model_versions ORDER BY version").fetchall()
        aliases = database.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
    return [version for (version,) in versions], dict(aliases)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """Every stage has run. Registration was killed twice before: while packaging, and when it had made a version."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, make_small)
    shutil.copytree(ROOT / "demo/checkpoint", folder / "demo/checkpoint")
    demo = load_params(folder / "params.yaml").demo
    build_videos(folder / "data/demo/videos", demo)
    build_benchmarks(folder / "data/demo/benchmarks", demo)
    for stage in STAGES[:-1]:
        must_work(stage, folder, environment)
    packaged = "mlruns/*/models/*/artifacts/MLmodel"
    for ready in (lambda: any(folder.glob(packaged)), lambda: bool(registry(folder)[0])):
        with killed_when(ready, "register", folder, environment):
            assert not (folder / "reports/gate.json").exists()
    must_work("register", folder, environment)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def test_the_way_ends_at_one_version_with_the_aliases_that_the_gate_decided(finished: Path) -> None:
    decision = GateDecision.model_validate_json((finished / "reports/gate.json").read_text())
    assert registry(finished) == ([1], {"challenger": 1, "champion": 1} if decision.promote else {"challenger": 1})
    numbers = json.loads((finished / "reports/evaluation.json").read_text())["all"]
    assert decision.promote == (numbers["difference_low"] > 0 and numbers["holm_p"] < 0.05)
    mixed = read_manifest(finished / "data/pairs")
    assert read_manifest(finished / "models/tuned").items_in == mixed.counts["training pairs"] > 50
    assert mixed.counts["held-out pairs"] > 0


def test_a_killed_validation_comes_to_the_same_verdict(finished: Path, copy: Path, environment: dict[str, str]) -> None:
    for made in ("data/validation", "reports/data_docs"):
        shutil.rmtree(copy / made)
    with killed_when((copy / "reports/data_docs").exists, "validate", copy, environment):
        assert not (copy / "data/validation").exists()
    must_work("validate", copy, environment)
    verdict = "data/validation/verdict.json"
    assert (copy / verdict).read_text() == (finished / verdict).read_text()
    assert (copy / "reports/data_docs/index.html").is_file()


def test_a_killed_training_ends_at_the_very_same_weights(
    finished: Path, copy: Path, environment: dict[str, str]
) -> None:
    shutil.rmtree(copy / "models/tuned")
    with killed_when(
        lambda: any(copy.glob(".tpo/train/*/checkpoints/*/*/trainer_state.json")), "train", copy, environment
    ):
        assert not (copy / "models/tuned").exists()
    must_work("train", copy, environment)
    weights = "models/tuned/model.safetensors"
    assert (copy / weights).read_bytes() == (finished / weights).read_bytes()


def test_training_in_two_processes_is_the_same_training(
    finished: Path, copy: Path, environment: dict[str, str]
) -> None:
    settings = {"launch": str(ROOT / "configs/accelerate/cpu2.yaml"), "pairs_per_device": 8}
    edit_params(copy, lambda wanted: wanted["train"].update(settings))
    must_work("train", copy, environment)
    curves = [list(csv.DictReader((folder / "reports/training/curves.csv").open())) for folder in (finished, copy)]
    for name in ("loss", "rewards/margins", "grad_norm", "localized/margins"):
        alone, together = ([float(row[name] or "nan") for row in rows] for rows in curves)
        assert together == pytest.approx(alone, abs=1e-3, nan_ok=True), name
    assert len(curves[0]) == 7
    told = [read_manifest(folder / "models/tuned").facts["processes"] for folder in (finished, copy)]
    assert told == [1, 2]
    assert read_manifest(copy / "models/tuned").items_out == read_manifest(finished / "models/tuned").items_out


def test_a_launch_config_that_is_not_there_is_named(copy: Path, environment: dict[str, str]) -> None:
    edit_params(copy, lambda wanted: wanted["train"].update(launch="configs/nowhere.yaml"))
    code, _, err = finish("train", copy, environment)
    assert code == 1
    assert "train.launch names 'configs/nowhere.yaml', and there is no such file. See configs/accelerate." in err
