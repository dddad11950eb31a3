"""The registry for people: who is champion, who put it there and why, and how to change that.

tpo registry
tpo promote 3 --reason "read twenty answers, they are better"
tpo rollback --reason "answers in Latin since this morning"
tpo reproduce 3
"""

import getpass
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tpo.errors import UserError

if TYPE_CHECKING:
    from tpo.registry.package import RegisteredVersion
    from tpo.registry.promotion import Promotion


def _numbers(incomplete: str) -> list[str]:
    """Versions that begin so, for the shell; nothing if they cannot be looked up at once."""
    from tpo.params import load_params
    from tpo.status.registered import registered

    try:
        name = load_params().register_.name
    except UserError:
        return []
    return [number for number in registered(name, Path()).versions if number.startswith(incomplete)]


Reason = Annotated[str, typer.Option(help="why; kept in the history")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, for programs")]


def add_to(app: typer.Typer) -> None:
    """Make the commands of this file commands of `tpo`."""
    app.command(epilog="Example: tpo registry --json")(registry)
    app.command(epilog='Example: tpo promote 3 --reason "read twenty answers, they are better"')(promote)
    app.command(epilog='Example: tpo rollback --reason "answers in Latin since this morning"')(rollback)
    app.command(epilog="Example: tpo reproduce 3 --into ../version-3")(reproduce)


def registry(*, as_json: AsJson = False) -> None:
    """Versions, newest first: aliases, what the gate said, where they come from; and every promotion and rollback."""
    from tpo.progress import waiting

    name = _name()
    with waiting("asking the registry"):
        from tpo.registry.promotion import history

        found, moves = _versions(name), history(name)
    if as_json:
        _echo_json({"versions": [one.model_dump() for one in found], "history": [one.model_dump() for one in moves]})
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
    version: Annotated[str | None, typer.Argument(help="default: the challenger", autocompletion=_numbers)] = None,
    *,
    reason: Reason = "",
    force: Annotated[bool, typer.Option("--force", help="whatever the gate says; it is recorded as forced")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the gate's rules, and move nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, if the gate allows it; the champion becomes `previous`."""
    from tpo.progress import waiting

    name = _name()
    with waiting("asking the registry"):
        from tpo.registry.promotion import promote as move

        chosen = version or _challenger(name)
    if dry_run:
        _show_rules(name, chosen, force=force, as_json=as_json)
        return
    with waiting("asking the model, which must answer"):
        moved = move(name, chosen, who=who(), reason=reason, force=force)
    _tell(name, moved, as_json=as_json)


def rollback(reason: Reason = "", *, as_json: AsJson = False) -> None:
    """Make the previous champion champion again, in one step; a second rollback goes forward again."""
    from tpo.progress import waiting

    name = _name()
    with waiting("asking the registry for the files of the champion before"):
        from tpo.registry.promotion import rollback as move

        moved = move(name, who=who(), reason=reason)
    _tell(name, moved, as_json=as_json)


def reproduce(
    version: Annotated[str, typer.Argument(help="number of a registered version", autocompletion=_numbers)],
    into: Annotated[Path | None, typer.Option(help="folder to make; default: beside this one")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check out code and data that a version was made from, in a git worktree of its own."""
    from tpo.progress import waiting

    name = _name()
    folder = into or Path.cwd().parent / f"{name}-{version}"
    with waiting("checking out code and data"):
        from tpo.registry.reproduce import reproduce as check_out

        found = check_out(name, version, folder)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    typer.echo(f"{found.folder}: {name}/{version}, commit {found.commit[:12]}")
    for note in found.notes:
        typer.echo(note)
    if not found.status:
        typer.echo("dvc status finds nothing changed.")
        return
    typer.echo(f"dvc status finds:\n{found.status}\n")
    typer.echo("The stage register, which was under way, and reports that DVC does not cache are named in any case.")


def who() -> str:
    """Git's user.name, or who is logged in."""
    found = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or getpass.getuser()


def _name() -> str:
    """The registered model's. Where nothing is registered, or the registry is away, that is said at once.

    MLflow itself would make a database to find nothing in, and try to reach a server for minutes.
    """
    from tpo.params import load_params
    from tpo.status.registered import registered

    found = registered(load_params().register_.name, Path())
    if found.state == "broken":
        raise UserError(f"{found.problem}. Is MLFLOW_TRACKING_URI right, and does the server run?")
    if found.state == "read" and not found.versions:
        raise UserError(f"No model named {found.name!r} is registered yet. `dvc repro` registers one.")
    return found.name


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


def _show_rules(name: str, version: str, *, force: bool, as_json: bool) -> None:
    from tpo.registry.promotion import kept_decision, objection

    decision, problem = kept_decision(name, version), objection(name, version)
    if as_json:
        kept = None if decision is None else decision.model_dump(mode="json")
        _echo_json({"version": version, "decision": kept, "objection": problem or None})
        return
    if decision is not None:
        for rule in decision.rules:
            typer.echo(f"{'passed' if rule.passed else 'FAILED':<7} {rule.name:<34} {rule.reason}")
        typer.echo(f"\nDecision {decision.id} of {decision.decided_at}: {decision.summary}")
    if not problem:
        typer.echo(f"`tpo promote {version}` would make {name}/{version} champion. Nothing was moved.")
    elif force:
        typer.echo(f"--force would make {name}/{version} champion in spite of this: {problem} Nothing was moved.")
    else:
        typer.echo(f"`tpo promote {version}` would move nothing: {problem}")


def _tell(name: str, promotion: "Promotion", *, as_json: bool) -> None:
    if as_json:
        typer.echo(promotion.model_dump_json(indent=2))
        return
    typer.echo(f"{name}/{promotion.champion} is champion, previous is {promotion.previous or 'none'}.")


def _echo_json(told: dict[str, Any]) -> None:
    typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
