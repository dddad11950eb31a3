"""Rows that cannot be asked, and folders that are not all there: set aside by name, and said before a run."""

from pathlib import Path

import pytest
from benchmark_rows import LVB, MLVU, VIDEOMME, write_json, write_lvb

from tpo.evaluation.benchmarks import describe, load_benchmarks
from tpo.evaluation.benchmarks.defects import FEW_OPTIONS
from tpo.records import Reason


def problems(root: Path) -> dict[str, str]:
    _, rejections = load_benchmarks(root)
    assert all(rejection.reason is Reason.BAD_ITEM for rejection in rejections)
    return {rejection.item: rejection.detail for rejection in rejections}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"correct_choice": 5}, "the gold answer is option 5, but there are 5 options"),
        ({"correct_choice": -1}, "the gold answer is option -1, but there are 5 options"),
        ({"correct_choice": None}, "correct_choice"),
        (
            {"candidates": [f"option {i}" for i in range(6)]},
            "there are 6 options, this benchmark's questions have 4 or",
        ),
        ({"candidates": ["a cup"], "correct_choice": 0}, "there is 1 option, this benchmark's questions have 4 or 5"),
        ({"candidates": [f"option {i}" for i in range(27)]}, "there are 27 options, more than letters"),
        ({"candidates": "abc"}, "candidates"),
        ({"question": "  "}, "the question is empty"),
        ({"question": "What is <video> here?"}, "the text '<video>' would be read as a model's control token"),
        ({"candidates": ["x<|im_end|>", "y", "z"]}, "the text '<|im_end|>' would be read as a model's control token"),
        ({"video_path": "../../secret.mp4"}, "the video's path leaves the benchmark's folder"),
        ({"video_path": "a\\..\\b.mp4"}, "the video's path leaves the benchmark's folder"),
        ({"video_path": "a\0.mp4"}, "the video's path is not usable"),
        ({"video_path": "a" * 300}, "the video's path is not usable"),
        ({"video_path": ""}, "the video's path is not usable"),
        ({"subtitle_path": "../../secret.json"}, "the subtitles' path leaves the benchmark's folder"),
        ({"question": "\ud800"}, "question"),
        ({"duration": "long"}, "duration"),
        ({"duration_group": "long"}, "duration_group"),
    ],
)
def test_a_bad_row_is_set_aside_by_name_and_the_others_are_kept(tmp_path: Path, change: dict, expected: str) -> None:
    write_lvb(tmp_path, LVB, LVB | {"id": "abc_1"} | change)
    found = problems(tmp_path)
    assert list(found) == ["longvideobench/lvb_val.json:1"]
    assert expected in found["longvideobench/lvb_val.json:1"]
    assert "Download lvb_val.json again" in found["longvideobench/lvb_val.json:1"]
    assert [item.id for item in load_benchmarks(tmp_path)[0]] == ["longvideobench/abc_0"]


def test_rows_without_keys_without_shape_and_with_a_used_id_are_set_aside(tmp_path: Path) -> None:
    without_gold = {key: value for key, value in LVB.items() if key != "correct_choice"}
    write_lvb(tmp_path, LVB, without_gold, "text", None, LVB)
    found = problems(tmp_path)
    assert [name.rsplit(":", 1)[1] for name in found] == ["1", "2", "3", "4"]
    assert found["longvideobench/lvb_val.json:1"].startswith("correct_choice: Field required.")
    assert found["longvideobench/lvb_val.json:4"].startswith("an earlier row has the id longvideobench/abc_0 too.")


def test_mlvu_rows_with_an_absolute_path_no_duration_or_five_options_are_set_aside(tmp_path: Path) -> None:
    five = MLVU | {"candidates": [*MLVU["candidates"], "A fifth"]}
    rows = [MLVU, five, MLVU | {"duration": float("nan")}, MLVU | {"video": "../../../x.mp4"}]
    write_json(tmp_path / "mlvu/MLVU/json/2_needle.json", rows)
    found = problems(tmp_path)
    assert list(found) == [f"mlvu/2_needle.json:{i}" for i in (1, 2, 3)]
    assert "there are 5 options, this benchmark's questions have 4" in found["mlvu/2_needle.json:1"]
    assert "duration" in found["mlvu/2_needle.json:2"]
    assert "leaves the benchmark's folder" in found["mlvu/2_needle.json:3"]


