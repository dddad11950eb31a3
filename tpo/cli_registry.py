"""The registry for people: who is champion, who put it there and why, and how to change that.

tpo registry
tpo promote 3 --reason "read twenty answers, they are better"
tpo rollback --reason "answers in Latin since this morning"
tpo reproduce 3
"""

import getpass
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tpo.errors import UserError

if TYPE_CHECKING:
    from tpo.records import GateDecision
    from tpo.registry.package import RegisteredVersion
    from tpo.registry.promotion import Promotion

Reason = Annotated[str, typer.Option(help="why; kept in the history")]


def add_to(app: typer.Typer) -> None:
    """Make the commands of this file commands of `tpo`."""
    for command in (registry, promote, rollback, reproduce):
        app.command()(command)


def registry(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="all of it, for programs")] = False,
) -> None:
    """Versions, newest first: aliases, what the gate said, where they come from; and every promotion and rollback."""
    import json

    from tpo.registry.promotion import history

    name = _name()
    found, moves = _versions(name), history(name)
    if as_json:
        told = {"versions": [one.model_dump() for one in found], "history": [one.model_dump() for one in moves]}
        typer.echo(json.dumps(told, indent=2))
        return
    for version in found:
        typer.echo(f"{name}/{version.version}  {', '.join(version.aliases) or 'no alias'}")
        for line in _about(version):
            typer.echo(f"    {line}")
    typer.echo("\nPromotions and rollbacks" if moves else "\nNo alias `champion` was moved yet.")
    for move in moves:
        change = f"{move.champion or 'none'} → {move.to}"
        forced = ", FORCED" if move.forced else ""
        state = "" if move.state == "done" else f" ({move.state})"
        typer.echo(f"    {move.started_at}  {move.action} {change}{forced}{state} by {move.who}: {move.reason}")


def promote(
    version: Annotated[str | None, typer.Argument(help="default: the challenger")] = None,
    *,
    reason: Reason = "",
    force: Annotated[bool, typer.Option("--force", help="whatever the gate says; it is recorded as forced")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the gate's rules, and move nothing")] = False,
) -> None:
    """Make a version the champion, if the gate allows it; the champion becomes `previous`."""
    from tpo.registry.promotion import kept_decision
    from tpo.registry.promotion import promote as move

    name = _name()
    chosen = version or _challenger(name)
    if dry_run:
        _show_rules(name, chosen, kept_decision(name, chosen), force=force)
        return
    _tell(name, move(name, chosen, who=who(), reason=reason, force=force))


def rollback(reason: Reason = "") -> None:
    """Make the previous champion champion again, in one step; a second rollback goes forward again."""
    from tpo.registry.promotion import rollback as move

    name = _name()
    _tell(name, move(name, who=who(), reason=reason))


def reproduce(
    version: Annotated[str, typer.Argument(help="number of a registered version")],
    into: Annotated[Path | None, typer.Option(help="folder to make; default: beside this one")] = None,
) -> None:
    """Check out code and data that a version was made from, in a git worktree of its own."""
    from tpo.registry.reproduce import reproduce as check_out

    name = _name()
    folder = into or Path.cwd().parent / f"{name}-{version}"
    found = check_out(name, version, folder)
    typer.echo(f"{found.folder}: {name}/{version}, commit {found.commit[:12]}")
    for note in found.notes:
        typer.echo(note)
    typer.echo(f"dvc status finds:\n{found.status}" if found.status else "dvc status finds nothing changed.")


def who() -> str:
    """Git's user.name, or who is logged in."""
    found = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or getpass.getuser()


def _name() -> str:
    from tpo.params import load_params

    return load_params().register_.name


def _versions(name: str) -> "list[RegisteredVersion]":
    from tpo.registry.package import versions

    found = versions(name)
    if not found:
        raise UserError(f"No model named {name!r} is registered yet. `dvc repro` registers one.")
    return found


def _challenger(name: str) -> str:
    from tpo.registry.package import CHALLENGER

    found = next((version.version for version in _versions(name) if CHALLENGER in version.aliases), None)
    if found is None:
        raise UserError(f"No version of {name!r} is challenger. Name one: `tpo registry` lists them.")
    return found


def _about(version: "RegisteredVersion") -> list[str]:
    """Gate, model and lineage, a line each; what is not known is left out."""
    tags = version.tags
    edited = ", with edits" if tags.get("git_edited") == "true" else ""
    data = ", ".join(f"{name.removeprefix('data:')} {tags[name][:12]}" for name in tags if name.startswith("data:"))
    lines = {
        "gate": tags.get("gate_summary", "not decided"),
        "forced by": tags.get("forced"),
        "model": f"{tags.get('kind', '')} {tags.get('candidate_id', '')} of {tags.get('base', '')}".strip(),
        "code": f"{tags['git_sha'][:12]}{edited}" if "git_sha" in tags else None,
        "data": data or None,
        "dvc.lock": tags.get("dvc_lock_sha256", "")[:12] or None,
        "pairs": tags.get("num_training_pairs"),
        "runs": ", ".join(f"{what} {tags[key]}" for what, key in _RUNS.items() if key in tags) or None,
        "pipeline": tags.get("pipeline_id"),
    }
    return [f"{what:<10} {text}" for what, text in lines.items() if text]


_RUNS = {"train": "train_run_id", "evaluate": "evaluate_run_id"}


def _show_rules(name: str, version: str, decision: "GateDecision | None", *, force: bool) -> None:
    from tpo.registry.promotion import objection

    if decision is not None:
        for rule in decision.rules:
            typer.echo(f"{'passed' if rule.passed else 'FAILED':<7} {rule.name:<34} {rule.reason}")
        typer.echo(f"\nDecision {decision.id} of {decision.decided_at}: {decision.summary}")
    problem = objection(name, version)
    if not problem:
        typer.echo(f"`tpo promote {version}` would make {name}/{version} champion. Nothing was moved.")
    elif force:
        typer.echo(f"--force would make {name}/{version} champion in spite of this: {problem} Nothing was moved.")
    else:
        typer.echo(f"`tpo promote {version}` would refuse: {problem} Nothing was moved.")


def _tell(name: str, promotion: "Promotion") -> None:
    typer.echo(f"{name}/{promotion.champion} is champion, previous is {promotion.previous or 'none'}.")
