"""What each stage left: its manifest's counts, a part of the work, a damaged file, or nothing."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from tpo.errors import UserError
from tpo.records import Record
from tpo.store import MANIFEST, read_manifest

OUTPUTS = {
    "ingest": Path("data/catalog"),
    "caption": Path("data/captions"),
    "ask": Path("data/queries"),
    "answer": Path("data/answers"),
    "judge": Path("data/judged"),
    "mix": Path("data/pairs"),
    "validate": Path("data/validation"),
    "train": Path("models/tuned"),
    "evaluate": Path("data/evaluation"),
}
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


class StageStatus(Record):
    name: str
    state: Literal["done", "begun", "not run", "damaged"]
    item: str = ""
    items_in: int = 0
    items_out: int = 0
    set_aside: dict[str, int] = Field({})
    kept: str = Field("", description="of a run that has not ended: what it has done already")
    problem: str = ""


def stage_statuses(root: Path) -> tuple[StageStatus, ...]:
    """Of every stage that publishes a folder, in their order; never raises."""
    return tuple(_status(root, name, root / at) for name, at in OUTPUTS.items())


def _status(root: Path, name: str, out: Path) -> StageStatus:
    if not (out / MANIFEST).exists():
        kept = _kept(root / ".tpo" / name)
        return StageStatus(name=name, state="begun" if kept else "not run", kept=kept)
    try:
        manifest = read_manifest(out)
    except (UserError, OSError) as error:
        return StageStatus(name=name, state="damaged", problem=str(error))
    counts = {what: getattr(manifest, what) for what in ("item", "items_in", "items_out", "set_aside")}
    return StageStatus(name=name, state="done", kept=_kept(root / ".tpo" / name), **counts)


def _kept(folder: Path) -> str:
    """What a stage's journal holds, or how far its last checkpoint is; a stage that ended has neither."""
    checkpoints = folder.glob("*/checkpoints/*/checkpoint-*")
    steps = [int(found[1]) for path in checkpoints if (found := _CHECKPOINT.fullmatch(path.name))]
    if steps:
        return f"step {max(steps)} is saved"
    lines = sum(_count_lines(journal) for journal in folder.glob("*/journal.jsonl"))
    return f"{lines:,} videos or files are done" if lines else ""


def _count_lines(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:  # the stage ended meanwhile
        return 0
