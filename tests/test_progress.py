"""Progress as whoever waits sees it: a bar where one can be drawn, lines in a log, and a file that others read."""

import contextlib
import json
import os
import pty
import sys
import time
from pathlib import Path

import pytest

from tpo import progress as module
from tpo.progress import FOLDER, progress, waiting


def test_in_a_log_each_state_is_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with progress(4, "answer", "videos", done=1) as bar:
        for _ in range(3):
            bar.update()
    first, last = capfd.readouterr().err.splitlines()
    assert first.startswith("answer:  25%")
    assert last.startswith("answer: 100%")
    assert "4/4" in last
    assert "videos/s" in last
    assert not FOLDER.exists()  # no project, no folder


def test_in_a_terminal_it_is_one_bar_even_if_that_does_not_know_its_size(tmp_path: Path, monkeypatch) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal, monkeypatch.context() as patched:  # noqa: PTH123
        patched.setattr(sys, "stderr", terminal)
        with progress(2, "answer", "videos") as bar:
            bar.update(2)
    drawn = b""
    with contextlib.suppress(OSError):  # that is how a terminal says that nobody writes any more
        while part := os.read(ours, 10_000):
            drawn += part
    assert drawn.count(b"\n") == 1
    assert "\ranswer: 100%|██" in drawn.decode()


def test_where_a_project_runs_others_can_read_how_far_it_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    FOLDER.parent.mkdir()
    file = FOLDER / f"{os.getpid()}.json"
    with progress(10, "train", "steps", done=4):
        told = json.loads(file.read_text())
        assert (told["prefix"], told["n"], told["total"], told["unit"].strip()) == ("train", 4, 10, "steps")
        with progress(10, "train", "steps", shown=False) as other:  # one of several processes
            other.update(9)
            assert json.loads(file.read_text())["n"] == 4
    assert not file.exists()


def test_what_is_soon_over_is_not_worth_a_word(capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    with waiting("loading a model"), progress(1, "compare", "videos", patient=True) as bar:
        bar.update()
    assert capfd.readouterr().err == ""
    with waiting("loading a model"):
        time.sleep(0.2)
    assert capfd.readouterr().err == "loading a model: 0 s\n"
