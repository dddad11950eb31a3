"""Moving `champion`: promotion, rollback, and who did it when and why.

    promote("tpo-demo", "3", who="alice", reason="passed the gate")
    rollback("tpo-demo", who="bob", reason="answers in Latin since this morning")

`champion` is the promoted version, `previous` the one before it; a rollback makes them change places, so a second one
goes forward again. Each movement is an MLflow run in the experiment "NAME promotions", begun before an alias moves and
finished afterwards. One that was killed in between is seen there as unfinished, and settled by whoever moves next: it
is finished if `champion` had moved, else undone.
"""

import logging
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from tpo.errors import UserError
from tpo.records import GateDecision, Record
from tpo.registry.champion import CHAMPION, standing
from tpo.registry.evidence import Proof, Registry
from tpo.registry.gate import MEASURE_AGAIN
from tpo.registry.lock import promotion_lock
from tpo.registry.package import DECISION, versions
from tpo.registry.proof import check_files, prove
from tpo.registry.tracking import connect, provenance, readable_errors, redact

PREVIOUS = "previous"
_MOVED, _BROKEN_OFF = "FINISHED", "KILLED"  # of MLflow's statuses of a run
_STATES = {"RUNNING": "unfinished", _MOVED: "done", _BROKEN_OFF: "broken off"}
_log = logging.getLogger(__name__)


class Promotion(Record):
    """What became of the aliases."""

    promoted: bool
    version: str
    champion: str | None
    previous: str | None
    reason: str
    who: str | None = None
    decision_id: str | None = None
    forced: bool = False


class Movement(Record):
    """One entry of the history: `champion` and `previous` are what they were before."""

    run_id: str
    started_at: str
    state: str
    action: Literal["promote", "rollback"]
    to: str
    champion: str | None
    previous: str | None
    who: str
    reason: str
    decision_id: str | None
    forced: bool


class _Aliases(Record):
    champion: str | None
    previous: str | None


def promote(
    name: str,
    version: str,
    *,
    who: str,
    reason: str,
    decision: GateDecision | None = None,
    proof: Proof | None = None,
    force: bool = False,
) -> Promotion:
    """Make a version the champion, and the champion `previous`.

    Args:
        who: does it.
        decision: of the gate; none = the one kept on the version.
        proof: of this version, made just now; none = it is made here, which loads the model.
        force: whatever the gate says. It is said aloud and recorded. Files that are not those that were registered, and
            models that do not answer, cannot be forced.

    Returns:
        What the aliases are now; nothing is moved or recorded if the version is champion already.

    Raises:
        UserError: refused, with the reason; nothing was moved.
    """
    connect()
    _check_reason(reason)
    with readable_errors(f"promote version {version} of {name}"):
        tags = _tags_of(name, version)
        decision = decision or _kept(tags)
        _settle(name, who)
        before = _aliases(name)
        told = {"who": who, "reason": reason, "decision_id": decision.id if decision else None}
        if before.champion == version:
            return Promotion(promoted=True, version=version, **before.model_dump(), **told)
        problem = _refusal(version, tags, decision, _candidate(name, before.champion))
        if problem and not force:
            raise UserError(f"{problem} Nothing was moved.")
        if proof is None or proof.version != version:
            proof = prove(name, version)
        if not proof.is_intact or proof.answer is None:
            raise UserError(f"Version {version} of {name!r} cannot be champion: {proof.problem}. Nothing was moved.")
        if problem:
            _log.warning("FORCED: %s moves champion of %s to version %s. %s", who, name, version, problem)
        after = _Aliases(champion=version, previous=before.champion or before.previous)
        _move(name, "promote", before, after, told, forced=bool(problem))
    return Promotion(promoted=True, version=version, forced=bool(problem), **after.model_dump(), **told)


