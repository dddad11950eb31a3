"""CSV, as the paper's data set LongVA-TPO-10k is published: dataset.csv beside a folder of videos.

The names of its columns are documented nowhere, so a header is matched by the table below, and what it does not know
is an error that lists what was found; `columns` maps names by hand.
"""

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tpo.curation.formats.rows import BadRowError, Row, plain, without_placeholder
from tpo.errors import UserError

NAMES = {
    "video": ("video", "video_path", "video_name", "video_file", "video_id", "path"),
    "question": ("question", "prompt", "query", "instruction"),
    "chosen": ("chosen", "preferred", "chosen_response", "chosen_answer", "positive"),
    "rejected": ("rejected", "dispreferred", "dis_preferred", "rejected_response", "rejected_answer", "negative"),
    "granularity": ("granularity",),
    "question_type": ("question_type", "type"),
}
NEEDED = ("video", "question", "chosen", "rejected")
_IGNORED = ("", "id", "index", "unnamed: 0")
_LARGEST_CELL = sys.maxsize >> 32  # the module's own limit is 131,072 characters


def read(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, Row | BadRowError]]:
    """Each row with its number, the first below the header being 1.

    Args:
        columns: what columns are, by their name in the file; "" leaves one out.

    Raises:
        UserError: the header has columns that are not known, or lacks one that is needed.
    """
    csv.field_size_limit(_LARGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        ours = _columns(path, table.fieldnames or [], columns)
        try:
            for number, cells in enumerate(table, start=1):
                yield number, _row(number, cells, ours)
        except csv.Error as error:
            # Where a row ends is told by its quotes, so nothing behind this one can be relied on.
            raise UserError(
                f"{path}, line {table.reader.line_num}: no CSV: {error}. Expected a cell with quotes in it to be "
                "quoted as a whole, and those quotes to be doubled. Mend that line."
            ) from error


def write(rows: Sequence[Row]) -> str:
    """A header and one record for each row, quoted where needed, with the line ends of RFC 4180."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # with "\n" alone it leaves a "\r" in a cell unquoted
    names = ("video", "question", "chosen", "rejected", "granularity", "question_type")
    writer.writerow(names)
    for row in rows:
        texts = map(plain, (row.question, row.chosen, row.rejected))
        writer.writerow((row.video, *texts, row.granularity, row.question_type))
    return text.getvalue()


def _columns(path: Path, found: Sequence[str], by_hand: Mapping[str, str]) -> dict[str, str]:
    """Name in the file of each of ours."""
    expected = "; ".join(f"{ours}: {', '.join(names)}" for ours, names in NAMES.items())
    if unknown := sorted(set(by_hand.values()) - {*NAMES, ""}) + sorted(set(by_hand) - set(found)):
        theirs = ", ".join(found)
        raise UserError(f"--column {unknown[0]}: {path} has the columns {theirs}; ours are {', '.join(NAMES)}.")
    ours: dict[str, str] = {}
    strange = []
    for name in found:
        key = name.strip().lower()
        meant = by_hand.get(name, next((our for our, names in NAMES.items() if key in names), None))
        if meant:
            if meant in ours:
                raise UserError(f"{path} has two columns for {meant}: {ours[meant]} and {name}. Choose with --column.")
            ours[meant] = name
        elif meant is None and key not in _IGNORED:
            strange.append(name)
    missing = [name for name in NEEDED if name not in ours]
    if strange or missing:
        raise UserError(
            f"{path} has the columns {', '.join(found) or '(none)'}. "
            + (f"Not known: {', '.join(strange)}. " if strange else "")
            + (f"Missing: {', '.join(missing)}. " if missing else "")
            + f"Known names are {expected}. Say what a column is with --column NAME=OURS, or leave it out with NAME=."
        )
    return ours


def _row(number: int, cells: dict[str, Any], ours: Mapping[str, str]) -> Row | BadRowError:
    if None in cells or None in cells.values():
        return BadRowError("it has more or fewer cells than the header")
    known = {name: cells[column] for name, column in ours.items()}
    optional = {name: known.get(name) or None for name in ("granularity", "question_type")}
    try:
        known["question"] = without_placeholder(known["question"])
        return Row.model_validate(known | optional | {"number": number})
    except BadRowError as error:
        return error
    except ValueError as error:
        return BadRowError(" ".join(str(error).split())[:200])
