"""Stage outputs: a journal while a stage runs, an atomic publish when it is done, a manifest written last.

    with Journal(root, "judge", key) as journal:      # resumes what a killed run had finished
        for item in items: journal.append(item_id, records)
    publish(out, {"pairs.jsonl": pairs}, manifest)    # all of it appears at once, or nothing does

A stage's output folder holds JSON Lines files and `manifest.json`. Whoever reads a folder without a manifest gets an
error, so half-written output is never seen downstream.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from tpo.errors import UserError
from tpo.records import Record, Rejection

MANIFEST = "manifest.json"
_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KINDS = {kind.__name__: kind for kind in Record.__subclasses__()}
R = TypeVar("R", bound=Record)


class Manifest(BaseModel, extra="forbid"):
    """What a stage did. `items_in == items_out + sum(set_aside.values())`, checked when it is published."""

    stage: str
    item: str
    items_in: int
    items_out: int
    set_aside: dict[str, int]
    counts: dict[str, int] = {}
    resumed: int = 0
    seconds: float
    seed: int | None = None
    versions: dict[str, str] = {}
    facts: dict[str, Any] = {}


def count_reasons(rejections: Iterable[Rejection]) -> dict[str, int]:
    return dict(sorted(Counter(rejection.reason.value for rejection in rejections).items()))


def to_line(record: BaseModel) -> str:
    return record.model_dump_json() + "\n"


@contextmanager
def _clear_when_full(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            raise UserError(
                f"No space left to write {path}: {error.strerror}. What was there before is untouched. "
                "Free some space (or raise the quota) and run the same command again; it goes on where it stopped."
            ) from error
        raise


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str) -> None:
    """Write a single file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with _clear_when_full(path):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            _flush(file)
        partial.replace(path)
        _sync_folder(path.parent)


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read a JSON Lines file of a published stage.

    Raises:
        UserError: the folder was not published, the file is gone since, or a line is not a `kind`; names file, line and
            what to do.
    """
    if not (path.parent / MANIFEST).is_file():
        raise UserError(f"{path.parent} holds no finished stage (no {MANIFEST}). Run `dvc repro`, which makes it.")
    if not path.is_file():
        raise UserError(f"{path} is gone, though its stage has finished. Run `dvc repro`, which brings it back.")
    records = []
    with path.open("rb") as file:  # what is no UTF-8 is no record either
        for number, line in enumerate(file, start=1):
            try:
                records.append(kind.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the line"
                raise UserError(
                    f"{path}, line {number}: not a {kind.__name__}: {where}: {first['msg']}. "
                    "Was the file edited by hand? Run the stage again with `dvc repro`."
                ) from error
    return records


def read_stage(path: Path, kind: type[R]) -> list[R]:
    """The same where the stage may not have run: then there are none."""
    return read_records(path, kind) if (path.parent / MANIFEST).is_file() else []


def read_manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no finished stage (no {MANIFEST}). Run `dvc repro`.") from error
    except ValidationError as error:
        raise UserError(
            f"{folder / MANIFEST} is not a stage's manifest: {error.errors()[0]['msg']}. "
            "Was the file edited by hand? Run the stage again with `dvc repro`."
        ) from error


def digest(*paths: Path) -> str:
    """sha256 over the names and bytes of files, and of all files below folders, in a fixed order."""
    total = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts:
                total.update(file.relative_to(path.parent).as_posix().encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _locked(path: Path) -> IO[str]:
    """The opened file, locked until it is closed or the process ends."""
    import fcntl

    file = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(f"Another process is running this stage (it holds {path}). Wait for it.") from error
    return file


class Journal:
    """Finished work of a stage that is still running: one line an item, on disk before the next one is begun.

    `key` stands for everything the work depends on; work done under another key is dropped. A line that a kill cut
    short is dropped too. Only one process may hold a journal.
    """

    def __init__(self, root: Path, stage: str, key: str):
        # Held before anything is touched: another process may be writing what the next lines would drop or truncate.
        root.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(root / f"{stage}.lock")
        self.folder = root / stage / key[:16]
        for stale in (root / stage).glob("*"):
            if stale != self.folder:
                shutil.rmtree(stale)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "journal.jsonl"
        self.done: dict[str, list[Record]] = dict(self._finished())
        self.resumed = len(self.done)

    def _finished(self) -> Iterator[tuple[str, list[Record]]]:
        if not self.path.is_file():
            return
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                entry = json.loads(line)
                yield entry["item"], [_KINDS[kind].model_validate(fields) for kind, fields in entry["records"]]
        os.truncate(self.path, whole)

    def __enter__(self) -> Self:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing writes again what a full disk refused before.
        with self._lock, _clear_when_full(self.path):
            self._file.close()

    def append(self, item: str, records: Sequence[Record]) -> None:
        """Record that `item` is done and gave `records`; returns when that is on disk."""
        named = [(type(record).__name__, record.model_dump(mode="json")) for record in records]
        entry = {"item": item, "records": named}
        with _clear_when_full(self.path):
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            _flush(self._file)
        self.done[item] = list(records)

    def clear(self) -> None:
        shutil.rmtree(self.folder)


def publish(
    out: Path, files: Mapping[str, Iterable[BaseModel] | str | Callable[[Path], None]], manifest: Manifest
) -> None:
    """Make `out` appear with `files` and the manifest, all at once; what was there before is replaced.

    A file is given as records (JSON Lines), as text, or as a function that writes to the path it is given. A kill
    leaves the earlier output or the new one; in the instant between the two renames neither, which readers refuse.

    Raises:
        UserError: the disk is full; the earlier output is untouched.
        AssertionError: the manifest's counts do not add up: something vanished, which is a defect of the stage.
    """
    accounted = manifest.items_out + sum(manifest.set_aside.values())
    if manifest.items_in != accounted:
        raise AssertionError(
            f"{manifest.stage}: {manifest.items_in} {manifest.item} came in but {accounted} are accounted for "
            f"({manifest.items_out} out, set aside: {manifest.set_aside})"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (out.parent / f".{out.name}.{state}" for state in ("partial", "old"))
    if old.exists() and not out.exists():  # a kill came between the two renames below
        old.rename(out)
    for left_over in (partial, old):
        shutil.rmtree(left_over, ignore_errors=True)
    with _clear_when_full(out):
        partial.mkdir()
        for name, content in files.items():
            if callable(content):
                content(partial / name)
                continue
            with (partial / name).open("w", encoding="utf-8") as file:
                file.writelines([content] if isinstance(content, str) else map(to_line, content))
                _flush(file)
        with (partial / MANIFEST).open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=2) + "\n")
            _flush(file)
        _sync_folder(partial)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    _sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 3)
