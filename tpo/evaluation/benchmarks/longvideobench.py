"""LongVideoBench, validation split (hub `longvideobench/LongVideoBench`), without subtitles.

longvideobench/lvb_val.json                 (or validation-00000-of-00001.parquet: the same rows, options in columns)
longvideobench/videos/<video_id>.mp4
"""

from pathlib import Path
from typing import Any

from pydantic import model_validator

from tpo.errors import UserError
from tpo.evaluation.benchmarks.rows import Loaded, Row, check_path, check_text, collect
from tpo.records import Item

NAME = "longvideobench"
LAYOUT = "longvideobench/lvb_val.json (or validation-*.parquet) and longvideobench/videos/<video_id>.mp4"


class _Row(Row):
    id: str
    video_path: str
    question: str
    candidates: tuple[str, ...]
    correct_choice: int
    duration_group: int
    question_category: str

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, row: Any) -> Any:
        """The parquet file has option0 … option4, with "N/A" where there is no fifth one."""
        if not isinstance(row, dict) or "candidates" in row:
            return row
        options = [row[f"option{i}"] for i in range(5) if f"option{i}" in row]
        while options and options[-1] == "N/A":
            options.pop()
        return {**row, "candidates": options}


def load(folder: Path) -> Loaded:
    """Items and the rows set aside.

    Raises:
        UserError: the folder has no validation file, or it is damaged.
    """
    files = [folder / "lvb_val.json", *sorted(folder.glob("validation-*.parquet"))]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(f"{folder} has no validation questions. Expected: {LAYOUT}")
    return collect(NAME, file, _Row, _to_item)


def _to_item(row: _Row, _number: int) -> Item:
    question, options = check_text(row.question, row.candidates, row.correct_choice)
    return Item(
        id=f"{NAME}/{row.id}",
        benchmark=NAME,
        video=check_path(f"videos/{row.video_path}"),
        question=question,
        options=options,
        gold=row.correct_choice,
        duration_group=str(row.duration_group),
        category=row.question_category,
    )
