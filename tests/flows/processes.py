"""Stages as real processes: started, killed, and looked at for what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

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
