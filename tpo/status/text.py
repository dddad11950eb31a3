"""A project's status in words, for a terminal of 80 columns."""

from textwrap import wrap

from tpo.status.project import ProjectStatus
from tpo.status.registered import Registered
from tpo.status.running import Running
from tpo.status.stages import StageStatus
from tpo.status.stale import Stale

_WIDTH, _INDENT, _NAME = 80, 11, 9


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
        lines += _block("Gate", status.decision_problem or "has not decided yet")
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
    waits = found.challenger not in (None, found.champion)
    return told + (f", challenger {found.challenger}" if waits else "")


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
