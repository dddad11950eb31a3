"""`tpo use`: settings of a published or a tried run, in `params.yaml`.

tpo use
tpo use longva --dry-run
tpo use longva
"""

from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import typer


def _names(incomplete: str) -> list[tuple[str, str]]:
    from tpo.recipes import recipes

    return [(name, about) for name, about in recipes().items() if name.startswith(incomplete)]


def use(
    name: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="default: list them", autocompletion=_names)
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the difference, and write nothing")] = False,
) -> None:
    """Put a recipe's settings into params.yaml, and show the difference. Your other settings and comments stay."""
    from tpo.params import parse_params, read_params
    from tpo.recipes import recipe, recipes, with_recipe
    from tpo.store import write_atomic

    if name is None:
        for known, about in recipes().items():
            typer.echo(f"{known:<14} {about}")
        return
    chosen, path = recipe(name), Path("params.yaml")
    before = read_params(path)
    after = with_recipe(before, chosen.read_text(encoding="utf-8"))
    parse_params(after, f"{path} with the recipe {name}")
    if after == before:
        typer.echo(f"{path} says what the recipe {name} says already.")
        return
    changes = unified_diff(before.splitlines(), after.splitlines(), str(path), f"{path} with {name}", n=1, lineterm="")
    typer.echo("\n".join(changes))
    if dry_run:
        typer.echo("\nNothing was written.")
        return
    write_atomic(path, after)
    typer.echo(f"\n{path} is written. `tpo status` says what is stale now.")
