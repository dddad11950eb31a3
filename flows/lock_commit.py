"""A commit of what DVC recorded on a branch, made beside the index and the files that someone may be working with."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tpo.errors import UserError

_RECORDS = ("dvc.lock", "*/dvc.lock", "*.dvc")


def check_branch(branch: str) -> None:
    """Find out before hours of work whether `commit_lock` will be able to commit.

    Raises:
        UserError: that is no name of a branch, it is checked out, or git does not know who commits.
    """
    try:
        _git("check-ref-format", "--branch", branch)
        _git("var", "GIT_COMMITTER_IDENT")
        worktrees = _git("worktree", "list", "--porcelain").splitlines()
    except subprocess.CalledProcessError as error:
        raise UserError(f"dvc.lock cannot be committed to {branch!r}: {error.stderr.strip()}") from None
    if f"branch refs/heads/{branch}" in worktrees:
        raise UserError(
            f"The branch {branch!r} is checked out, so a commit to it would make its files look edited. "
            "Let `commit_to` name another branch, such as 'retrain', and merge that."
        )


def commit_lock(branch: str, message: str) -> str | None:
    """Commit `dvc.lock` and the `.dvc` files as they are on disk, on top of HEAD and of what the branch holds.

    Returns:
        The commit, or nothing if the branch says the same already.

    Raises:
        UserError: git refused, for example because someone else moved the branch in between.
    """
    try:
        return _commit(branch, message)
    except subprocess.CalledProcessError as error:
        raise UserError(f"dvc.lock was not committed to {branch!r}: {error.stderr.strip()}") from None


def _commit(branch: str, message: str) -> str | None:
    ref, head = f"refs/heads/{branch}", _git("rev-parse", "HEAD")
    tip = _git("for-each-ref", "--format=%(objectname)", ref)
    # -z: git would quote names that are not ASCII, and not know them again.
    files = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_RECORDS).split("\0")
    edited = _git("diff", "--name-only", "HEAD", "--", ".", *(f":(exclude){path}" for path in _RECORDS))
    if edited:
        message += "\n\nMade with edits that are in no commit: " + ", ".join(edited.splitlines())
    with TemporaryDirectory() as folder:
        index = str(Path(folder) / "index")
        _git("read-tree", "HEAD", index=index)
        _git("update-index", "--add", "--remove", "--", *filter(None, files), index=index)
        tree = _git("write-tree", index=index)
    parents = _parents(tip, head)
    if tree == _git("rev-parse", f"{parents[0]}^{{tree}}"):
        return None
    commit = _git("commit-tree", tree, "-m", message, *(word for parent in parents for word in ("-p", parent)))
    _git("update-ref", "-m", "retrain", ref, commit, tip or "0" * len(commit))
    return commit


def _parents(tip: str, head: str) -> Sequence[str]:
    """HEAD is among the ancestors, and so is all that the branch has held."""
    base = _git("merge-base", tip, head) if tip else ""
    if not tip or base == tip:
        return (head,)
    return (tip,) if base == head else (tip, head)


def _git(*arguments: str, index: str | None = None) -> str:
    environment = os.environ | ({"GIT_INDEX_FILE": index} if index else {})
    done = subprocess.run(["git", *arguments], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
