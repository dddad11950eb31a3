"""MLVU, dev set (hub `MLVU/MVLU`, which is how it is spelt).

    mlvu/MLVU/json/1_plotQA.json … 9_summary.json
    mlvu/MLVU/video/1_plotQA/<video>.mp4 …

The gold answer is the text of an option. Rows have no id: file and row number (from 0) make one. The two generation
tasks have a reference answer that a judge compares with.
"""

from pathlib import Path

from pydantic import Field

from tpo.errors import UserError
from tpo.evaluation.benchmarks.defects import DURATION, NO_GOLD, with_repeats
from tpo.evaluation.benchmarks.rows import (
    BadRowError,
    Loaded,
    Row,
    check_count,
    check_path,
    check_text,
    collect,
    join,
)
from tpo.records import Granularity, Item, Task

NAME = "mlvu"
LAYOUT = "mlvu/MLVU/json/<task>.json and mlvu/MLVU/video/<task>/<video>.mp4"
GENERATION_TASKS = ("8_sub_scene", "9_summary")
NUM_OPTIONS = (4,)
LONGEST_S = 3 * 3600  # the longest video of the dev set that is as long as its row says has 8,333 s

# One name a task: file names, `question_type` and the test set have different ones, and M-Avg is a mean over tasks.
_CATEGORIES = {"findNeedle": "needle", "needleQA": "needle", "subPlot": "sub_scene", "subsummary": "sub_scene"}

# The paper (arXiv 2406.04264) calls tasks holistic, single-detail and multi-detail. Taking the single details for
# localized and the rest for comprehensive is ours.
_GRANULARITIES = {
    **dict.fromkeys(("needle", "ego", "plotQA", "sub_scene", "sportsQA"), Granularity.LOCALIZED),
    **dict.fromkeys(("topic_reasoning", "anomaly_reco", "summary"), Granularity.COMPREHENSIVE),
    **dict.fromkeys(("order", "count", "tutorialQA"), Granularity.COMPREHENSIVE),
}


class AnyRow(Row):
    """What rows of all tasks have, in the dev and the test set."""

    video: str
    duration: float = Field(gt=0, allow_inf_nan=False, description="seconds")
    question: str
    answer: str
    question_type: str


class ChoiceRow(AnyRow):
    candidates: tuple[str, ...]


class OpenRow(AnyRow):
    scoring_points: tuple[str, ...] = ()


def load(folder: Path) -> Loaded:
    """Items and the rows set aside.

    Raises:
        UserError: the folder has no task, or a file is damaged.
    """
    files = sorted((folder / "MLVU/json").glob("*.json"))
    if not files:
        raise UserError(f"{folder} has no questions. Expected: {LAYOUT}")
    return join(_load_task(file) for file in files)


def _load_task(file: Path) -> Loaded:
    def name_of(number: int) -> str:
        return f"{NAME}/{file.stem}:{number}"

    def video_of(row: AnyRow) -> str:
        return check_path(f"MLVU/video/{file.stem}/{row.video}")

    if file.stem in GENERATION_TASKS:
        return collect(NAME, file, OpenRow, lambda row, n: open_item(NAME, name_of(n), video_of(row), row))
    items, rejections = collect(
        NAME, file, ChoiceRow, lambda row, n: choice_item(NAME, name_of(n), video_of(row), row, NUM_OPTIONS)
    )
    return with_repeats(items), rejections


def choice_item(benchmark: str, item_id: str, video: str, row: ChoiceRow, num_options: tuple[int, ...]) -> Item:
    """The item of a multiple-choice row; its gold is the first option with the text of the answer, if there is one.

    Raises:
        BadRowError: it cannot be asked.
    """
    question, options = check_text(row.question, row.candidates)
    texts = [option.strip() for option in options]
    answer = row.answer.strip()
    return Item(
        id=item_id,
        benchmark=benchmark,
        video=video,
        question=question,
        options=options,
        gold=texts.index(answer) if answer in texts else None,
        duration_s=row.duration,
        duration_group=duration_group(row.duration),
        category=category(row),
        granularity=_GRANULARITIES.get(category(row)),
        defects=(*check_count(options, num_options), *(() if answer in texts else (NO_GOLD,)), *_duration(row)),
    )


def open_item(benchmark: str, item_id: str, video: str, row: OpenRow) -> Item:
    """The item of a generation row.

    Raises:
        BadRowError: it cannot be asked, or there is nothing to judge an answer by.
    """
    question, _ = check_text(row.question)
    if not row.answer.strip():
        raise BadRowError("the reference answer is empty")
    return Item(
        id=item_id,
        benchmark=benchmark,
        video=video,
        question=question,
        task=Task.OPEN,
        reference=row.answer,
        scoring_points=row.scoring_points,
        duration_s=row.duration,
        duration_group=duration_group(row.duration),
        category=category(row),
        granularity=_GRANULARITIES.get(category(row)),
        defects=_duration(row),
    )


def category(row: AnyRow) -> str:
    return _CATEGORIES.get(row.question_type, row.question_type)


def duration_group(duration_s: float) -> str:
    """MLVU has no duration groups of its own; these are ours."""
    for limit_s, name in ((300, "<5min"), (600, "5-10min"), (1800, "10-30min")):
        if duration_s < limit_s:
            return name
    return ">30min"


def _duration(row: AnyRow) -> tuple[str, ...]:
    return (DURATION,) if row.duration > LONGEST_S else ()
