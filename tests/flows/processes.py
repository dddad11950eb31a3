"""Stages as real processes: started, killed, and looked at for what they leave behind."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tpo.store import Manifest, read_manifest

ROOT = Path(__file__).resolve().parents[2]
HANGS_AFTER_S = 400

Edit = Callable[[dict[str, Any]], None]


def edit_params(folder: Path, edit: Edit) -> None:
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    edit(settings)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def start(stage: str, folder: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"flows.{stage}"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(stage: str, folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    with start(stage, folder, environment) as process:
        try:
            out, err = process.communicate(timeout=HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it tells what all its threads are at
            out, err = process.communicate()
            raise AssertionError(f"{stage} hung: {err}") from None
    return process.returncode, out, err


def must_work(stage: str, folder: Path, environment: dict[str, str]) -> str:
    code, out, err = finish(stage, folder, environment)
    assert code == 0, err
    return out


def all_must_work(stages: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    """One stage after the other in a single process, as the imports take longer than the work; what they said."""
    one_by_one = "import runpy, sys\nfor stage in sys.argv[1:]: runpy.run_module(f'flows.{stage}', run_name='__main__')"
    command = [sys.executable, "-c", one_by_one, *stages]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@contextmanager
def killed_when(ready: Callable[[], bool], stage: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Start a stage and kill it (and only it) with SIGKILL as soon as `ready`; no process of it may remain."""
    with start(stage, folder, environment) as process:
        try:
            while not ready():
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
        finally:
            process.kill()
    ends_at = time.monotonic() + 30
    while left := processes_of_group(process.pid):
        assert time.monotonic() < ends_at, f"{stage} was killed and left behind: {left}"
        time.sleep(0.05)
    yield


def processes_of_group(group: int) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "status", "cmdline"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.info["cmdline"] or []))
        except ProcessLookupError:
            continue
    return found


def num_done(stage: str, folder: Path) -> int:
    """Lines in the journal of a stage that runs or was killed."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / ".tpo" / stage).glob("*/journal.jsonl"))


def resume(
    stage: str, out: Path, folder: Path, environment: dict[str, str], ready: Callable[[], bool], num_items: int
) -> Manifest:
    """Kill a stage when `ready`, run it again; its manifest, after checking that it went on and did no item twice."""
    shutil.rmtree(out)
    with killed_when(ready, stage, folder, environment):
        done = num_done(stage, folder)
        assert 1 <= done < num_items, "the kill came too late to be in the middle"
        assert not out.exists(), "nothing half-written is to be seen"
        said = must_work(stage, folder, environment)
    assert f"{stage}: going on, {done} " in said
    found = read_manifest(out)
    assert found.resumed == done
    assert not list((folder / ".tpo" / stage).iterdir()), "a finished stage leaves no journal"
    return found


def put_old_reports(stage: str, folder: Path) -> list[Path]:
    """In place of what DVC leaves where it is while a stage runs (`persist`): the stage has to replace all of it."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    flags = {
        path: of
        for kind in ("outs", "metrics")
        for one in declared.get(kind, [])
        if isinstance(one, dict)
        for path, of in one.items()
    }
    kept = [folder / path for path, of in flags.items() if of.get("persist")]
    for path in kept:
        path.write_text("old")
    return kept


def registry(folder: Path) -> tuple[list[int], dict[str, int]]:
    """Versions and aliases, as MLflow's database has them."""
    if not (folder / "mlflow.db").is_file():
        return [], {}
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        versions = database.execute("SELECT version FROM model_versions ORDER BY version").fetchall()
        aliases = database.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
    return [version for (version,) in versions], dict(aliases)


@contextmanager
def prefect_server(environment: dict[str, str]) -> Iterator[str]:
    """A Prefect server with a database of its own; the URL of its API."""
    port = free_port()
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services", "--no-ui"]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-m", "prefect", *command], env=environment, **quiet) as server:
        try:
            wait_until_healthy(url := f"http://127.0.0.1:{port}/api", server)
            yield url
        finally:
            server.terminate()


def wait_until_healthy(url: str, server: "subprocess.Popen[bytes]") -> None:
    ends_at = time.monotonic() + 120
    while time.monotonic() < ends_at and server.poll() is None:
        try:
            httpx.get(f"{url}/health")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Prefect's server did not start at {url}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
