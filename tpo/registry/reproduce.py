"""Code and data of a registered version, in a folder of their own: `tpo reproduce VERSION`.

    told = reproduce("tpo-demo", "3", Path("../tpo-demo-3"))

The git commit is checked out as a worktree, so the user's own is not touched; settings and DVC's records are those that
travel with the version; data comes from this project's DVC cache, and from its remote where the cache lacks it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tpo.errors import UserError
from tpo.records import Record
from tpo.registry.package import versions
from tpo.registry.stored import fetched

_PROJECT = "artifacts/project"


class Reproduced(Record):
    """What was brought back.

    Attributes:
        notes: what could not be brought back, or is not quite what it was.
        status: what `dvc status` finds changed; empty = nothing.
    """

    folder: Path
    commit: str
    notes: tuple[str, ...]
    status: str


def reproduce(name: str, version: str, folder: Path) -> Reproduced:
    """Check out what a version was made from.

    Raises:
        UserError: there is no such version, it does not say what it was made from, its commit is not in this
            repository, or the folder exists.
    """
    tags = next((one.tags for one in versions(name) if one.version == version), None)
    if tags is None:
        raise UserError(f"The registered model {name!r} has no version {version}. See `tpo registry`.")
    commit = tags.get("git_sha")
    if not commit:
        raise UserError(f"Version {version} does not say from which git commit it was made, so it cannot be had again.")
    if folder.exists():
        raise UserError(f"{folder} exists. Give another folder with --into, or remove it: git worktree remove {folder}")
    if _run("git", "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise UserError(f"Commit {commit} is not in this repository. `git fetch` what has it, and try again.")
    _must("git", "worktree", "add", "--detach", str(folder), commit)
    notes = []
    if tags.get("git_edited") == "true":
        notes.append("Files were edited and not committed when the version was made; the edits are not here.")
    with fetched(f"models:/{name}/{version}") as package:
        kept = package / _PROJECT
        if kept.is_dir():
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        has_lock = (kept / "dvc.lock").is_file()
    if not has_lock:
        notes.append("The version was not made by `dvc repro`: it has no dvc.lock, so its data cannot be had again.")
        return Reproduced(folder=folder, commit=commit, notes=tuple(notes), status="")
    cache = _must(*_DVC, "cache", "dir").strip()
    _must(*_DVC, "cache", "dir", "--local", str(Path(cache).absolute()), cwd=folder)
    if _run(*_DVC, "checkout", cwd=folder).returncode and _run(*_DVC, "pull", cwd=folder).returncode:
        notes.append("Some data is neither in this project's cache nor in its remote; `dvc status` names it below.")
    found = _must(*_DVC, "status", cwd=folder).strip()
    return Reproduced(
        folder=folder, commit=commit, notes=tuple(notes), status="" if found.startswith("Data and pipelines") else found
    )


_DVC = (sys.executable, "-m", "dvc")  # as a program: the work knows nothing of its orchestration


def _run(*command: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def _must(*command: str, cwd: Path | None = None) -> str:
    done = _run(*command, cwd=cwd)
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it does not say why"]
        raise UserError(f"`{' '.join(command)}` failed: {told[-1]}")
    return done.stdout
