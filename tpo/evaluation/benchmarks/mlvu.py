"""MLVU, dev set, multiple choice (hub `MLVU/MVLU`).

    mlvu/MLVU/json/1_plotQA.json … 7_topic_reasoning.json
    mlvu/MLVU/video/1_plotQA/<video>.mp4 …

The gold answer is the text of an option. Rows have no id: file and row number (from 0) make one. The two generation
tasks need a judge of free text and are not loaded (`GENERATION_TASKS`).
"""

from pathlib import Path

from pydantic import Field

from tpo.errors import UserError
from tpo.evaluation.benchmarks.rows import BadRowError, Loaded, Row, check_path, check_text, collect, join
from tpo.records import Item

NAME = "mlvu"
LAYOUT = "mlvu/MLVU/json/<task>.json and mlvu/MLVU/video/<task>/<video>.mp4"
GENERATION_TASKS = ("8_sub_scene", "9_summary")


class _Row(Row):
    video: str
    duration: float = Field(gt=0, allow_inf_nan=False, description="seconds")
    question: str
    candidates: tuple[str, ...]
    answer: str
    question_type: str


def load(folder: Path) -> Loaded:
    """Items and the rows set aside.

    Raises:
        UserError: the folder has no multiple-choice task, or a file is damaged.
    """
    files = sorted(file for file in (folder / "MLVU/json").glob("*.json") if file.stem not in GENERATION_TASKS)
    if not files:
        raise UserError(f"{folder} has no multiple-choice questions. Expected: {LAYOUT}")
    return join(_load_task(file) for file in files)


def _load_task(file: Path) -> Loaded:
    def to_item(row: _Row, number: int) -> Item:
        texts = [option.strip() for option in row.candidates]
        if row.answer.strip() not in texts:
            raise BadRowError(f"the gold answer {row.answer[:200]!r} is not among the options")
        gold = texts.index(row.answer.strip())
        question, options = check_text(row.question, row.candidates, gold)
        return Item(
            id=f"{NAME}/{file.stem}:{number}",
            benchmark=NAME,
            video=check_path(f"MLVU/video/{file.stem}/{row.video}"),
            question=question,
            options=options,
            gold=gold,
            duration_group=duration_group(row.duration),
            category=row.question_type,
        )

    return collect(NAME, file, _Row, to_item)


def duration_group(duration_s: float) -> str:
    """MLVU has no duration groups of its own; these are ours."""
    for limit_s, name in ((300, "<5min"), (600, "5-10min"), (1800, "10-30min")):
        if duration_s < limit_s:
            return name
    return ">30min"
