"""Training against a real MLflow server that is killed in the middle of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest

from tpo.training.run import train_on_pairs
from tpo.training.trainer import VideoDPOTrainer

pytestmark = [pytest.mark.slow]


def serve(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_BACKEND_STORE_URI": "sqlite:///mlflow.db", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
    ends_at = time.monotonic() + 90
    while True:
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < ends_at, (folder / "log").read_text()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                return server
        except httpx.HTTPError:
            time.sleep(0.2)


def kill(server: "subprocess.Popen[bytes]") -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_a_server_that_is_killed_while_it_trains_and_comes_back_gets_the_whole_curve(
    world, tmp_path: Path, monkeypatch, caplog
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mlflow.set_tracking_uri(
        None
    )  # first: what an earlier test set goes before the environment, and this clears that too
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    servers = [serve(tmp_path, port)]
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    usual, steps = VideoDPOTrainer.training_step, []

    def step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(len(steps))
        if len(steps) == 3:
            kill(servers[0])
        if len(steps) == 6:
            servers.append(serve(tmp_path, port))
        return usual(trainer, *args, **kwargs)

    monkeypatch.setattr(VideoDPOTrainer, "training_step", step)
    try:
        found = train_on_pairs(
            world.pairs, world.videos, world.folder, world.base, world.params, tmp_path / "work", mlflow_run_id=run_id
        )
        curve = mlflow.MlflowClient().get_metric_history(run_id, "loss")
    finally:
        kill(servers[-1])
    assert "MLflow takes no curves for now, and gets them later" in caplog.text
    expected = {entry["step"]: entry["loss"] for entry in found.history if "loss" in entry}
    assert {point.step: point.value for point in curve} == pytest.approx(expected)
    assert len(expected) == 6
