"""The pipeline as DVC sees it: what is stale and in which order, what is imported, what `dvc pull` trips over."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from flows.command import output_of
from tpo.errors import UserError
from tpo.status.stale import stale_stages, upstream

DVC = (sys.executable, "-m", "dvc")


def stale_now() -> list[str]:
    """What is stale now and what depends on it, in DVC's order; `.dvc` files whose data changed are among it.

    Raises:
        UserError: DVC's drawing lacks one of them, so nobody knows when it is its turn.
    """
    changed = json.loads(output_of([*DVC, "status", "--json", "--with-deps", "dvc.yaml"]))
    if not changed:
        return []
    drawn = upstream(output_of([*DVC, "dag", "--dot"]))
    if unknown := changed.keys() - drawn.keys():
        raise UserError(
            f"`dvc status` names what `dvc dag` does not draw: {', '.join(sorted(unknown))}. If dvc.yaml was changed "
            "just now, start it again; it cannot draw names that begin or end with a quotation mark."
        )
    return list(stale_stages(changed, drawn))


def outcome(said: Sequence[str]) -> str:
    """What `dvc repro` of a stage did, by what it said."""
    signs = {"Running stage": "ran", "is cached": "from the cache", "Verifying": "added"}
    return next((what for sign, what in signs.items() if any(sign in line for line in said)), "unchanged")


def imports() -> list[str]:
    """The `.dvc` files of data that came from somewhere else (`dvc import`, `dvc import-url`)."""
    # -z: git would quote names that are not ASCII.
    said = output_of(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.dvc"])
    files = [file for file in said.split("\0") if Path(file).is_file()]
    return [file for file in files if "deps" in yaml.safe_load(Path(file).read_text(encoding="utf-8"))]


def has_remote() -> bool:
    from dvc.config import Config

    return "remote" in Config.from_cwd()["core"]


def in_the_way(said: Sequence[str]) -> str:
    """What to do about files that `dvc pull` refused to delete, by what it said; empty = it failed for another reason.

    DVC advises `--force` there, which deletes them.
    """
    refused = next((number for number, line in enumerate(said, start=1) if "unsaved files" in line), len(said))
    files = sorted(os.path.relpath(path) for path in said[refused:] if Path(path).is_file())
    if not files:
        return ""
    paths = {path for file in map(Path, files) for path in (file, *file.parents)}
    added = sorted(str(path) for path in paths if Path(f"{path}.dvc").is_file())
    shown = ", ".join(files[:10]) + (f" and {len(files) - 10} more" if len(files) > 10 else "")
    told = f"`dvc pull` would have to delete what DVC has no copy of: {shown}. It is untouched. "
    if not added:
        return told + "It lies in what a stage makes, whose next run would delete it. Move it away."
    return told + (
        f"Keep it with `dvc add {' '.join(added)}`, or move it away. If others have changed that data too: move yours "
        "away, `dvc pull`, put it back, and add it then."
    )
