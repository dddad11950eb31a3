"""`tpo status`: what is there, what runs, what was decided, what is stale, what to do next.

tpo status
tpo status --json
"""

import json
from pathlib import Path
from typing import Annotated

import typer


def status(*, as_json: Annotated[bool, typer.Option("--json", help="all of it, for programs")] = False) -> None:
    """What is there, what runs, what the gate decided, what DVC would run again, and what to do next."""
    from tpo.progress import waiting
    from tpo.status.project import check_project, find_stale, look, next_step
    from tpo.status.text import next_text, stale_text, to_text

    root = Path()
    check_project(root)
    found = look(root)
    if not as_json:
        typer.echo(to_text(found))
    with waiting("asking DVC what is stale"):
        stale = find_stale(root, found)
    step = next_step(found, stale)
    if as_json:
        told = found.model_dump(mode="json") | {"stale": stale.model_dump(mode="json"), "next": step}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    typer.echo(stale_text(stale))
    typer.echo(next_text(step))
