"""`tpo review`: a page on this machine on which people judge pairs and look at what was gained and lost."""

import getpass
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tpo.errors import UserError


def review(
    *,
    reviewer: Annotated[str, typer.Option(help="in whose name; default: the user of this machine")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="of 127.0.0.1; 0 = a free one")] = 0,
    browser: Annotated[bool, typer.Option(help="open the page in a browser")] = True,
    summary: Annotated[
        bool, typer.Option("--summary", help="tell what was reviewed, and how far people agree")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --summary: as JSON")] = False,
) -> None:
    """Judge pairs blind, and see which evaluation items were gained and lost, on a page of this machine.

    Verdicts are kept in data/review/verdicts.jsonl. `dvc repro mix` sets aside what people do not accept.
    """
    from tpo.params import load_params

    if as_json and not summary:
        raise typer.BadParameter("it goes with --summary.", param_hint="--json")
    params = load_params()
    if summary:
        typer.echo(_summary(as_json=as_json))
        return
    name = reviewer.strip() or getpass.getuser()
    if len(name) > 64 or not name.isprintable():
        raise UserError(f"--reviewer {name!r}: a name has up to 64 characters that can be printed.")
    from tpo.review.server import serve

    def announce(address: str) -> None:
        typer.echo(f"Reviewing as {name}: {address}")
        typer.echo("Ctrl-C ends it. What was said is on disk already.")
        if browser:
            webbrowser.open(address)

    serve(Path(), params, reviewer=name, port=port, announce=announce)


def _summary(*, as_json: bool) -> str:
    from tpo.curation.reviews import REVIEWS, read_reviews, standing
    from tpo.records import PreferencePair
    from tpo.review.agreement import summarize, to_text
    from tpo.store import read_records

    pairs = read_records(Path("data/judged/pairs.jsonl"), PreferencePair)
    found = summarize({pair.id: pair.video_id for pair in pairs}, standing(read_reviews(REVIEWS)))
    return found.model_dump_json(indent=2) if as_json else to_text(found)
