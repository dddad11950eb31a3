"""MLVU, test set (hub `MLVU/MLVU_Test`), with the gold answers that were published in March 2025.

    mlvu_test/test-ground-truth/test_mcq_gt.json      502 questions with six options
    mlvu_test/test-ground-truth/test_ssc_gt.json      sub-scene captioning, and
    mlvu_test/test-ground-truth/test_vs_gt.json       summaries, if they are there
    mlvu_test/MLVU_Test/video/<video>.mp4             (where `tar -xzf` in MLVU_Test/ puts them)

It is a benchmark of its own: its M-Avg is a mean over nine tasks, that of the dev set over seven. The files are gated:
names and columns are those that public readers of them use, and we have not seen the files. Numbers as answers of the
counting task are read as text.
"""

from pathlib import Path

from pydantic import ConfigDict

from tpo.errors import UserError
from tpo.evaluation.benchmarks.mlvu import AnyRow, ChoiceRow, OpenRow, choice_item, open_item
from tpo.evaluation.benchmarks.rows import Loaded, check_path, collect, join

NAME = "mlvu_test"
LAYOUT = "mlvu_test/test-ground-truth/test_mcq_gt.json and mlvu_test/MLVU_Test/video/<video>.mp4"
GENERATION_FILES = ("test_ssc_gt.json", "test_vs_gt.json")
NUM_OPTIONS = (6,)


class _Row(ChoiceRow):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    question_id: str


def load(folder: Path) -> Loaded:
    """Items and the rows set aside.

    Raises:
        UserError: the folder has no multiple-choice questions, or a file is damaged.
    """
    file = folder / "test-ground-truth/test_mcq_gt.json"
    if not file.is_file():
        raise UserError(f"{folder} has no questions with answers. Expected: {LAYOUT}")
    choices = collect(
        NAME, file, _Row, lambda row, _: choice_item(NAME, f"{NAME}/{row.question_id}", _video(row), row, NUM_OPTIONS)
    )
    generation = [file.with_name(name) for name in GENERATION_FILES]
    return join([choices, *(_load_open(file) for file in generation if file.is_file())])


def _load_open(file: Path) -> Loaded:
    return collect(
        NAME, file, OpenRow, lambda row, number: open_item(NAME, f"{NAME}/{file.stem}:{number}", _video(row), row)
    )


def _video(row: AnyRow) -> str:
    return check_path(f"MLVU_Test/video/{row.video}")
