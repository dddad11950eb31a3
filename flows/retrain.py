"""retrain: new data in, what is stale run again stage by stage, the gate's decision, results pushed.

    python -m flows.retrain                                          # here and now
    prefect deployment run retrain/retrain -p commit_to=retrain      # by a worker; prefect.yaml has the schedule

DVC says what is stale. Every stage is a task here and a Prefect flow run of its own; the tag `pipeline:…` links them.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from traceback import format_exc
from typing import Any

import httpx
from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL
from prefect.states import Failed
from prefect.utilities.urls import url_for

from flows.command import CommandError, run_command
from flows.decision import as_markdown
from flows.lock_commit import check_branch, commit_lock
from flows.pipeline import DVC, has_remote, imports, in_the_way, outcome, stale_now
from flows.stage import PIPELINE_ID, REPORTS, TASK, call, pipeline_tag, server_url
from tpo.errors import UserError, redact
from tpo.records import GateDecision

NETWORK: dict[str, Any] = TASK | {"retries": 2, "retry_delay_seconds": [10, 60]}
CHALLENGER_WAITS = "tpo.challenger.waits"


@dataclass(frozen=True)
class Ran:
    """What became of a stage."""

    stage: str
    outcome: str
    seconds: float


@task(name="get data", **NETWORK)
def get_data() -> Any:
    """What imports point at by now, and what `dvc.lock` and the `.dvc` files name and this machine lacks."""
    if imported := imports():
        _dvc("update", *imported)
    if has_remote():
        said: list[str] = []
        try:
            _dvc("pull", "--allow-missing", said=said)
        except CommandError:
            if advice := in_the_way(said):
                return Failed(message=advice)  # trying again would not help
            raise
    return None


@task(name="run stage", task_run_name="{stage}", **TASK)
def run_stage(stage: str) -> Any:
    """`dvc repro` of one stage, which is skipped if it has not changed after all.

    If it fails, its earlier output is what it was: DVC takes away what it has in its cache before a stage runs, so that
    is brought back. The rest stages replace at once or not at all (`persist` in dvc.yaml).
    """
    said: list[str] = []
    started_s = time.monotonic()
    try:
        _dvc("repro", "--single-item", stage, said=said)
    except CommandError as error:  # no traceback: what the stage said is in the log already
        if any(line.startswith("Running stage") for line in said):
            with suppress(CommandError):  # there may have been none
                _dvc("checkout", "--force", stage)  # over what it had written of the new one
        return Failed(message=str(error))
    return Ran(stage, outcome(said), time.monotonic() - started_s)


@task(name="push", **NETWORK)
def push_results() -> None:
    _dvc("push")


@flow(name="retrain")
def retrain(*, pull: bool = True, push: bool = True, commit_to: str | None = None) -> Any:
    """Run what is stale, and nothing if nothing is.

    Args:
        pull: get new data first: imports, and what the DVC remote holds, if there is one.
        push: send results to the DVC remote, if there is one.
        commit_to: the branch on which to commit `dvc.lock`; none = commit nothing.
    """
    # Stages tell what they do in lines of this run's log, whatever level Prefect's own messages are kept at.
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.INFO)
    ran: list[Ran] = []
    try:
        if commit_to:
            check_branch(commit_to)
        if pull:
            call(get_data)
        for stage in stale_now():
            _run(stage, ran)
        registered = any((one.stage, one.outcome) == ("register", "ran") for one in ran)
        decision = _decision() if registered else None
        if decision and decision.promote:
            _call_a_person()  # first: a remote that is away is no reason to leave a challenger unseen
        if push and has_remote():
            push_results()
        commit = commit_lock(commit_to, _message(ran, decision)) if commit_to else None
        _tell(ran, decision, f"\n\n`dvc.lock` is committed to `{commit_to}` as {commit[:12]}." if commit else "")
    except Exception as error:  # noqa: BLE001 - whatever it is, whoever looks in the morning finds it told
        if not isinstance(error, UserError):
            get_run_logger().error("%s", redact(format_exc()))
        create_markdown_artifact(key="tpo-retrain-failed", markdown=failure_told(ran, error))
        return Failed(message=told_of(error))
    return None


def _run(stage: str, ran: list[Ran]) -> None:
    started_s = time.monotonic()
    state = run_stage(stage, return_state=True)
    if not state.is_completed():
        ran.append(Ran(stage, "failed", time.monotonic() - started_s))
        raise UserError(state.message or f"{stage} failed")
    ran.append(state.result())


def _dvc(*arguments: str, said: list[str] | None = None) -> None:
    log = get_run_logger()

    def tell(line: str) -> None:
        log.info("%s", line)
        if said is not None:
            said.append(line)

    run_command([*DVC, *arguments], tell, _environment())


def _environment() -> Mapping[str, str]:
    """Of the stages: this Python, this Prefect server, and none of what Prefect tells the process of this run alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT__", "PREFECT_LOGGING"))}
    return kept | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "PREFECT_API_URL": os.environ.get("PREFECT_API_URL") or str(PREFECT_API_URL.value()),
        "PYTHONUNBUFFERED": "1",
        PIPELINE_ID: str(runtime.flow_run.id),
    }


