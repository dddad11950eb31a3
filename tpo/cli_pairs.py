"""`tpo pairs`: published preference data in, ours out, for other trainers.

tpo pairs import dataset.csv --form csv
tpo pairs export pairs.json --form llama-factory
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tpo.errors import UserError

if TYPE_CHECKING:
    from tpo.curation.formats.rows import Row
    from tpo.records import PreferencePair, Record, Rejection, Video

pairs = typer.Typer(help="Preference pairs in and out, in the formats of other tools.", no_args_is_help=True)

FormName = Literal["csv", "llava-next", "llama-factory", "ms-swift", "trl"]
CATALOG, CAPTIONS, QUERIES = Path("data/catalog"), Path("data/captions"), Path("data/queries")
JUDGED, PAIRS = Path("data/judged"), Path("data/pairs")


@pairs.command(name="import", epilog="Example: tpo pairs import dataset.csv --form csv --column q=question")
def import_file(
    src: Annotated[Path, typer.Argument(help="file of pairs; their videos lie in data.videos and are ingested")],
    form: Annotated[FormName, typer.Option(help="who wrote it")],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=OURS", help="of a CSV file: what a column is, or NAME= to leave it out"),
    ] = None,
) -> None:
    """Put someone else's pairs in the place of those that caption, ask and judge made; mix goes on from them.

    Questions that share words with a benchmark's are set aside, as they are of our own.
    """
    from tpo.curation.contamination import check_questions, rejections
    from tpo.curation.formats import import_pairs, read_rows
    from tpo.evaluation.benchmarks import find_items
    from tpo.params import load_params
    from tpo.progress import waiting
    from tpo.store import count_reasons

    params = load_params()
    rows, bad = read_rows(src, form, dict(_column(one) for one in column or []))
    found, more = import_pairs(rows, _catalog(), params.answer.full_frames, src.name)
    with waiting("comparing questions with the benchmarks'"):
        items, note = find_items(params.data.benchmarks)
        report = check_questions(
            {pair.id: pair.question for pair in found}, items, params.ask.contamination_words, note
        )
    taken = {shared.query_id for shared in report.found}
    kept = [pair for pair in found if pair.id not in taken]
    set_aside = [*bad, *more, *rejections(report)]
    told = ", ".join(f"{count} {reason}" for reason, count in count_reasons(set_aside).items()) or "nothing"
    if not kept:
        first = f", first {set_aside[0].item}: {set_aside[0].detail}" if set_aside else ""
        raise UserError(
            f"No row of {src} is a pair about a video of the catalog. Set aside: {told}{first}. Nothing was replaced."
        )
    sha256 = hashlib.sha256(src.read_bytes()).hexdigest()
    facts = {"imported_from": src.name, "sha256": sha256, "form": form}
    # Nothing was captioned or asked for them; what comes after judging finds that these have run, and on what.
    _publish("caption", CAPTIONS, {"captions.jsonl": []}, [], [], facts)
    questions = {"queries.jsonl": [], "decontamination.json": report.model_dump_json(indent=2) + "\n"}
    _publish("ask", QUERIES, questions, [], [], facts | {"benchmarks": report.status})
    _publish("judge", JUDGED, {"pairs.jsonl": kept}, kept, set_aside, facts)
    typer.echo(f"{JUDGED}: {len(kept)} of {len(kept) + len(set_aside)} rows; set aside: {told}.")
    typer.echo("To train on them: dvc repro -s mix validate train evaluate register")


@pairs.command(name="export", epilog="Example: tpo pairs export pairs.json --form llama-factory")
def export_file(
    dst: Annotated[Path, typer.Argument(help="file to write; held-out pairs go beside it, as NAME_held_out")],
    form: Annotated[FormName, typer.Option(help="who shall read it")],
) -> None:
    """Write data/pairs for another trainer. Videos are named by their path below data.videos."""
    from tpo.curation.formats import write_rows
    from tpo.records import PreferencePair
    from tpo.store import read_records, write_atomic

    info = dst.with_name("dataset_info.json")
    if form == "llama-factory" and dst.name == info.name:
        raise UserError(f"{dst} is where LLaMA-Factory looks its data sets up. Give the pairs another name.")
    videos = {video.id: video for video in _catalog()}
    written: list[Path] = []
    for part, path in (("pairs", dst), ("held_out", dst.with_stem(f"{dst.stem}_held_out"))):
        found = read_records(PAIRS / f"{part}.jsonl", PreferencePair)
        if found or part == "pairs":
            rows = _rows(found, videos)
            write_atomic(path, write_rows(rows, form))
            written.append(path)
            typer.echo(f"{path}: {len(rows)} pairs in the form {form}.")
    if form == "llama-factory":
        write_atomic(info, json.dumps(_dataset_info(info, written), indent=2, ensure_ascii=False) + "\n")
        typer.echo(f"{info}: what LLaMA-Factory has to know about it.")


def _publish(
    stage: str,
    out: Path,
    files: "dict[str, Any]",
    kept: "Sequence[Record]",
    set_aside: "Sequence[Rejection]",
    facts: "dict[str, Any]",
) -> None:
    """As the stage itself would have published it."""
    from tpo.store import Manifest, count_reasons, publish

    manifest = Manifest(
        stage=stage,
        item="rows",
        items_in=len(kept) + len(set_aside),
        items_out=len(kept),
        set_aside=count_reasons(set_aside),
        seconds=0,
        facts=facts,
    )
    publish(out, files | {"rejected.jsonl": set_aside}, manifest)


def _column(setting: str) -> tuple[str, str]:
    name, separator, ours = setting.partition("=")
    if not separator:
        raise UserError(f"--column {setting}: expected NAME=OURS, or NAME= to leave the column out.")
    return name, ours


def _catalog() -> "Sequence[Video]":
    from tpo.records import Video
    from tpo.store import read_records

    return read_records(CATALOG / "videos.jsonl", Video)


def _rows(found: "Sequence[PreferencePair]", videos: "Mapping[str, Video]") -> "list[Row]":
    from tpo.curation.formats import row_of

    if gone := next((pair for pair in found if pair.video_id not in videos), None):
        raise UserError(
            f"The video of pair {gone.id} in {PAIRS} is not in {CATALOG}, which was made anew since. "
            "Make the pairs again: `dvc repro mix`, or `tpo pairs import` and `dvc repro -s mix` if they were imported."
        )
    return [row_of(number, pair, videos[pair.video_id]) for number, pair in enumerate(found, start=1)]


def _dataset_info(info: Path, files: Sequence[Path]) -> dict[str, object]:
    """LLaMA-Factory's dataset_info.json (its data/README.md) with entries for `files` beside those it has."""
    try:
        there = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{info} cannot be read as JSON: {error}. Mend it, or export to another folder.") from error
    if not isinstance(there, dict):
        raise UserError(f"{info} holds no JSON object, as LLaMA-Factory expects. Mend it, or export to another folder.")
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "videos": "videos"}
    entry = {"formatting": "sharegpt", "ranking": True, "columns": columns}
    return there | {path.stem: {"file_name": path.name} | entry for path in files}
