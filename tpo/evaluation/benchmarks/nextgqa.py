"""NExT-GQA (github `doc-doc/NExT-GQA`, arXiv 2309.01327): questions with options, and when the evidence is on display.

    nextgqa/test.csv, gsub_test.json            (or val.csv, gsub_val.json, where there is no test.csv)
    nextgqa/map_vid_vidorID.json                {video id: "1164/<video id>"}; may be missing
    nextgqa/NExTVideo/1164/<video id>.mp4       (or videos/1164/…, or without the folder in between)

A row is asked for the option, `nextgqa/<video id>_<qid>`, and, where gsub has its times, for them: `…#span`. Files of
NExT-QA are read too: their column is `video` instead of `video_id`, and the answer is the number of an option.

Times stay as annotated, as published scores have them: 36 moments of the test set start up to 0.2 s before their video.
"""

import csv
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field

from tpo.errors import UserError
from tpo.evaluation.benchmarks.rows import (
    BadRowError,
    Loaded,
    Row,
    check_text,
    find_video,
    join,
    make_items,
    read_object,
    reading,
)
from tpo.records import Granularity, Item, Task

NAME = "nextgqa"
LAYOUT = "nextgqa/test.csv, nextgqa/gsub_test.json and nextgqa/NExTVideo/<folder>/<video id>.mp4"
SPAN = "#span"
_NUM_OPTIONS = 5
_KINDS = {"C": "causal", "T": "temporal", "D": "descriptive"}  # first letter of the type: as scores are published
_ROUNDED_S = 1  # annotated durations are whole seconds


class _Row(Row):
    video: str = Field(validation_alias=AliasChoices("video_id", "video"))
    qid: str
    question: str
    options: tuple[str, ...]
    answer: str
    type: str
    duration: float | None = Field(gt=0, allow_inf_nan=False, description="seconds; none = gsub lacks the video")

    @property
    def id(self) -> str:
        return f"{NAME}/{self.video}_{self.qid}"


class _TimedRow(_Row):
    spans_s: tuple[tuple[float, float], ...] = Field(min_length=1)


def load(folder: Path) -> Loaded:
    """Items and the rows set aside: each question, and after all of them those for the times.

    Raises:
        UserError: the folder lacks the questions or their times, or a file is damaged.
    """
    split = next((split for split in ("test", "val") if (folder / f"{split}.csv").is_file()), "test")
    file, times = folder / f"{split}.csv", folder / f"gsub_{split}.json"
    if not (file.is_file() and times.is_file()):
        raise UserError(f"{folder} has no {file.name} with its {times.name}. Expected: {LAYOUT}")
    mapping = folder / "map_vid_vidorID.json"
    places = read_object(mapping) if mapping.is_file() else {}

    def to_choice(row: _Row, _number: int) -> Item:
        gold = _gold(row)
        question, options = check_text(row.question, row.options, gold)
        names = dict.fromkeys([str(places.get(row.video, row.video)), row.video])
        return Item(
            id=row.id,
            benchmark=NAME,
            video=find_video(folder, *(f"{root}/{name}.mp4" for name in names for root in ("NExTVideo", "videos"))),
            question=question,
            options=options,
            gold=gold,
            duration_s=row.duration,
            duration_group=duration_group(row.duration),
            category=_KINDS.get(row.type[:1], row.type),
            granularity=Granularity.LOCALIZED,
        )

    def to_span(row: _TimedRow, _number: int) -> Item:
        choice = asked[row.id]
        _check_spans(row)
        changed = {
            "id": choice.id + SPAN,
            "question": f"The moment that shows the answer to this question: {choice.question}",
            "task": Task.SPAN,
            "options": (),
            "gold": None,
            "defects": (),  # what is wrong with options is not wrong with times
            "spans_s": row.spans_s,
        }
        return Item.model_validate(dict(choice) | changed)

    where = f"{NAME}/{file.name}"
    rows = list(enumerate(_read(file, read_object(times))))
    choices, rejections = make_items(where, rows, _Row, to_choice)
    asked = {item.id: item for item in choices}
    bad = {rejection.item for rejection in rejections}
    timed = [(number, row) for number, row in rows if row["spans_s"] is not None and f"{where}:{number}" not in bad]
    return join([(choices, rejections), make_items(where, timed, _TimedRow, to_span)])


def _read(file: Path, times: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the CSV file, each with its options together and with what `times` says of its video and question."""
    with reading(file), file.open(encoding="utf-8-sig", newline="") as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    for row in rows:
        row["options"] = [row.get(f"a{number}") for number in range(_NUM_OPTIONS)]
        video = times.get(row.get("video_id") or row.get("video") or "")
        known = video if isinstance(video, dict) else {}
        row["duration"] = known.get("duration")
        spans = known.get("location")
        row["spans_s"] = spans.get(row.get("qid")) if isinstance(spans, dict) else None
    return rows


def _gold(row: _Row) -> int:
    """The option that has the answer's text, or whose number the answer is."""
    answer, options = row.answer.strip(), [option.strip() for option in row.options]
    found = {options.index(answer)} if answer in options else set()
    if answer in map(str, range(_NUM_OPTIONS)):
        found.add(int(answer))
    if len(found) != 1:
        raise BadRowError(f"the gold answer {row.answer[:200]!r} is {'two' if found else 'none'} of the options")
    return found.pop()


def _check_spans(row: _TimedRow) -> None:
    """Raise `BadRowError` for a moment without length, or of which nothing is in the video."""
    for start_s, end_s in row.spans_s:
        if not start_s < end_s:  # not true of NaN either
            raise BadRowError(f"a moment ends at {end_s} s, not after its start at {start_s} s")
        if end_s <= 0 or (row.duration is not None and start_s >= row.duration + _ROUNDED_S):
            raise BadRowError(f"a moment from {start_s} to {end_s} s is not in the video of {row.duration} s")


def duration_group(duration_s: float | None) -> str:
    """NExT-GQA has no duration groups; these are ours. Its videos are 10 to 180 s long."""
    if duration_s is None:
        return "unknown"
    return next((name for limit_s, name in ((30, "<30s"), (60, "30-60s")) if duration_s < limit_s), ">60s")