def rollback(name: str, *, who: str, reason: str) -> Promotion:
    """Make `previous` the champion again, and the champion `previous`.

    It is not asked again, so that this is quick wherever it is done: it answered when it was promoted, and its files
    and its base are still the same.

    Raises:
        UserError: there is no previous champion, or it is not what it was; nothing was moved.
    """
    connect()
    _check_reason(reason)
    told = {"who": who, "reason": reason}
    with readable_errors(f"roll {name} back"):
        settled = _settle(name, who)
        before = _aliases(name)
        if settled is not None and settled.action == "rollback" and before.champion == settled.to:
            return Promotion(promoted=True, version=settled.to, **before.model_dump(), **told)
        if before.previous is None:
            raise UserError(f"{name!r} has had no champion before the present one, so there is nothing to go back to.")
        check_files(name, before.previous)
        after = _Aliases(champion=before.previous, previous=before.champion)
        _move(name, "rollback", before, after, told, forced=False)
    return Promotion(promoted=True, version=before.previous, **after.model_dump(), **told)


def stay(name: str, version: str, reason: str) -> Promotion:
    """What the aliases are when a version is not promoted.

    Raises:
        UserError: the registry cannot be asked.
    """
    with readable_errors(f"tell the aliases of {name}"):
        now = _aliases(name)
    return Promotion(
        promoted=now.champion == version, version=version, champion=now.champion, previous=now.previous, reason=reason
    )


def history(name: str) -> list[Movement]:
    """All movements of a registered model's aliases, newest first."""
    import mlflow

    connect()
    client = mlflow.MlflowClient()
    with readable_errors(f"give the promotions of {name}"):
        experiment = client.get_experiment_by_name(_experiment(name))
        runs = client.search_runs([experiment.experiment_id], order_by=["start_time DESC"]) if experiment else []
    return [_movement(run) for run in runs if "action" in run.data.tags]  # anyone may log a run there by hand


def registry_state(name: str) -> Registry:
    """The present champion, and whom a rollback took from there without anybody putting it back since."""
    candidates = {one.version: one.tags.get("candidate_id", "") for one in versions(name)}
    decided: dict[str, str | None] = {}  # the newest word on each
    for one in history(name):
        if one.state == "done":
            decided.setdefault(candidates.get(one.to, ""), None)
            why = f"{one.who}, {one.started_at}: {one.reason}" if one.action == "rollback" else None
            decided.setdefault(candidates.get(one.champion or "", ""), why)
    taken_back = {candidate: why for candidate, why in decided.items() if candidate and why is not None}
    return Registry(champion=standing(name), rolled_back=taken_back)


def kept_decision(name: str, version: str) -> GateDecision | None:
    """What the gate said about a version; none = it was not asked.

    Raises:
        UserError: there is no such version, or its tag was changed into something else.
    """
    connect()
    with readable_errors(f"find version {version} of {name}"):
        return _kept(_tags_of(name, version))


def objection(name: str, version: str) -> str:
    """Why `promote` would not move the alias, by what the gate said; empty = it would. Files are not looked at.

    Raises:
        UserError: there is no such version.
    """
    connect()
    with readable_errors(f"find version {version} of {name}"):
        tags = _tags_of(name, version)
        before = _aliases(name)
        if before.champion == version:
            return f"Version {version} is champion already."
        return _refusal(version, tags, _kept(tags), _candidate(name, before.champion))


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise UserError("A reason is needed, for whoever looks at the history: --reason 'why'.")


def _tags_of(name: str, version: str) -> dict[str, str]:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return dict(mlflow.MlflowClient().get_model_version(name, version).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"The registered model {name!r} has no version {version}. See `tpo registry`.") from error


def _kept(tags: dict[str, str]) -> GateDecision | None:
    """The gate's decision that is kept on a version.

    Raises:
        UserError: it was changed into something else.
    """
    if DECISION not in tags:
        return None
    try:
        return GateDecision.model_validate_json(tags[DECISION])
    except ValidationError as error:
        raise UserError(f"The tag {DECISION} of this version is no decision of the gate: it was changed.") from error


def _candidate(name: str, version: str | None) -> str | None:
    return None if version is None else _tags_of(name, version).get("candidate_id", "")


