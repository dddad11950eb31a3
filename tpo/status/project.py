"""A project at a glance: what is there, what runs, what was decided, what is stale, and what to do next.

    status = look(Path())                    # everything that disk and processes tell, at once
    stale = find_stale(Path(), status)       # seconds
    print(to_text(status), stale_text(stale), next_step(status, stale))

Nothing here raises because of what it finds in a project: a damaged file is what a status is asked for.
"""

import json
from pathlib import Path
from textwrap import wrap

from pydantic import Field, ValidationError

from tpo.errors import UserError
from tpo.params import Params, load_params
from tpo.records import GateDecision, Record
from tpo.status.registered import Registered, registered
from tpo.status.running import Running, Services, prefect_runs, running
from tpo.status.stages import StageStatus, stage_statuses
from tpo.status.stale import Stale, ask_dvc

GATE, REPORT = Path("reports/gate.json"), Path("reports/index.html")
_WIDTH, _INDENT, _NAME = 80, 11, 9


class Decision(Record):
    """The gate's last, as `reports/gate.json` has it."""

    promote: bool | None = Field(None, description="none = it cannot be read")
    decided_at: str = ""
    summary: str


class ProjectStatus(Record):
    params_problem: str
    base: str
    promoted_by: str = Field(description="register.promotion: gate or person")
    stages: tuple[StageStatus, ...]
    registered: Registered | None
    decision: Decision | None
    running: tuple[Running, ...]
    services: tuple[str, ...]
    prefect: tuple[str, ...] = Field(description="flow runs that its server counts as under way, of any project")
    prefect_problem: str = ""
    has_report: bool

    @property
    def damaged(self) -> list[StageStatus]:
        return [stage for stage in self.stages if stage.state == "damaged"]


def check_project(root: Path) -> None:
    """Raises:
    UserError: `root` is no project of this kind.
    """
    if not (root / "dvc.yaml").is_file() or not (root / "params.yaml").is_file():
        raise UserError(f"{root.absolute()} is no tpo project (no dvc.yaml and params.yaml). Run from its root folder.")


def look(root: Path) -> ProjectStatus:
    """All but what is stale."""
    services = Services(root)
    params, problem = _params(root)
    runs, prefect_problem = prefect_runs()
    return ProjectStatus(
        params_problem=problem,
        base=params.model.base if params else "",
        promoted_by=params.register_.promotion if params else "",
        stages=stage_statuses(root),
        registered=registered(params.register_.name, root) if params else None,
        decision=_decision(root / GATE),
        running=running(root),
        services=services.told(),
        prefect=runs,
        prefect_problem=prefect_problem,
        has_report=(root / REPORT).is_file(),
    )


def _params(root: Path) -> tuple[Params | None, str]:
    try:
        return load_params(root / "params.yaml"), ""
    except (UserError, OSError) as error:
        return None, str(error)


def _decision(file: Path) -> Decision | None:
    try:
        found = GateDecision.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError):
        return Decision(summary=f"{file} is damaged; `dvc repro -f register` writes it again")
    return Decision(promote=found.promote, decided_at=found.decided_at, summary=found.summary)


def find_stale(root: Path, status: ProjectStatus) -> Stale:
    """What DVC would run again. It is not asked while something runs, which its lock could stop."""
    if status.running:
        return Stale(problem=f"DVC is not asked while something runs ({status.running[0].what})")
    return ask_dvc(root)


def next_step(status: ProjectStatus, stale: Stale) -> str:
    """The one thing to do now."""
    ran = [stage for stage in status.stages if stage.state != "not run"]
    known = status.registered
    waits = known is not None and known.challenger is not None and known.challenger != known.champion
    if status.params_problem:
        return "mend params.yaml; `tpo use` lists recipes, `git diff params.yaml` shows what you changed"
    if status.running:
        return f"wait for {status.running[0].what}; look again with `tpo status`"
    if status.damaged:
        return f"`dvc repro` makes {status.damaged[0].name} again, and what comes after it"
    if not ran:
        return "`make demo` runs the shipped demo; for your own videos and model see README, then `dvc repro`"
    if stale.stages:
        return "`dvc repro` runs what is stale; kill it at any time, it goes on where it was"
    if stale.problem:
        return "see why DVC does not answer: `dvc status`"
    if waits and status.decision is not None and status.decision.promote and status.promoted_by == "person":
        return (
            f'`tpo promote --dry-run` shows the rules, `tpo promote {known and known.challenger} --reason "…"` decides'
        )
    if status.decision is not None and status.decision.promote is False:
        return f"{REPORT} and `tpo promote --dry-run` show why it was refused"
    if known is not None and known.champion:
        return f'look at {REPORT}, or ask the champion: tpo ask VIDEO "QUESTION"'
    return f"look at {REPORT}" if status.has_report else "`dvc repro`"


