"""Rows in the shapes in which NExT-GQA and NExT-QA are downloaded; the texts are ours."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tpo.errors import UserError
from tpo.evaluation.benchmarks import nextgqa
from tpo.evaluation.benchmarks.defects import EMPTY_OPTION, GOLD_TWICE
from tpo.evaluation.benchmarks.nextgqa import duration_group
from tpo.records import Granularity, Item, Reason, Task

ROW = {
    "video_id": "4001",
    "frame_count": "900",
    "width": "640",
    "height": "480",
    "question": "why did the man bend down",
    "answer": "pick up a ball",
    "qid": "3",
    "type": "CW",
    "a0": "tie his shoe",
    "a1": "pick up a ball",
    "a2": "greet the dog",
    "a3": "hide",
    "a4": "rest",
}
TIMES = {"4001": {"duration": 34, "location": {"3": [[1.2, 5.8], [20.0, 23.5]]}, "fps": 29.97}}


def write(root: Path, *rows: dict[str, Any], times: Any = TIMES, split: str = "test") -> Path:
    with (root / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    (root / f"gsub_{split}.json").write_text(json.dumps(times), encoding="utf-8")
    return root


def test_a_row_is_asked_for_the_option_and_for_when_the_evidence_is_seen(tmp_path: Path) -> None:
    (tmp_path / "map_vid_vidorID.json").write_text('{"4001": "1164/4001"}')
    items, rejections = nextgqa.load(write(tmp_path, ROW))
    assert rejections == []
    shared = {
        "benchmark": "nextgqa",
        "video": "NExTVideo/1164/4001.mp4",
        "duration_s": 34.0,
        "duration_group": "30-60s",
        "category": "causal",
        "granularity": Granularity.LOCALIZED,
    }
    assert items == [
        Item(
            id="nextgqa/4001_3",
            question="why did the man bend down",
            options=("tie his shoe", "pick up a ball", "greet the dog", "hide", "rest"),
            gold=1,
            **shared,
        ),
        Item(
            id="nextgqa/4001_3#span",
            question="The moment that shows the answer to this question: why did the man bend down",
            task=Task.SPAN,
            spans_s=((1.2, 5.8), (20.0, 23.5)),
            **shared,
        ),
    ]


def test_rows_of_nextqa_have_another_name_for_the_video_and_the_number_of_the_answer(tmp_path: Path) -> None:
    (tmp_path / "qa").mkdir()
    (tmp_path / "gqa").mkdir()
    row = {"video" if name == "video_id" else name: value for name, value in ROW.items()} | {"answer": "1"}
    assert nextgqa.load(write(tmp_path / "qa", row)) == nextgqa.load(write(tmp_path / "gqa", ROW))


def test_a_question_without_times_is_asked_for_the_option_alone(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"qid": "4", "type": "DO"}, ROW | {"video_id": "4002", "type": "TN"}]
    items, rejections = nextgqa.load(write(tmp_path, *rows))
    assert rejections == []
    assert [(item.id, item.category, item.duration_group) for item in items] == [
        ("nextgqa/4001_3", "causal", "30-60s"),
        ("nextgqa/4001_4", "descriptive", "30-60s"),
        ("nextgqa/4002_3", "temporal", "unknown"),
        ("nextgqa/4001_3#span", "causal", "30-60s"),
    ]


def test_val_is_read_where_there_is_no_test(tmp_path: Path) -> None:
    write(tmp_path, ROW, split="val")
    assert len(nextgqa.load(tmp_path)[0]) == 2
    write(tmp_path, ROW, ROW | {"qid": "4"})
    assert len(nextgqa.load(tmp_path)[0]) == 3


@pytest.mark.parametrize("place", ["NExTVideo/1164/4001", "videos/1164/4001", "NExTVideo/4001", "videos/4001"])
def test_videos_are_found_with_and_without_the_folders_of_the_release(tmp_path: Path, place: str) -> None:
    (tmp_path / "map_vid_vidorID.json").write_text('{"4001": "1164/4001"}')
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / f"{place}.mp4").touch()
    items, _ = nextgqa.load(write(tmp_path, ROW))
    assert {item.video for item in items} == {f"{place}.mp4"}


def test_times_a_little_outside_the_video_stay_as_annotated(tmp_path: Path) -> None:
    times = {"4001": {"duration": 34, "location": {"3": [[-0.1, 5.8], [30, 34.5]]}}}
    items, rejections = nextgqa.load(write(tmp_path, ROW, times=times))
    assert rejections == []
    assert items[1].spans_s == ((-0.1, 5.8), (30.0, 34.5))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"answer": "fly away"}, "the gold answer 'fly away' is none of the options"),
        ({"answer": "5"}, "the gold answer '5' is none of the options"),
        ({"answer": "-1"}, "the gold answer '-1' is none of the options"),
        ({"answer": "2", "a3": "2"}, "the gold answer '2' is two of the options"),
        ({"question": ""}, "the question is empty"),
        ({"video_id": "../4001"}, "the video's path leaves the benchmark's folder"),
        ({}, "an earlier row has the id nextgqa/4001_3 too"),
    ],
)
def test_a_bad_row_is_set_aside_once_and_is_not_asked_for_its_times(
    tmp_path: Path, change: dict[str, str], expected: str
) -> None:
    items, rejections = nextgqa.load(write(tmp_path, ROW, ROW | change))
    assert [item.id for item in items] == ["nextgqa/4001_3", "nextgqa/4001_3#span"]
    (rejection,) = rejections
    assert (rejection.item, rejection.reason) == ("nextgqa/test.csv:1", Reason.BAD_ITEM)
    assert expected in rejection.detail


@pytest.mark.parametrize(("change", "defect"), [({"a0": "pick up a ball"}, GOLD_TWICE), ({"a4": ""}, EMPTY_OPTION)])
def test_a_defective_question_is_marked_and_its_times_are_not(
    tmp_path: Path, change: dict[str, str], defect: str
) -> None:
    (choice, span), rejections = nextgqa.load(write(tmp_path, ROW | change))
    assert (choice.defects, span.defects, rejections) == ((defect,), (), [])


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([[5, 5]], "a moment ends at 5.0 s, not after its start at 5.0 s"),
        ([[1, 2], [5, 4]], "a moment ends at 4.0 s, not after its start at 5.0 s"),
        ([[float("nan"), 4]], "a moment ends at 4.0 s, not after its start at nan s"),
        ([[35, 36]], "a moment from 35.0 to 36.0 s is not in the video of 34.0 s"),
        ([[-3, -1]], "a moment from -3.0 to -1.0 s is not in the video of 34.0 s"),
        ([], "spans_s"),
        ([[1]], "spans_s.0"),
        ("soon", "spans_s"),
    ],
)
def test_bad_times_are_set_aside_and_the_question_is_kept(tmp_path: Path, spans: Any, expected: str) -> None:
    times = {"4001": {"duration": 34, "location": {"3": spans}}}
    items, rejections = nextgqa.load(write(tmp_path, ROW, times=times))
    assert [item.id for item in items] == ["nextgqa/4001_3"]
    (rejection,) = rejections
    assert (rejection.item, rejection.reason) == ("nextgqa/test.csv:0", Reason.BAD_ITEM)
    assert expected in rejection.detail


def test_a_duration_that_is_none_is_a_bad_row(tmp_path: Path) -> None:
    times = {"4001": {"duration": 0, "location": {"3": [[1, 2]]}}}
    items, (rejection,) = nextgqa.load(write(tmp_path, ROW, times=times))
    assert items == []
    assert rejection.detail.startswith("duration")


def test_rows_with_cells_missing_or_too_many_are_set_aside_or_read(tmp_path: Path) -> None:
    write(tmp_path, ROW)
    file = tmp_path / "test.csv"
    file.write_text(file.read_text() + "4001,900\n" + ",".join(ROW.values()).replace(",3,", ",4,") + ",extra,extra\n")
    items, rejections = nextgqa.load(tmp_path)
    assert [item.id for item in items] == ["nextgqa/4001_3", "nextgqa/4001_4", "nextgqa/4001_3#span"]
    assert [rejection.item for rejection in rejections] == ["nextgqa/test.csv:1"]


def test_duration_groups_meet_at_30_and_60_seconds() -> None:
    assert [duration_group(s) for s in (29.9, 30, 59.9, 60, None)] == ["<30s", "30-60s", "30-60s", ">60s", "unknown"]


@pytest.mark.parametrize("missing", ["test.csv", "gsub_test.json"])
def test_a_folder_without_questions_or_without_their_times_says_what_is_expected(tmp_path: Path, missing: str) -> None:
    write(tmp_path, ROW)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=r"has no test\.csv with its gsub_test\.json. Expected: nextgqa/test\.csv"):
        nextgqa.load(tmp_path)


@pytest.mark.parametrize("name", ["test.csv", "gsub_test.json", "map_vid_vidorID.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, ROW)
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        nextgqa.load(tmp_path)


def test_a_csv_field_without_an_end_is_a_damaged_file(tmp_path: Path) -> None:
    write(tmp_path, ROW)
    (tmp_path / "test.csv").write_text('video_id,question\n4001,"' + "x" * 200_000)
    before = csv.field_size_limit(131_072)  # of the whole process, and others raise it
    try:
        with pytest.raises(UserError, match=r"test\.csv cannot be read: field larger than field limit"):
            nextgqa.load(tmp_path)
    finally:
        csv.field_size_limit(before)
