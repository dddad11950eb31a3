"""Rows with the defects of the real ones; the texts are ours."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.benchmarks.defects import (
    ASKED_TWICE,
    DISPUTED,
    DURATION,
    EMPTY_GOLD,
    EMPTY_OPTION,
    GOLD_TWICE,
    LISTED,
    NO_GOLD,
    SAME_OPTIONS,
    unseen,
)
from tpo.records import Item

ROW = {
    "video": "ego_1.mp4",
    "duration": 480.0,
    "question": "What did I pick up?",
    "candidates": ["a cup", "a book", "a lamp", "a hat"],
    "answer": "a lamp",
    "question_type": "ego",
}
Read = Callable[..., list[Item]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(*rows: dict) -> list[Item]:
        path = tmp_path / "mlvu/MLVU/json/3_ego.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(rows))
        items, rejections = load_benchmarks(tmp_path)
        assert rejections == []
        return items

    return read


@pytest.mark.parametrize(
    ("options", "answer", "gold", "defects"),
    [
        (["a cup", "a book", "a lamp", "a hat"], "a lamp", 2, ()),
        (["a cup", "a book", "a lamp", "a hat"], "a Lamp", None, (NO_GOLD,)),
        (["a cup", "a book", "a lamp", "a hat"], "", None, (NO_GOLD,)),
        (["a cup", "a lamp", "a lamp ", "a hat"], "a lamp", 1, (GOLD_TWICE,)),
        (["a cup", "a cup", "a lamp", "a hat"], "a lamp", 2, (SAME_OPTIONS,)),
        (["a cup", "", "a lamp", "a hat"], "a lamp", 2, (EMPTY_OPTION,)),
        (["", "", "a lamp", "a hat"], "a lamp", 2, (EMPTY_OPTION, SAME_OPTIONS)),
        (["a cup", "a book", "", "a hat"], "", 2, (EMPTY_GOLD,)),
        (["", "", "", ""], "", 0, (EMPTY_GOLD, GOLD_TWICE)),
        (["a cup", "a cup", "a lamp", "a hat"], "a tie", None, (NO_GOLD, SAME_OPTIONS)),
    ],
)
def test_what_is_wrong_with_options_is_seen_and_the_question_stays(
    read: Read, options: list[str], answer: str, gold: int | None, defects: tuple[str, ...]
) -> None:
    [item] = read(ROW | {"candidates": options, "answer": answer})
    assert (item.gold, item.defects) == (gold, defects)
    assert item.options == tuple(options)


def test_a_duration_that_no_video_has_is_a_defect_and_a_long_one_is_none(read: Read) -> None:
    absurd, long = read(ROW | {"duration": 32550.1}, ROW | {"duration": 8332.9, "video": "ego_2.mp4"})
    assert (absurd.defects, absurd.duration_s) == ((DURATION,), 32550.1)
    assert long.defects == ()


def test_a_question_that_is_asked_twice_about_a_video_is_defective_both_times(read: Read) -> None:
    other_options = ROW | {"candidates": ["a pen", "a lamp", "a sock", "a box"]}
    other_video = ROW | {"video": "ego_2.mp4"}
    other_question = ROW | {"question": "What did I put down?"}
    items = read(ROW, other_video, other_options, other_question)
    assert [item.defects for item in items] == [(ASKED_TWICE,), (), (ASKED_TWICE,), ()]


def test_what_users_dispute_is_marked_with_its_source_though_no_rule_sees_it(tmp_path: Path) -> None:
    row = {"videoID": "abc", "duration": "short", "task_type": "OCR", "question": "What?", "answer": "D"}
    row |= {"options": ["A. one", "B. two", "C. three", "D. four"]}
    path = tmp_path / "videomme/videomme/test-00000-of-00001.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([row | {"question_id": question} for question in ("603-3", "603-2")]))
    disputed, fine = load_benchmarks(tmp_path)[0]
    assert disputed.defects == (DISPUTED["videomme/603-3"],)
    assert "Video-MME/issues/34" in disputed.defects[0]
    assert fine.defects == ()


def test_a_listed_question_without_its_defect_is_noticed(read: Read) -> None:
    rows = [ROW | {"question": f"What is number {row}?"} for row in range(120)]
    rows[119] |= {"candidates": ["a cup", "", "a lamp", "a hat"], "answer": ""}
    items = read(*rows)
    assert items[119].defects == (EMPTY_GOLD,)
    assert unseen(items) == [f"mlvu/3_ego:{row}" for row in (68, 70, 76, 115)]


def test_the_list_holds_what_was_counted_in_the_real_files() -> None:
    by_reason = {reason: sum(found == reason for found in LISTED.values()) for reason in set(LISTED.values())}
    assert by_reason == {
        NO_GOLD: 2, EMPTY_GOLD: 2, EMPTY_OPTION: 1, GOLD_TWICE: 11, SAME_OPTIONS: 13, ASKED_TWICE: 8, DURATION: 1,
    }  # fmt: skip
