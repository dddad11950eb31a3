"""Stage outputs under kill -9, a full disk and a second process: real processes, real files."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tpo.errors import UserError
from tpo.records import Reason, Rejection
from tpo.store import (
    Journal,
    Manifest,
    count_reasons,
    digest,
    publish,
    read_manifest,
    read_records,
    read_stage,
    write_atomic,
)

LIMIT_BYTES = 4096


def record(detail: str) -> Rejection:
    return Rejection(stage="test", item="x", reason=Reason.BAD_ITEM, detail=detail)


def manifest(**changes: object) -> Manifest:
    fields = {"stage": "test", "item": "things", "items_in": 3, "items_out": 3, "set_aside": {}, "seconds": 0}
    return Manifest.model_validate(fields | changes)


def publish_version(out: Path, version: str, size: int = 3) -> None:
    files = {"a.jsonl": [record(version)] * size, "b.txt": version, "c.txt": lambda path: path.write_text(version)}
    publish(out, files, manifest(facts={"version": version}))


def published_version(out: Path) -> str:
    """Which version lies there; fails if it is a mixture or a half."""
    versions = {r.detail for r in read_records(out / "a.jsonl", Rejection)}
    versions |= {(out / "b.txt").read_text(), (out / "c.txt").read_text(), read_manifest(out).facts["version"]}
    (version,) = versions
    assert {path.name for path in out.iterdir()} == {"a.jsonl", "b.txt", "c.txt", "manifest.json"}
    return str(version)


# What child processes do; `child` runs them.


def append_items(root: str, count: str) -> None:
    with Journal(Path(root), "judge", "key") as journal:
        print(f"resumed {journal.resumed}", flush=True)
        for name in (f"item {n}" for n in range(int(count))):
            if name not in journal.done:
                journal.append(name, [record(name), record("é" * 2000)])
                print(name, flush=True)


def hold_journal(root: str) -> None:
    with Journal(Path(root), "judge", "key") as journal:
        journal.append("mine", [])
        print("held", flush=True)
        sys.stdin.read()


def publish_and_die(out: str, last_step: str) -> None:
    """Publish a new version, and kill this process right before its `last_step`-th audit event (open, rename, …)."""
    steps = itertools.count()

    def die_in_time(event: str, arguments: tuple[object, ...]) -> None:
        if next(steps) == int(last_step):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die_in_time)
    publish_version(Path(out), "new")


def publish_on_full_disk(out: str) -> None:
    with full_disk():
        publish_version(Path(out), "new", size=1000)


def append_on_full_disk(root: str) -> None:
    with full_disk():
        append_items(root, "1000")


def write_on_full_disk(path: str) -> None:
    with full_disk():
        write_atomic(Path(path), "new" * LIMIT_BYTES)


@contextmanager
def full_disk() -> Iterator[None]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
    try:
        yield
    except UserError as error:
        print(f"UserError: {error}")


@contextmanager
def child(function: object, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that runs a function of this file; killed with SIGKILL if it still runs at the end."""
    name = getattr(function, "__name__", "")
    code = f"import sys; from test_store import {name}; {name}(*sys.argv[1:])"
    search_path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path), str(Path.cwd())])
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": search_path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def output(function: object, *arguments: object) -> str:
    with child(function, *arguments) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    return out


def test_killed_again_and_again_a_journal_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    for items_until_kill in (1, 7, 30):
        with child(append_items, tmp_path, 200) as process:
            assert process.stdout is not None
            assert int(process.stdout.readline().split()[1]) >= len(told)
            told += [process.stdout.readline().strip() for _ in range(items_until_kill)]
            process.kill()
            told += process.stdout.read().split("\n")[:-1]
    told += output(append_items, tmp_path, 200).splitlines()[1:]
    (path,) = tmp_path.glob("judge/*/journal.jsonl")
    written = [json.loads(line)["item"] for line in path.read_text().splitlines()]
    assert written == [f"item {n}" for n in range(200)]
    assert len(told) == len(set(told))
    assert set(told) <= set(written)
    with Journal(tmp_path, "judge", "key") as journal:
        assert journal.resumed == 200
        assert journal.done["item 3"] == [record("item 3"), record("é" * 2000)]


def test_a_line_cut_short_is_dropped_and_its_item_is_done_again(tmp_path: Path) -> None:
    with Journal(tmp_path, "judge", "key") as journal:
        for name in ("a", "b"):
            journal.append(name, [record("ü" * 50)])
    whole = journal.path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        journal.path.write_bytes(whole[:end])
        with Journal(tmp_path, "judge", "key") as resumed:
            assert list(resumed.done) == ["a"]
            resumed.append("b", [record("ü" * 50)])
        assert journal.path.read_bytes() == whole


def test_work_done_under_another_key_is_dropped(tmp_path: Path) -> None:
    with Journal(tmp_path, "judge", "key") as journal:
        journal.append("a", [])
    with Journal(tmp_path, "judge", "other") as journal:
        assert journal.resumed == 0
    with Journal(tmp_path, "judge", "key") as journal:
        assert journal.resumed == 0
        journal.append("a", [])
        journal.clear()
    with Journal(tmp_path, "judge", "key") as journal:
        assert journal.resumed == 0


