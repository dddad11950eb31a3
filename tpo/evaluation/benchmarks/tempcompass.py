"""TempCompass, multiple choice (github `llyx97/TempCompass`): short videos, some reversed, slowed down or joined.

    tempcompass/questions/multi-choice.json     {video id: {dimension: [{question, answer}]}}
    tempcompass/videos/<video id>.mp4

The options stand in the question, a line each ("A. running"); the answer is the whole line. There are two to four.
"""

import re
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from tpo.errors import UserError
from tpo.evaluation.benchmarks.rows import (
    BadRowError,
    Loaded,
    Row,
    check_path,
    check_text,
    make_items,
    read_object,
)
from tpo.records import Item

NAME = "tempcompass"
LAYOUT = "tempcompass/questions/multi-choice.json and tempcompass/videos/<video id>.mp4"
_OPTION = re.compile(r"\s*([A-Z])\.\s*(.*)")


class _Row(Row):
    video: str
    dimension: str
    question: str
    answer: str


def load(folder: Path) -> Loaded:
    """Items and the questions set aside, named `<video id>/<dimension>/<number from 0>`.

    Raises:
        UserError: the folder has no multiple-choice questions, or the file is damaged.
    """
    file = folder / "questions/multi-choice.json"
    if not file.is_file():
        raise UserError(f"{folder} has no multiple-choice questions. Expected: {LAYOUT}")
    return make_items(f"{NAME}/{file.name}", _flat(read_object(file)), _Row, _to_item)


def _flat(videos: dict[str, Any]) -> list[tuple[str, Any]]:
    """Each question with its name. What is no list of questions is one bad question."""
    rows: list[tuple[str, Any]] = []
    for video, dimensions in videos.items():
        if not isinstance(dimensions, dict):
            rows.append((video, dimensions))
            continue
        for dimension, asked in dimensions.items():
            questions = asked if isinstance(asked, list) else [asked]
            for number, row in enumerate(questions):
                known = {"video": video, "dimension": dimension}
                rows.append((f"{video}/{dimension}/{number}", row | known if isinstance(row, dict) else row))
    return rows


def _to_item(row: _Row, name: str) -> Item:
    stem, lettered = split_options(row.question)
    answer = _OPTION.fullmatch(row.answer)
    option = (answer[1], answer[2].strip()) if answer else None
    if option not in lettered:
        raise BadRowError(f"the gold answer {row.answer[:200]!r} is not among the options")
    gold = lettered.index(option)
    question, options = check_text(stem, [text for _, text in lettered], gold)
    return Item(
        id=f"{NAME}/{name}",
        benchmark=NAME,
        video=check_path(f"videos/{row.video}.mp4"),
        question=question,
        options=options,
        gold=gold,
        duration_group="all",
        category=row.dimension,
    )


def split_options(text: str) -> tuple[str, list[tuple[str, str]]]:
    """ "Who?\\nA. a man\\nB. a dog" → ("Who?", [("A", "a man"), ("B", "a dog")]).

    Raises:
        BadRowError: the last lines are not options A, B, … in this order, at least two.
    """
    lines = text.rstrip().split("\n")
    first = next((number for number, line in enumerate(lines) if line.lstrip().startswith("A.")), len(lines))
    found = [_OPTION.fullmatch(line) for line in lines[first:]]
    options = [(option[1], option[2].strip()) for option in found if option]
    letters = "".join(letter for letter, _ in options)
    if len(options) < max(2, len(found)) or not ascii_uppercase.startswith(letters):
        raise BadRowError(f"expected a question and lines 'A. …', 'B. …', …, got {text[:200]!r}")
    return "\n".join(lines[:first]), options
