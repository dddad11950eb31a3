"""Progress of anything that takes over two seconds: a bar in a terminal, a plain line now and then elsewhere.

    with progress(len(videos), "demo world", "videos") as bar:
        for video in videos: ...; bar.update()
    with waiting("loading models/tuned"): ...         # where there is nothing to count

In a project (where there is a `.tpo`) a bar is on disk too, in `.tpo/progress`: `tpo status` reads it from there.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

FOLDER = Path(".tpo/progress")
_PATIENCE_S = 2.0  # what is over sooner is not worth a word
_LINE_EVERY_S = 10.0  # where it is no terminal


class _Bar(tqdm):  # type: ignore[type-arg]  # at run time it takes no argument
    """A bar that others can read from a file, one a process, as of a second ago at most."""

    _file: Path | None = None
    _written_s = float("-inf")

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        self._keep()
        return shown

    def close(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None
        super().close()

    def keep_in(self, file: Path) -> None:
        self._file = file
        self._keep()

    def _keep(self) -> None:
        now_s = time.monotonic()
        if self._file is None or now_s < self._written_s + 1:
            return
        told = self.format_dict
        state = {name: told[name] for name in ("prefix", "n", "total", "unit", "elapsed", "initial")}
        partial = self._file.with_suffix(".partial")
        with suppress(OSError):  # a full disk stops the work where it writes what counts, not here
            partial.write_text(json.dumps(state), encoding="utf-8")
            partial.replace(self._file)
        self._written_s = now_s


class _Lines(_Bar):
    """Where no bar can be redrawn, in a log or a pipe: each state is a line of its own."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:  # noqa: ARG002
        if msg is None:  # else it is to be wiped away
            self.fp.write(f"{str(self).rstrip()}\n")
            self.fp.flush()

    def close(self) -> None:
        if not self.disable and self.format_dict["elapsed"] >= self.delay:
            self.refresh()
        self.leave = False  # tqdm would end the last line a second time
        super().close()


def progress(
    total: int, what: str, unit: str, done: int = 0, *, shown: bool = True, patient: bool = False
) -> "tqdm[Any]":
    """A progress bar on standard error with rate and time left; `update()` it, use it as a context.

    Args:
        shown: false in all but one of several processes that do one thing together.
        patient: not a word about it if it is over within two seconds.
    """
    in_terminal = sys.stderr.isatty()
    kind = _Bar if in_terminal else _Lines
    bar = kind(
        total=total,
        initial=done,
        desc=what,
        unit=f" {unit}",
        mininterval=0.1 if in_terminal else _LINE_EVERY_S,
        # A terminal that was not told its size says 0, and would get no bar.
        ncols=(in_terminal and os.get_terminal_size(sys.stderr.fileno()).columns) or 80,
        nrows=24,
        ascii=not in_terminal,
        delay=_PATIENCE_S if patient else 0,
        disable=not shown,
    )
    if shown and FOLDER.parent.is_dir():
        with suppress(OSError):
            FOLDER.mkdir(exist_ok=True)
            bar.keep_in(FOLDER / f"{os.getpid()}.json")
    return bar


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on standard error what is waited for, and for how long by now, once it has taken two seconds."""
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, done, sys.stderr), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _tell(what: str, done: threading.Event, out: IO[str]) -> None:
    in_terminal, started_s = out.isatty(), time.monotonic()
    every_s, begin, end = (1.0, "\r", "") if in_terminal else (_LINE_EVERY_S, "", "\n")
    pause_s, told = _PATIENCE_S, False
    while not done.wait(pause_s):
        out.write(f"{begin}{what}: {time.monotonic() - started_s:.0f} s{end}")
        out.flush()
        pause_s, told = every_s, True
    if in_terminal and told:
        out.write("\r\x1b[K")
        out.flush()
