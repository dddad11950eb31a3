"""What runs in a project's folder on this machine: stages, training, DVC, commands, servers; and what Prefect runs.

A process says how far it is in `.tpo/progress` (`tpo.progress`). Which servers run is what `flows.services` says.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
from pydantic import Field

from tpo.progress import FOLDER
from tpo.records import Record
from tpo.registry.tracking import redact

_TIMEOUT_S = 2
# Of a stage or the pipeline; processes that they start themselves are told with them.
_MODULES = {"tpo.demo.build": "world", "prefect.engine": "a flow run", "prefect.flow_engine": "a flow run"}


class Running(Record):
    what: str
    pid: int
    seconds: float = Field(description="since it was started")
    doing: str = Field("", description="which of its bars is shown")
    done: int | None = None
    total: int | None = None
    unit: str = ""
    left_s: float | None = Field(None, description="estimated from what it has done so far")


def running(root: Path) -> tuple[Running, ...]:
    """Processes whose folder is `root`, the oldest first; never raises."""
    found: dict[int, Running] = {}
    for process in psutil.process_iter():
        try:
            if (what := _what(process.cmdline())) and _is_in(process, root):
                found[process.pid] = Running(what=what, pid=process.pid, seconds=_age_s(process))
        except psutil.Error:  # it ended, or is somebody else's
            continue
    for file in sorted((root / FOLDER).glob("*.json")):
        # One that a kill left is no process's any more, or of one that is younger.
        with suppress(psutil.Error, OSError, ValueError, TypeError, KeyError):
            process = psutil.Process(int(file.stem))
            if process.create_time() <= file.stat().st_mtime:
                bar = _progress(json.loads(file.read_text(encoding="utf-8")))
                # `accelerate` starts training in processes of its own: the bar is the stage's.
                family = [process.pid, *(parent.pid for parent in process.parents())]
                pid = next((one for one in family if one in found), process.pid)
                owner = found.get(pid) or Running(what=bar["doing"], pid=pid, seconds=_age_s(process))
                found[pid] = owner.model_copy(update=bar)
    return tuple(sorted(found.values(), key=lambda one: -one.seconds))


def _age_s(process: psutil.Process) -> float:
    return time.time() - float(process.create_time())


def _what(command: Sequence[str]) -> str | None:
    """`python -m flows.train` → "train", `dvc repro` → "dvc repro"."""
    arguments = list(command[1:])
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        module = arguments[1]
        if module.startswith("flows.") and module != "flows.services":
            return module.removeprefix("flows.")
        if module == "dvc":
            return f"dvc {arguments[2]}" if arguments[2:3] == ["repro"] else None
        return _MODULES.get(module)
    if arguments and Path(arguments[0]).name == "dvc" and arguments[1:2] == ["repro"]:
        return "dvc repro"
    return None


def _is_in(process: psutil.Process, root: Path) -> bool:
    return Path(process.cwd()) == root.resolve()


def _progress(state: dict[str, Any]) -> dict[str, Any]:
    """What `tpo.progress` wrote down, as fields of `Running`."""
    done, total, here = state["n"], state["total"], state["n"] - state["initial"]
    left_s = (total - done) * state["elapsed"] / here if here > 0 else None
    return {"doing": state["prefix"], "done": done, "total": total, "unit": state["unit"].strip(), "left_s": left_s}


def services(root: Path) -> tuple[str, ...]:
    """A line for each server and worker that `make up` started, from a process: `tpo` knows nothing of flows."""
    if not (root / ".tpo/services").is_dir():
        return ()
    command = [sys.executable, "-m", "flows.services", "status"]
    told = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = [line for line in told.stdout.splitlines() if not line.startswith("export ")]
    return () if any(line.startswith("Nothing runs") for line in lines) else tuple(lines)


def prefect_runs() -> tuple[tuple[str, ...], str]:
    """Flow runs that the server at `PREFECT_API_URL` counts as under way, and why that is not known."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return (), ""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}, "limit": 10}
    body = json.dumps(wanted).encode()
    request = Request(f"{url}/flow_runs/filter", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            runs = json.load(answer)
        return tuple(f"{run['name']} is {run['state']['name'].lower()}" for run in runs), ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return (), f"{redact(url)} does not answer: {redact(str(error))}"
