"""What the tests of whole stages share: real processes, with Prefect's and MLflow's databases in temporary folders."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from processes import (
    ROOT,
    all_must_work,
    edit_params,
    killed_when,
    must_work,
    prefect_server,
    put_old_reports,
    registry,
)

from tpo.demo.build import build_benchmarks, build_videos
from tpo.demo.provider import Provider
from tpo.params import load_params

STAGES = ("ingest", "caption", "ask", "answer", "judge", "mix", "validate", "train", "evaluate", "register")


@pytest.fixture(scope="session")
def without_server(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of the processes: this checkout's code, no network, nothing of the user's own settings.

    Each starts and ends a Prefect server of its own, as it does for somebody who has none.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONFAULTHANDLER": "1",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def environment(without_server: dict[str, str]) -> Iterator[dict[str, str]]:
    """The same with one Prefect server for all, since its start takes longer than the work of many a stage."""
    with prefect_server(without_server) as url:
        yield without_server | {"PREFECT_API_URL": url}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """The demo world behind an OpenAI-compatible server on loopback, which keeps what it was asked."""
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], worker_id: str) -> Path:
    """A small demo with the shipped base model, in which every stage has run. Nobody writes to it; take a `copy`.

    Registration was killed twice before it ended: while packaging, and when it had made a version. All workers of
    pytest-xdist share the folder; the first that needs it makes it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            build_project(folder, environment)
    assert (folder / "reports/gate.json").is_file(), "another worker failed to make it"
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "project"))


def build_project(folder: Path, environment: dict[str, str]) -> None:
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, make_small)
    shutil.copytree(ROOT / "demo/checkpoint", folder / "demo/checkpoint")
    demo = load_params(folder / "params.yaml").demo
    build_videos(folder / "data/demo/videos", demo)
    build_benchmarks(folder / "data/demo/benchmarks", demo)
    all_must_work(STAGES[:-1], folder, environment)
    packaged = "mlruns/*/models/*/artifacts/MLmodel"
    for ready in (lambda: any(folder.glob(packaged)), lambda: bool(registry(folder)[0])):
        with killed_when(ready, "register", folder, environment):
            assert not (folder / "reports/gate.json").exists()
    reports = put_old_reports("register", folder)
    must_work("register", folder, environment)
    assert [path for path in reports if path.read_text() == "old"] == []
