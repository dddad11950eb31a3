"""dvc.lock on a branch, in real git repositories in which somebody is working."""

import subprocess
from pathlib import Path

import pytest

from flows.lock_commit import check_branch, commit_lock
from tpo.errors import UserError


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    git("init", "--quiet", "--initial-branch=main")
    Path("code.py").write_text("one\n")
    Path("dvc.lock").write_text("old\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "begin")
    return tmp_path


def test_what_dvc_recorded_is_committed_and_nothing_that_somebody_works_on_is_touched(repository: Path) -> None:
    Path("dvc.lock").write_text("new\n")
    Path("videos.dvc").write_text("outs: []\n")
    Path("vidéos.dvc").write_text("outs: []\n")
    Path("code.py").write_text("two\n")
    git("add", "code.py")
    before = git("status", "--porcelain")
    commit = commit_lock("retrain", "retrain: all ran")
    assert git("status", "--porcelain") == before
    assert git("rev-parse", "retrain") == commit
    changed = git("diff", "-z", "--name-only", "main", "retrain").split("\0")
    assert changed == ["dvc.lock", "videos.dvc", "vidéos.dvc", ""]
    assert git("show", "retrain:dvc.lock") == "new"
    assert "Made with edits that are in no commit: code.py" in git("log", "-1", "--format=%b", "retrain")


def test_the_branch_keeps_its_own_history_and_that_of_head(repository: Path) -> None:
    for number in (1, 2):
        Path("dvc.lock").write_text(f"{number}\n")
        assert commit_lock("retrain", f"run {number}")
    assert commit_lock("retrain", "run 2 again") is None
    Path("code.py").write_text("two\n")
    git("commit", "--quiet", "--message", "better code", "code.py")
    Path("dvc.lock").write_text("3\n")
    assert commit_lock("retrain", "run 3")
    assert git("log", "--format=%s", "retrain").splitlines()[0] == "run 3"
    assert set(git("log", "--format=%s", "retrain").splitlines()) == {"begin", "run 1", "run 2", "better code", "run 3"}
    assert git("show", "retrain:code.py") == "two"


def test_a_branch_that_someone_has_checked_out_is_refused_before_any_work(repository: Path) -> None:
    check_branch("retrain")
    with pytest.raises(UserError, match="The branch 'main' is checked out"):
        check_branch("main")
    git("worktree", "add", "--quiet", "../elsewhere", "-b", "review")
    with pytest.raises(UserError, match="The branch 'review' is checked out"):
        check_branch("review")
    with pytest.raises(UserError, match="not a valid branch name"):
        check_branch("a..b")