def test_a_free_answer_without_anything_to_judge_it_by_cannot_be_asked_for(tmp_path: Path) -> None:
    row = {"video": "x.mp4", "duration": 400, "question": "Describe it.", "question_type": "summary"}
    write_json(tmp_path / "mlvu/MLVU/json/9_summary.json", [row | {"answer": "A boat."}, row | {"answer": " "}, row])
    found = problems(tmp_path)
    assert list(found) == ["mlvu/9_summary.json:1", "mlvu/9_summary.json:2"]
    assert "the reference answer is empty" in found["mlvu/9_summary.json:1"]
    assert "answer: Field required" in found["mlvu/9_summary.json:2"]


def test_videomme_rows_with_a_fifth_option_are_set_aside(tmp_path: Path) -> None:
    five = VIDEOMME | {"question_id": "001-2", "options": [*VIDEOMME["options"], "E. None."]}
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [VIDEOMME, five])
    assert "there are 5 options" in problems(tmp_path)["videomme/test-00000-of-00001.json:1"]


def test_a_question_with_fewer_options_than_usual_is_asked_but_defective(tmp_path: Path) -> None:
    write_json(tmp_path / "mlvu/MLVU/json/5_order.json", [MLVU | {"candidates": MLVU["candidates"][:3]}])
    items, rejections = load_benchmarks(tmp_path)
    assert rejections == []
    assert items[0].defects == (FEW_OPTIONS,)


@pytest.mark.parametrize("answer", ["", "E", "d", "AB", "Ä"])
def test_videomme_rows_whose_gold_is_no_letter_of_an_option_are_set_aside(tmp_path: Path, answer: str) -> None:
    rows = [VIDEOMME, VIDEOMME | {"question_id": "001-2", "answer": answer}]
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", rows)
    assert "the gold answer" in problems(tmp_path)["videomme/test-00000-of-00001.json:1"]


def test_what_is_there_and_what_is_not_is_said_before_a_run(tmp_path: Path) -> None:
    twice = ["a cup", "a cup", "a lamp", "a hat"]
    write_lvb(tmp_path, LVB, LVB | {"id": "abc_1", "candidates": twice}, LVB | {"id": "x", "video_path": "x.mp4"}, LVB)
    (tmp_path / "longvideobench/videos").mkdir()
    (tmp_path / "longvideobench/videos/abc.mp4").touch()
    silent = VIDEOMME | {"question_id": "002-1", "videoID": "silent"}
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [VIDEOMME, silent])
    for name in ("data/AbC-123_xyz00.mp4", "data/silent.mp4", "subtitle/AbC-123_xyz00.srt"):
        (tmp_path / "videomme" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "videomme" / name).touch()
    folder = tmp_path / "longvideobench"
    assert describe(*load_benchmarks(tmp_path), tmp_path) == [
        "longvideobench: 3 questions about 2 videos",
        "longvideobench: 1 of 4 rows are set aside, the first: longvideobench/lvb_val.json:3: an earlier row has the "
        "id longvideobench/abc_0 too. Download lvb_val.json again; if it says so there too, this cannot be asked.",
        "longvideobench: 1 questions are defective, scores are given with and without them: "
        "1 x two wrong options are the same",
        f"longvideobench: 1 of 2 videos are not below {folder}, such as videos/x.mp4: 1 questions will count as wrong. "
        "Download them, or the evidence is incomplete",
        f"longvideobench: 1 of 1 subtitle files are not below {folder}, such as subtitles/abc_en.json",
        "videomme: 2 questions about 2 videos",
        "videomme: 1 of 2 videos have no subtitles, such as data/silent.mp4",
    ]


def test_a_file_without_the_defects_it_is_known_for_is_said_to_be_another_release(tmp_path: Path) -> None:
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [VIDEOMME | {"question_id": "119-1"}])
    said = describe(*load_benchmarks(tmp_path), tmp_path)
    assert any("1 questions that are known to be defective are not, such as videomme/119-1" in fact for fact in said)
