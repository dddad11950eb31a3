"""What DVC would run again, and why. DVC runs as a program: the work knows nothing of its orchestration."""

import json
import subprocess
import sys
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import Field

from tpo.errors import redact
from tpo.records import Record

_DVC = (sys.executable, "-m", "dvc")
_CODE = ("tpo/", "flows/")


class Stale(Record):
    stages: dict[str, str] = Field({}, description="stage and reason, in the order in which DVC would run them")
    problem: str = Field("", description="why this is not known")


def ask_dvc(root: Path) -> Stale:
    """Two questions to DVC at once, which take seconds; never raises. Meanwhile DVC lets no other command begin."""
    questions = (["status", "--json", "--with-deps", "dvc.yaml"], ["dag", "--dot"])
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    asked = [subprocess.Popen([*_DVC, *question], cwd=root, text=True, **pipes) for question in questions]
    said = [process.communicate() for process in asked]
    for process, (_, err) in zip(asked, said, strict=True):
        if process.returncode:
            return Stale(problem=_why(err))
    (changed, _), (dot, _) = said
    try:
        return Stale(stages=stale_stages(json.loads(changed), upstream(dot)))
    except ValueError:
        return Stale(problem="`dvc status --json` says something else than JSON")


def stale_stages(changed: Mapping[str, Any], upstream: Mapping[str, set[str]]) -> dict[str, str]:
    """What `dvc status` found changed, and all that comes after it, with reasons; in DVC's order.

    Args:
        changed: what `dvc status --json` says.
        upstream: which stages a stage waits for, from `dvc dag`.
    """
    ordered: dict[str, str] = {}
    for stage in TopologicalSorter({**dict.fromkeys(changed, ()), **upstream}).static_order():
        before = [one for one in ordered if one in upstream.get(stage, ())]
        if stage in changed or before:
            ordered[stage] = _reason(changed[stage]) if stage in changed else f"comes after {before[-1]}"
    return ordered


def upstream(dot: str) -> dict[str, set[str]]:
    """{"a": set(), "b": {"a"}} from DVC's drawing `"a"; "b"; "a" -> "b";`."""
    found: dict[str, set[str]] = {}
    for line in dot.splitlines():
        if line.startswith('"') and line.endswith('";'):
            *before, stage = line[1:-2].split('" -> "')
            found.setdefault(stage, set()).update(before)
    return found


def _reason(entries: list[Any]) -> str:
    """[{"changed deps": {"params.yaml": {"train": "modified"}}}] → "settings: train"."""
    parts: dict[str, list[str]] = {"settings": [], "code": [], "data": [], "own output changed": [], "": []}
    for entry in entries:
        if not isinstance(entry, dict):  # "changed command"
            parts[""].append(str(entry))
            continue
        for kind, changes in entry.items():
            for path, what in changes.items():
                if isinstance(what, dict):
                    parts["settings"] += what
                elif kind != "changed outs":
                    parts["code" if path.startswith(_CODE) else "data"].append(path)
                elif what == "modified":
                    parts["own output changed"].append(path)
                else:
                    return "its output is not here"
    return "; ".join(f"{name}: {_some(found)}".removeprefix(": ") for name, found in parts.items() if found)


def _some(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def _why(err: str) -> str:
    if "No module named dvc" in err:
        return "DVC is not installed for this Python: `make setup` installs everything into .venv"
    if "lock" in err.lower():
        return "DVC is at work here and lets nobody else look"
    last = (err.strip().splitlines() or ["it does not say why"])[-1]
    return f"`dvc status` failed: {redact(last.removeprefix('ERROR: '))}"
