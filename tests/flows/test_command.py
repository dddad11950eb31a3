"""Commands of a flow as real processes: what they say, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import processes_of_group

from flows.command import CommandError, run_command

# A stage with a child, both of which note where they are.
STAGE = "echo begun; sleep 300 & echo $$ > group; wait"


def wait_for_group(folder: Path) -> int:
    ends_at = time.monotonic() + 60
    while not (folder / "group").is_file() or not (folder / "group").read_text():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    return int((folder / "group").read_text())


def test_every_line_is_told_without_passwords_and_the_last_ones_explain_a_failure() -> None:
    told: list[str] = []
    script = "echo begun; echo pushing to s3://me:secret@host/box >&2; exit 3"
    with pytest.raises(CommandError, match=r"failed with exit code 3:\nbegun\npushing to s3://\*\*\*@host/box"):
        run_command(["sh", "-c", script], told.append, os.environ)
    assert told == ["begun", "pushing to s3://***@host/box"]


def test_what_a_command_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    run_command(
        ["sh", "-c", f"cd {tmp_path}; sleep 300 >/dev/null 2>&1 & echo $$ > {tmp_path}/group"], print, os.environ
    )
    assert processes_of_group(wait_for_group(tmp_path)) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_of_a_command_outlives_the_one_that_runs_it(tmp_path: Path, how: signal.Signals) -> None:
    program = f"""
import os, signal, sys
from flows.command import run_command
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
run_command(["sh", "-c", {STAGE!r}], print, os.environ)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, start_new_session=True) as process:
        group = wait_for_group(tmp_path)
        assert processes_of_group(group)
        process.send_signal(how)
    ends_at = time.monotonic() + 30
    while processes_of_group(group):
        assert time.monotonic() < ends_at
        time.sleep(0.05)
