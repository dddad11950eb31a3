"""Video-MME (hub `lmms-lab/Video-MME`).

videomme/videomme/test-00000-of-00001.parquet     (or the same rows as a list in test-00000-of-00001.json)
videomme/data/<videoID>.mp4                       (.MP4 and .mkv exist too)
videomme/subtitle/<videoID>.srt                   (744 of the 900 videos have one)

Its licence forbids to pass on any part of it, also converted: it stays in the folder that it was downloaded into.
"""

from pathlib import Path
from string import ascii_uppercase

from tpo.errors import UserError
from tpo.evaluation.benchmarks.rows import (
    BadRowError,
    Loaded,
    Row,
    check_count,
    check_path,
    check_text,
    collect,
    find_video,
)
from tpo.records import Item

NAME = "videomme"
LAYOUT = "videomme/videomme/test-00000-of-00001.parquet (or .json) and videomme/data/<videoID>.mp4"
NUM_OPTIONS = (4,)


class _Row(Row):
    question_id: str
    videoID: str  # noqa: N815 - the official column's name
    duration: str
    task_type: str
    question: str
    options: tuple[str, ...]
    answer: str


def load(folder: Path) -> Loaded:
    """Items and the rows set aside.

    Raises:
        UserError: the folder has no test file, or it is damaged.
    """
    files = [folder / f"videomme/test-00000-of-00001.{ending}" for ending in ("parquet", "json")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(f"{folder} has no test questions. Expected: {LAYOUT}")

    def to_item(row: _Row, _number: int) -> Item:
        answer = row.answer.strip()
        if len(answer) != 1 or answer not in ascii_uppercase:
            raise BadRowError(f"the gold answer {row.answer[:200]!r} is not a letter")
        gold = ascii_uppercase.index(answer)
        question, options = check_text(row.question, without_letters(row.options), gold)
        subtitles = check_path(f"subtitle/{row.videoID}.srt", "the subtitles' path")
        return Item(
            id=f"{NAME}/{row.question_id}",
            benchmark=NAME,
            video=find_video(folder, *(f"data/{row.videoID}.{ending}" for ending in ("mp4", "MP4", "mkv"))),
            question=question,
            options=options,
            gold=gold,
            subtitles=subtitles if (folder / subtitles).is_file() else None,
            duration_group=row.duration,
            category=row.task_type,
            defects=check_count(options, NUM_OPTIONS),
        )

    return collect(NAME, file, _Row, to_item)


def without_letters(options: tuple[str, ...]) -> tuple[str, ...]:
    """("A. a dog", "B. a cat") → ("a dog", "a cat"). Only if every option has its letter: "A. Smith" may be a name."""
    letters = [f"{letter}." for letter in ascii_uppercase]
    lettered = [option.lstrip().startswith(letter) for letter, option in zip(letters, options, strict=False)]
    if not options or len(lettered) < len(options) or not all(lettered):
        return options
    return tuple(option.lstrip()[2:].removeprefix(" ") for option in options)
