"""Charades-STA, test split (arXiv 1705.02101): when does that happen which a sentence says?

    charades_sta/charades_sta_test.txt          one line a question: `<video> <start_s> <end_s>##<sentence>`
    charades_sta/Charades_v1_480/<video>.mp4    (or videos/<video>.mp4)

Lines have no id: the line's number (from 0) makes one, so that a sentence given twice for a video, with other times, is
two questions. How long a video is, is not in the file: a moment that ends after its video stays as annotated, as
published scores have it.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from tpo.errors import UserError
from tpo.evaluation.benchmarks.rows import BadRowError, Loaded, Row, find_video, make_items, reading
from tpo.records import Granularity, Item, Task

NAME = "charades_sta"
LAYOUT = "charades_sta/charades_sta_test.txt and charades_sta/Charades_v1_480/<video>.mp4"
_LINE = re.compile(r"(?P<video>\S+)\s+(?P<start_s>\S+)\s+(?P<end_s>\S+?)\s*##\s*(?P<sentence>\S.*)")


class _Row(Row):
    video: str
    start_s: float = Field(ge=0, allow_inf_nan=False)
    end_s: float = Field(allow_inf_nan=False)
    sentence: str

    @model_validator(mode="before")
    @classmethod
    def _split_line(cls, line: str) -> dict[str, Any]:
        if not (parts := _LINE.fullmatch(line.strip())):
            raise ValueError(f"expected '<video> <start_s> <end_s>##<sentence>', got {line[:200]!r}")
        return parts.groupdict()


def load(folder: Path) -> Loaded:
    """Items and the rows set aside.

    Raises:
        UserError: the folder has no test file, or it is damaged.
    """
    file = folder / "charades_sta_test.txt"
    if not file.is_file():
        raise UserError(f"{folder} has no test questions. Expected: {LAYOUT}")
    with reading(file):
        lines = file.read_text(encoding="utf-8").split("\n")

    def to_item(row: _Row, number: int) -> Item:
        if row.end_s <= row.start_s:
            raise BadRowError(f"the moment ends at {row.end_s} s, not after its start at {row.start_s} s")
        return Item(
            id=f"{NAME}/{number}",
            benchmark=NAME,
            video=find_video(folder, *(f"{videos}/{row.video}.mp4" for videos in ("Charades_v1_480", "videos"))),
            question=row.sentence,
            task=Task.SPAN,
            spans_s=((row.start_s, row.end_s),),
            duration_group="all",
            category="all",
            granularity=Granularity.LOCALIZED,
        )

    numbered = [(number, line) for number, line in enumerate(lines) if line.strip()]
    return make_items(f"{NAME}/{file.name}", numbered, _Row, to_item)