def _refusal(version: str, tags: dict[str, str], decision: GateDecision | None, champion: str | None) -> str:
    """Why the gate's decision does not let this version be champion; empty = it does."""
    if decision is None:
        return f"The gate has not decided about version {version}: `dvc repro register` asks it."
    if not decision.promote:
        return f"Version {version}. {decision.summary}"
    if not decision.candidate_id or decision.candidate_id != tags.get("candidate_id"):
        return f"The decision is about {decision.candidate_id or 'an unknown model'}, which version {version} is not."
    if decision.champion_id != champion:
        return (
            f"The decision is stale: the champion is another one by now ({champion or 'none'}) than the gate held "
            f"version {version} against ({decision.champion_id or 'none'}). {MEASURE_AGAIN[:1].upper()}"
            f"{MEASURE_AGAIN[1:]}."
        )
    return ""


def _aliases(name: str) -> _Aliases:
    import mlflow

    held = mlflow.MlflowClient().get_registered_model(name).aliases
    champion, previous = (str(held[alias]) if alias in held else None for alias in (CHAMPION, PREVIOUS))
    return _Aliases(champion=champion, previous=previous)


def _move(name: str, action: str, before: _Aliases, after: _Aliases, told: dict[str, Any], *, forced: bool) -> None:
    """Move both aliases, as one entry of the history.

    Raises:
        UserError: someone else is at it, or was since `before`.
    """
    import mlflow

    client = mlflow.MlflowClient()
    with promotion_lock(name, told["who"]) as lock:
        now = _aliases(name)
        if now != before or _unfinished(name) is not None:
            raise UserError(
                f"Someone moved the aliases of {name!r} meanwhile: champion was {before.champion or 'none'} and is "
                f"{now.champion or 'none'}. Nothing was moved. Look at `tpo registry` and decide again."
            )
        facts = {"action": action, "to": after.champion, "from": before.champion, "previous": before.previous}
        facts |= {"forced": str(forced).lower(), **told, **provenance()}
        run_id = client.create_run(
            _experiment_id(name),
            run_name=f"{action} {after.champion}",
            tags={key: redact(value) for key, value in facts.items() if value is not None},
        ).info.run_id
        lock.check()
        _set(name, PREVIOUS, after.previous)
        lock.check()
        _set(name, CHAMPION, after.champion)
        _finish(name, _movement(client.get_run(run_id)))


def _finish(name: str, moved: Movement) -> None:
    """Write down that `champion` has moved: on the version, if it was forced, and in the history."""
    import mlflow

    client = mlflow.MlflowClient()
    if moved.forced:
        client.set_model_version_tag(name, moved.to, "forced", f"{moved.who}: {moved.reason}")
    client.set_terminated(moved.run_id, _MOVED)


def _set(name: str, alias: str, version: str | None) -> None:
    import mlflow

    if version is None:
        mlflow.MlflowClient().delete_registered_model_alias(name, alias)
    else:
        mlflow.MlflowClient().set_registered_model_alias(name, alias, version)


def _unfinished(name: str) -> Movement | None:
    return next((one for one in history(name) if one.state == "unfinished"), None)


def _settle(name: str, who: str) -> Movement | None:
    """See to a movement that was killed in between; the movement, if there was one.

    Raises:
        UserError: it was not killed but is under way.
    """
    import mlflow

    if _unfinished(name) is None:
        return None
    with promotion_lock(name, who) as lock:
        left = _unfinished(name)
        if left is None:
            return None
        champion = _aliases(name).champion
        if champion == left.to:
            _finish(name, left)
            return left
        if champion == left.champion:
            lock.check()
            _set(name, PREVIOUS, left.previous)
        mlflow.MlflowClient().set_terminated(left.run_id, _BROKEN_OFF)
        return left


def _experiment(name: str) -> str:
    return f"{name} promotions"


def _experiment_id(name: str) -> str:
    import mlflow

    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(_experiment(name))
    return str(found.experiment_id if found else client.create_experiment(_experiment(name)))


def _movement(run: Any) -> Movement:
    tags = run.data.tags
    return Movement(
        run_id=run.info.run_id,
        started_at=datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds"),
        state=_STATES.get(run.info.status, run.info.status),
        action=tags["action"],
        to=tags["to"],
        champion=tags.get("from"),
        previous=tags.get("previous"),
        who=tags["who"],
        reason=tags["reason"],
        decision_id=tags.get("decision_id"),
        forced=tags["forced"] == "true",
    )
