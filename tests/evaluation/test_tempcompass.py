"""Questions in the shape in which TempCompass is downloaded; the texts are ours."""

import json
from pathlib import Path
from typing import Any

import pytest

from tpo.errors import UserError
from tpo.evaluation.benchmarks import tempcompass
from tpo.evaluation.benchmarks.defects import GOLD_TWICE
from tpo.records import Item, Reason

ROW = {"question": "What does the dog do?\nA. it sits\nB. it jumps\nC. it runs", "answer": "B. it jumps"}


def write(root: Path, content: Any) -> Path:
    (root / "questions").mkdir()
    (root / "questions/multi-choice.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def test_options_come_out_of_the_question_and_the_answer_is_one_of_them(tmp_path: Path) -> None:
    items, rejections = tempcompass.load(write(tmp_path, {"123_reverse": {"action": [ROW]}}))
    assert rejections == []
    assert items == [
        Item(
            id="tempcompass/123_reverse/action/0",
            benchmark="tempcompass",
            video="videos/123_reverse.mp4",
            question="What does the dog do?",
            options=("it sits", "it jumps", "it runs"),
            gold=1,
            duration_group="all",
            category="action",
        )
    ]


def test_dimensions_are_categories_and_questions_of_several_lines_and_two_options_are_read(tmp_path: Path) -> None:
    long = {"question": "Look.\nWhich way?\nA. left\n B. right\n", "answer": "A. left"}
    content = {"1": {"speed": [ROW], "direction": [ROW, long]}, "2": {"speed": [ROW]}}
    items, rejections = tempcompass.load(write(tmp_path, content))
    assert rejections == []
    assert [(item.id, item.category) for item in items] == [
        ("tempcompass/1/speed/0", "speed"),
        ("tempcompass/1/direction/0", "direction"),
        ("tempcompass/1/direction/1", "direction"),
        ("tempcompass/2/speed/0", "speed"),
    ]
    assert (items[2].question, items[2].options, items[2].gold) == ("Look.\nWhich way?", ("left", "right"), 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"answer": "D. it flies"}, "the gold answer 'D. it flies' is not among the options"),
        ({"answer": "A. it jumps"}, "the gold answer 'A. it jumps' is not among the options"),
        ({"answer": "it jumps"}, "the gold answer 'it jumps' is not among the options"),
        ({"answer": None}, "answer"),
        ({"question": "What does the dog do?"}, "expected a question and lines 'A. …', 'B. …'"),
        ({"question": "Who?\nA. it jumps", "answer": "A. it jumps"}, "expected a question and lines"),
        ({"question": "Who?\nA. it sits\nC. it jumps", "answer": "C. it jumps"}, "expected a question and lines"),
        ({"question": "Who?\nA. it sits\nB. it jumps\nor so"}, "expected a question and lines"),
        ({"question": "A. it sits\nB. it jumps"}, "the question is empty"),
    ],
)
def test_a_bad_question_is_set_aside_by_name_and_the_others_are_kept(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    items, rejections = tempcompass.load(write(tmp_path, {"1": {"action": [ROW, ROW | change]}}))
    assert [item.id for item in items] == ["tempcompass/1/action/0"]
    (rejection,) = rejections
    assert (rejection.item, rejection.reason) == ("tempcompass/multi-choice.json:1/action/1", Reason.BAD_ITEM)
    assert expected in rejection.detail


def test_a_question_whose_gold_option_is_there_twice_is_defective(tmp_path: Path) -> None:
    twice = {"question": "Who?\nA. it jumps\nB. it jumps", "answer": "A. it jumps"}
    (item,), rejections = tempcompass.load(write(tmp_path, {"1": {"action": [twice]}}))
    assert (item.defects, rejections) == ((GOLD_TWICE,), [])


def test_what_is_no_list_of_questions_and_a_video_outside_the_folder_are_set_aside(tmp_path: Path) -> None:
    content = {
        "1": ["x"],
        "2": {"action": "x"},
        "3": {"action": [None]},
        "../4": {"action": [ROW]},
        "5": {"order": [ROW]},
    }
    items, rejections = tempcompass.load(write(tmp_path, content))
    assert [item.id for item in items] == ["tempcompass/5/order/0"]
    assert [rejection.item.split(":")[1] for rejection in rejections] == [
        "1",
        "2/action/0",
        "3/action/0",
        "../4/action/0",
    ]
    assert "leaves the benchmark's folder" in rejections[-1].detail


def test_a_folder_without_the_file_or_with_a_damaged_one_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected: tempcompass/questions/multi-choice\.json"):
        tempcompass.load(tmp_path)
    file = write(tmp_path, [ROW]) / "questions/multi-choice.json"
    with pytest.raises(UserError, match=r"holds a JSON list, expected an object"):
        tempcompass.load(tmp_path)
    file.write_text("{")
    with pytest.raises(UserError, match=r"multi-choice\.json cannot be read"):
        tempcompass.load(tmp_path)