@pytest.mark.parametrize("key", ["key", "other"])
def test_a_second_process_is_told_and_leaves_the_first_ones_work_alone(tmp_path: Path, key: str) -> None:
    with child(hold_journal, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        (path,) = tmp_path.glob("judge/*/journal.jsonl")
        before = path.read_bytes()
        with pytest.raises(UserError, match="Another process is running this stage"):
            Journal(tmp_path, "judge", key)
        with Journal(tmp_path, "answer", key):
            assert path.read_bytes() == before
        process.kill()
        process.wait()
    with Journal(tmp_path, "judge", "key") as journal:
        assert list(journal.done) == ["mine"]


def test_a_kill_at_any_step_of_publishing_leaves_the_old_output_or_the_new_one_and_never_a_half(tmp_path: Path) -> None:
    out, seen = tmp_path / "data" / "pairs", []
    for step in itertools.count():
        publish_version(out, "old")
        with child(publish_and_die, out, step) as process:
            process.wait()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        seen.append(published_version(out) if out.exists() else "between")
    assert [version for version, _ in itertools.groupby(seen)] == ["old", "between", "new"]
    assert seen.count("between") == 1, "the instant between two renames"
    assert published_version(out) == "new"
    assert [path.name for path in out.parent.iterdir()] == ["pairs"], "nothing is left over"


def test_a_kill_between_the_renames_and_a_full_disk_then_still_leave_the_old_output(tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    publish_version(out, "old")
    out.rename(tmp_path / ".pairs.old")
    with pytest.raises(UserError, match="holds no finished stage"):
        read_manifest(out)
    output(publish_on_full_disk, out)
    assert published_version(out) == "old"


def test_a_full_disk_while_publishing_is_told_and_the_old_output_is_untouched(tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    publish_version(out, "old")
    told = output(publish_on_full_disk, out)
    assert told.startswith(f"UserError: No space left to write {out}: File too large.")
    assert "run the same command again" in told
    assert published_version(out) == "old"
    publish_version(out, "new")
    assert published_version(out) == "new"


def test_a_full_disk_while_journaling_is_told_and_what_was_done_is_kept(tmp_path: Path) -> None:
    told = output(append_on_full_disk, tmp_path).splitlines()
    assert told[-1].startswith("UserError: No space left to write")
    done = told[1:-1]
    assert output(append_items, tmp_path, 5).splitlines()[0] == f"resumed {len(done)}"
    with Journal(tmp_path, "judge", "key") as journal:
        assert list(journal.done) == [f"item {n}" for n in range(5)]


def test_a_full_disk_while_writing_one_file_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_atomic(path, "old")
    assert output(write_on_full_disk, path).startswith(f"UserError: No space left to write {path}")
    assert path.read_text() == "old"


def test_counts_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    lost_one = manifest(items_in=4, items_out=2, set_aside={"duplicate": 1})
    with pytest.raises(AssertionError, match="4 things came in but 3 are accounted for"):
        publish(tmp_path / "pairs", {}, lost_one)
    assert not (tmp_path / "pairs").exists()


def test_published_records_and_manifest_are_read_back(tmp_path: Path) -> None:
    rejections = [record("one"), record("two\nlines, é, \u2028")]
    whole = manifest(items_out=1, set_aside=count_reasons(rejections), versions={"tpo": "1"}, seed=3)
    publish(tmp_path / "pairs", {"rejected.jsonl": rejections}, whole)
    assert read_records(tmp_path / "pairs" / "rejected.jsonl", Rejection) == rejections
    assert read_manifest(tmp_path / "pairs") == whole
    assert whole.set_aside == {"bad_item": 2}


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rejected.jsonl").write_text(record("half-written").model_dump_json() + "\n")
    for read in (lambda: read_records(tmp_path / "rejected.jsonl", Rejection), lambda: read_manifest(tmp_path)):
        with pytest.raises(UserError, match=r"holds no finished stage \(no manifest.json\). Run `dvc repro`"):
            read()


def test_files_edited_by_hand_are_refused_by_name_and_line(tmp_path: Path) -> None:
    publish_version(tmp_path / "pairs", "old")
    path = tmp_path / "pairs" / "a.jsonl"
    path.write_text(path.read_text().replace("bad_item", "bad_mood", 2).replace("bad_mood", "bad_item", 1))
    with pytest.raises(UserError, match=r"a.jsonl, line 2: not a Rejection: reason: Input should be 'unreadable'"):
        read_records(path, Rejection)
    path.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match=r"a.jsonl, line 1: not a Rejection"):
        read_records(path, Rejection)
    path.unlink()
    with pytest.raises(UserError, match=r"a.jsonl is gone, though its stage has finished"):
        read_stage(path, Rejection)
    assert read_stage(tmp_path / "another" / "a.jsonl", Rejection) == []
    (tmp_path / "pairs" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json is not a stage's manifest: Invalid JSON"):
        read_manifest(tmp_path / "pairs")


def test_a_digest_depends_on_names_and_bytes_and_not_on_caches(tmp_path: Path) -> None:
    folder = tmp_path / "tpo"
    folder.mkdir()
    (folder / "a.py").write_text("1")
    before = digest(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_text("cache")
    assert digest(folder) == before
    (folder / "a.py").rename(folder / "b.py")
    renamed = digest(folder)
    (folder / "b.py").write_text("2")
    assert len({before, renamed, digest(folder)}) == 3
