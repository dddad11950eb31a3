"""Records of stages, where a stage that has not run has none."""

from pathlib import Path
from typing import TypeVar

from tpo.records import Record
from tpo.store import MANIFEST, read_records

R = TypeVar("R", bound=Record)


def read_stage(path: Path, kind: type[R]) -> list[R]:
    """The records of a file of a stage, none where the stage has not run or knows no such file.

    Raises:
        UserError: a line is no such record.
    """
    return read_records(path, kind) if (path.parent / MANIFEST).is_file() and path.is_file() else []
