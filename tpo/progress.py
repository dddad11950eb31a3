"""Progress of anything that takes over two seconds: a bar in a terminal, a plain line now and then elsewhere."""

import sys
from typing import Any

from tqdm import tqdm


def progress(total: int, what: str, unit: str, done: int = 0) -> "tqdm[Any]":
    """A progress bar on standard error with rate and time left; `update()` it, use it as a context."""
    in_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=f" {unit}",
        mininterval=0.1 if in_terminal else 10,
        ncols=None if in_terminal else 80,
        ascii=not in_terminal,
    )