def to_text(status: ProjectStatus) -> str:
    """For a terminal of 80 columns; what is stale comes apart."""
    lines = [] if not status.params_problem else _block("params", status.params_problem)
    if all(stage.state == "not run" for stage in status.stages):
        lines += _block("Stages", "none has run yet")
    else:
        lines += _block("Stages", *map(_stage_text, status.stages), indent=_NAME + 1)
    if status.base:
        lines += _block("Base model", status.base)
    lines += _block("Registry", _registry_text(status.registered))
    if status.decision is None:
        lines += _block("Gate", "has not decided yet")
    else:
        when = f"{status.decision.decided_at[:16].replace('T', ' ')} UTC: " if status.decision.decided_at else ""
        lines += _block("Gate", when + status.decision.summary)
    lines += _block("Running", *(map(_running_text, status.running) if status.running else ["nothing in this folder"]))
    if status.services:
        lines += _block("Servers", *status.services)
    if told := [*status.prefect, *filter(None, [status.prefect_problem])]:
        lines += _block("Prefect", *told)
    return "\n".join(lines)


def stale_text(stale: Stale) -> str:
    if stale.problem:
        return "\n".join(_block("Stale", f"not known: {stale.problem}"))
    by_reason: dict[str, list[str]] = {}
    for stage, reason in stale.stages.items():
        by_reason.setdefault(reason, []).append(stage)
    told = [
        f"{stages[0]:<{_NAME}} {reason}" if len(stages) == 1 else f"{', '.join(stages)}: {reason}"
        for reason, stages in by_reason.items()
    ]
    return "\n".join(_block("Stale", *(told or ["nothing"]), indent=_NAME + 1))


def next_text(step: str) -> str:
    return "\n".join(_block("Next", step))


def _stage_text(stage: StageStatus) -> str:
    if stage.state == "damaged":
        return f"{stage.name:<{_NAME}} DAMAGED: {stage.problem}"
    told = {"not run": "has not run", "begun": f"begun: {stage.kept}"}.get(stage.state)
    if told is None:
        told = f"{stage.items_out:,} of {stage.items_in:,} {stage.item}"
        reasons = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in stage.set_aside.items() if count]
        told += f"; set aside: {', '.join(reasons)}" if reasons else ""
        told += f"; begun again: {stage.kept}" if stage.kept else ""
    return f"{stage.name:<{_NAME}} {told}"


def _registry_text(found: Registered | None) -> str:
    if found is None:
        return "not looked up without params.yaml"
    if found.problem:
        return found.problem
    if not found.versions:
        return f"{found.name}: nothing is registered yet"
    told = f"{found.name}, newest version {found.versions[0]}; champion {found.champion or 'none'}"
    return told + (f", challenger {found.challenger}" if found.challenger != found.champion else "")


def _running_text(one: Running) -> str:
    told = f"{one.what}, pid {one.pid}, for {_duration(one.seconds)}"
    if one.done is None or not one.total:
        return told
    where = f"{one.doing}: " if one.doing != one.what else ""
    told += f": {where}{one.done:,} of {one.total:,} {one.unit}"
    return told + (f", {_duration(one.left_s)} left" if one.left_s is not None else "")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def _block(title: str, *lines: str, indent: int = 2) -> list[str]:
    """Lines behind a title, wrapped; the second half of a long one is indented so much further."""
    found: list[str] = []
    for paragraph in "\n".join(lines).splitlines():
        found += wrap(
            paragraph, _WIDTH - _INDENT, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
        ) or [""]
    first, *rest = found
    return [f"{title:<{_INDENT}}{first}".rstrip(), *(f"{'':<{_INDENT}}{line}" for line in rest)]
