"""A command as a part of a flow: its output as it comes, its end with ours, its last words when it fails."""

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import psutil

from tpo.errors import UserError
from tpo.registry.tracking import redact

LAST_LINES = 20
GRACE_S = 60  # training saves a checkpoint when it is told to end
# Prefect kills a cancelled run after 30 s, and anything may `kill -9` us at any time. The watcher reads from a pipe
# that ends with this process, then ends the group of processes whose leader it is given.
_WATCHER = f"""read -r _; kill -s TERM -- "-$0" 2>/dev/null
for _ in $(seq {GRACE_S}); do kill -s 0 -- "-$0" 2>/dev/null || exit 0; sleep 1; done
kill -s KILL -- "-$0" 2>/dev/null"""


class CommandError(UserError):
    """A command ended with an exit code; `last_lines` is what it said last."""

    def __init__(self, command: Sequence[str], code: int, last_lines: Sequence[str]):
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        super().__init__(f"`{' '.join(command)}` {how}:\n" + "\n".join(last_lines))
        self.last_lines = tuple(last_lines)


def run_command(command: Sequence[str], tell: Callable[[str], object], environment: Mapping[str, str]) -> None:
    """Run a command and `tell` every line of its output, without the user and password of URIs.

    However this ends, by an error, a signal or `kill -9`, no process of the command is left: all of them get SIGTERM,
    and SIGKILL after `GRACE_S`.

    Raises:
        CommandError: its exit code was not 0.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    ) as process, _ends_with_us(process, environment):  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if text := redact(line.rstrip()):
                last.append(text)
                tell(text)
        process.wait()
    if process.returncode:
        raise CommandError(command, process.returncode, last)


def output_of(command: Sequence[str]) -> str:
    """What a short command prints.

    Raises:
        CommandError: its exit code was not 0.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(command, done.returncode, redact(done.stderr).splitlines()[-LAST_LINES:])
    return done.stdout


@contextlib.contextmanager
def _ends_with_us(process: "subprocess.Popen[str]", environment: Mapping[str, str]) -> Iterator[None]:
    until_we_end, ours = os.pipe()
    nowhere = subprocess.DEVNULL
    watcher = subprocess.Popen(
        ["sh", "-c", _WATCHER, str(process.pid)],
        env=environment, stdin=until_we_end, stdout=nowhere, stderr=nowhere, start_new_session=True,
    )  # fmt: skip
    os.close(until_we_end)
    try:
        yield
    finally:
        _end_group(process)
        watcher.kill()
        watcher.wait()
        os.close(ours)


def _end_group(leader: "subprocess.Popen[str]") -> None:
    """End what is left of a command, also what one that ended by itself left behind."""
    ends_at = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
        while leader.poll() is None or _is_alive(leader.pid):
            if time.monotonic() > ends_at:
                os.killpg(leader.pid, signal.SIGKILL)
                return
            time.sleep(0.05)


def _is_alive(group: int) -> bool:
    """Whether a process of the group runs. A zombie, which waits for a parent that does not care, does not."""
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False