def _decision() -> GateDecision:
    return GateDecision.model_validate_json((REPORTS / "gate.json").read_text(encoding="utf-8"))


def _tell(ran: Sequence[Ran], decision: GateDecision | None, committed: str) -> None:
    told = as_markdown(decision) if decision else "No model was registered; the champion stays."
    create_markdown_artifact(key="tpo-retrain", markdown=f"{_table(ran)}\n\n{told}{committed}")


def _call_a_person() -> None:
    """If the gate lets a challenger pass and a person is to decide: the deployment `promote` waits for this event."""
    registered = json.loads((REPORTS / "registry.json").read_text(encoding="utf-8"))
    if not registered["promoted"]:
        version = str(registered["version"])
        emit_event(CHALLENGER_WAITS, resource={"prefect.resource.id": "tpo.challenger", "version": version})


def failure_told(ran: Sequence[Ran], error: Exception) -> str:
    """The artifact of a run that failed, as Markdown."""
    if ran and ran[-1].outcome == "failed":
        what = f"The stage `{ran[-1].stage}` failed, and no later one ran."
    else:
        what = "No stage failed; what comes before or after them did."
    if all(one.stage != "register" for one in ran):
        what += " The champion is untouched."
    said = indent(told_of(error), "    ")  # a fence would end at the first one in what a program said
    return f"{what}\n\n{said}\n\nMend that and start it again: it goes on where this run stopped.\n\n{_table(ran)}"


def told_of(error: Exception) -> str:
    """An error for people to read; only ours say by themselves what they are about."""
    return redact(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def _table(ran: Sequence[Ran]) -> str:
    if not ran:
        return "Nothing ran."
    links = _stage_runs()
    rows = [f"| {one.stage} | {one.outcome} | {one.seconds:.1f} | {links.get(one.stage, '')} |" for one in ran]
    return "\n".join(["| stage | | seconds | flow run |", "|---|---|---|---|", *rows])


def _stage_runs() -> dict[str, str]:
    """Links to the flow runs of this run's stages, by the stage; none if Prefect is too busy to tell."""
    own = FlowRunFilter(tags=FlowRunFilterTags(all_=[pipeline_tag(str(runtime.flow_run.id))]))
    try:
        with get_client(sync_client=True) as client:
            names = {found.id: found.name for found in client.read_flows(flow_run_filter=own)}
            runs = client.read_flow_runs(flow_run_filter=own)
    except httpx.HTTPError:
        return {}
    return {names[run.flow_id]: f"[{run.name}]({url_for('flow-run', run.id)})" for run in runs}


def _message(ran: Sequence[Ran], decision: GateDecision | None) -> str:
    stages = ", ".join(one.stage for one in ran if one.outcome == "ran") or "nothing"
    told = f"\n\n{decision.summary}" if decision else ""
    return f"retrain: {stages} ran{told}\n\nPrefect flow run {runtime.flow_run.id}"


if __name__ == "__main__":
    try:
        os.environ["PREFECT_API_URL"] = server_url()
    except UserError as error:
        sys.exit(f"retrain: {error}")
    state: Any = retrain(return_state=True)
    if not state.is_completed():
        sys.exit(f"retrain: {state.message}")
