"""LongVideoBench, validation split (hub `longvideobench/LongVideoBench`).

longvideobench/lvb_val.json                      (or validation-*.parquet: the same rows, options in columns)
longvideobench/videos/<video_id>.mp4
longvideobench/subtitles/<video_id>_en.json      (needed only if subtitles are shown)

The gold answers of the test split were never published.
"""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from tpo.errors import UserError
from tpo.evaluation.benchmarks.rows import Loaded, Row, check_count, check_path, check_text, collect, join
from tpo.records import Granularity, Item

NAME = "longvideobench"
LAYOUT = "longvideobench/lvb_val.json (or validation-*.parquet) and longvideobench/videos/<video_id>.mp4"
GRANULARITIES = {"local": Granularity.LOCALIZED, "global": Granularity.COMPREHENSIVE}
NUM_OPTIONS = (4, 5)


class _Row(Row):
    id: str
    video_path: str
    question: str
    candidates: tuple[str, ...]
    correct_choice: int
    duration_group: int
    question_category: str
    type: str | None = None
    duration: float | None = Field(None, gt=0, allow_inf_nan=False, description="seconds")
    subtitle_path: str | None = None
    starting_timestamp_for_subtitles: float = Field(
        0, allow_inf_nan=False, description="where in its original the video begins, seconds"
    )

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
    json_file = folder / "lvb_val.json"
    files = [json_file] if json_file.is_file() else sorted(folder.glob("validation-*.parquet"))
    if not files:
        raise UserError(f"{folder} has no validation questions. Expected: {LAYOUT}")
    return join(collect(NAME, file, _Row, _to_item) for file in files)


def _to_item(row: _Row, _number: int) -> Item:
    question, options = check_text(row.question, row.candidates, row.correct_choice)
    subtitles = row.subtitle_path and check_path(f"subtitles/{row.subtitle_path}", "the subtitles' path")
    return Item(
        id=f"{NAME}/{row.id}",
        benchmark=NAME,
        video=check_path(f"videos/{row.video_path}"),
        question=question,
        options=options,
        gold=row.correct_choice,
        subtitles=subtitles or None,
        subtitles_start_s=row.starting_timestamp_for_subtitles,
        duration_s=row.duration,
        duration_group=str(row.duration_group),
        category=row.question_category,
        granularity=GRANULARITIES.get(row.type or ""),
        defects=check_count(options, NUM_OPTIONS),
    )
