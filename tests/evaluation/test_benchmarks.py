"""Rows in the shapes in which the three benchmarks are downloaded; the texts are ours."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tpo.errors import UserError
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.benchmarks.mlvu import duration_group
from tpo.records import Item, Reason

LVB = {
    "video_id": "abc",
    "video_path": "abc.mp4",
    "id": "abc_0",
    "question": "What is on the table?",
    "question_wo_referring_query": "What is on the table?",
    "candidates": ["a cup", "a book", "a lamp", "a hat", "a plate"],
    "correct_choice": 2,
    "position": [10, 20],
    "topic_category": "KH-Knowledge-History",
    "question_category": "S2O",
    "level": "L1-Perception",
    "subtitle_path": "abc_en.json",
    "duration_group": 600,
    "starting_timestamp_for_subtitles": 0,
    "duration": 300.5,
    "view_count": 7,
    "type": "local",
}
MLVU = {
    "video": "movie_1.mp4",
    "duration": 480.0,
    "question": "What happens first?",
    "candidates": ["A dog barks", "A door opens", "A bell rings", "A car stops"],
    "answer": "A bell rings",
    "question_type": "order",
}
VIDEOMME = {
    "video_id": "001",
    "duration": "long",
    "domain": "Knowledge",
    "sub_category": "Technology",
    "url": "https://example.org/1",
    "videoID": "AbC-123_xyz00",
    "question_id": "001-1",
    "task_type": "OCR Problems",
    "question": "What does the sign say?",
    "options": ["A. Open.", "B. Closed.", "C. Exit.", "D. A. Smith."],
    "answer": "D",
}


def write_json(path: Path, rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_lvb(root: Path, *rows: object) -> None:
    write_json(root / "longvideobench/lvb_val.json", list(rows))


def problems(root: Path) -> dict[str, str]:
    _, rejections = load_benchmarks(root)
    assert all(rejection.reason is Reason.BAD_ITEM for rejection in rejections)
    return {rejection.item: rejection.detail for rejection in rejections}


def test_longvideobench_is_read_from_its_json_file(tmp_path: Path) -> None:
    write_lvb(tmp_path, LVB)
    items, rejections = load_benchmarks(tmp_path)
    assert rejections == []
    assert items == [
        Item(
            id="longvideobench/abc_0",
            benchmark="longvideobench",
            video="videos/abc.mp4",
            question="What is on the table?",
            options=("a cup", "a book", "a lamp", "a hat", "a plate"),
            gold=2,
            duration_group="600",
            category="S2O",
        )
    ]


def test_longvideobench_parquet_gives_the_same_items_and_na_is_no_option(tmp_path: Path) -> None:
    four = LVB | {"id": "abc_1", "candidates": LVB["candidates"][:4]}
    write_lvb(tmp_path / "json", LVB, four)
    rows = []
    for row in (LVB, four):
        options = [*row["candidates"], "N/A"][:5]
        rest = {key: value for key, value in row.items() if key != "candidates"}
        rows.append(rest | {f"option{i}": option for i, option in enumerate(options)})
    write_parquet(tmp_path / "parquet/longvideobench/validation-00000-of-00001.parquet", rows)
    items, rejections = load_benchmarks(tmp_path / "parquet")
    assert (items, rejections) == load_benchmarks(tmp_path / "json")
    assert [len(item.options) for item in items] == [5, 4]


def test_mlvu_gold_is_found_by_its_text_and_generation_tasks_are_left_out(tmp_path: Path) -> None:
    write_json(tmp_path / "mlvu/MLVU/json/5_order.json", [MLVU, MLVU | {"duration": 5000, "answer": "A dog barks "}])
    write_json(tmp_path / "mlvu/MLVU/json/9_summary.json", [{"video": "x.mp4", "question": "?", "answer": "text"}])
    items, rejections = load_benchmarks(tmp_path)
    assert rejections == []
    assert [(item.id, item.gold, item.duration_group) for item in items] == [
        ("mlvu/5_order:0", 2, "5-10min"),
        ("mlvu/5_order:1", 0, ">30min"),
    ]
    assert items[0].video == "MLVU/video/5_order/movie_1.mp4"
    assert items[0].category == "order"


def test_mlvu_duration_groups_meet_at_full_minutes() -> None:
    assert [duration_group(s) for s in (299.9, 300, 600, 1800)] == ["<5min", "5-10min", "10-30min", ">30min"]


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_videomme_options_lose_their_letters_but_not_their_names(tmp_path: Path, ending: str) -> None:
    write = write_parquet if ending == "parquet" else write_json
    write(tmp_path / f"videomme/videomme/test-00000-of-00001.{ending}", [VIDEOMME])
    items, rejections = load_benchmarks(tmp_path)
    assert rejections == []
    assert items[0].options == ("Open.", "Closed.", "Exit.", "A. Smith.")
    assert (items[0].id, items[0].gold, items[0].duration_group) == ("videomme/001-1", 3, "long")
    assert items[0].video == "data/AbC-123_xyz00.mp4"


def test_videomme_options_without_letters_stay_as_they_are(tmp_path: Path) -> None:
    row = VIDEOMME | {"options": ["A. Smith", "Jones", "Miller", "Brown"]}
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [row])
    assert load_benchmarks(tmp_path)[0][0].options == ("A. Smith", "Jones", "Miller", "Brown")


def test_videomme_finds_a_video_with_another_ending(tmp_path: Path) -> None:
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [VIDEOMME])
    (tmp_path / "videomme/data").mkdir()
    (tmp_path / "videomme/data/AbC-123_xyz00.mkv").touch()
    assert load_benchmarks(tmp_path)[0][0].video == "data/AbC-123_xyz00.mkv"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"correct_choice": 5}, "the gold answer is option 5, but there are 5 options"),
        ({"correct_choice": -1}, "the gold answer is option -1, but there are 5 options"),
        ({"correct_choice": None}, "correct_choice"),
        ({"candidates": ["a cup", " ", "a lamp"]}, "option 1 is empty"),
        ({"candidates": ["a cup", "a lamp", "a lamp "]}, "the gold answer is there twice: 'a lamp'"),
        ({"candidates": [f"option {i}" for i in range(27)]}, "there are 27 options, more than letters"),
        ({"candidates": "abc"}, "candidates"),
        ({"question": "  "}, "the question is empty"),
        ({"question": "What is <video> here?"}, "the text '<video>' would be read as a model's control token"),
        ({"candidates": ["x<|im_end|>", "y", "z"]}, "the text '<|im_end|>' would be read as a model's control token"),
        ({"video_path": "../../secret.mp4"}, "the video's path leaves the benchmark's folder"),
        ({"video_path": "a\\..\\b.mp4"}, "the video's path leaves the benchmark's folder"),
        ({"video_path": "a\0.mp4"}, "the video's path is not usable"),
        ({"video_path": "a" * 300}, "the video's path is not usable"),
        ({"question": "\ud800"}, "question"),
        ({"duration_group": "long"}, "duration_group"),
    ],
)
def test_a_bad_row_is_set_aside_by_name_and_the_others_are_kept(tmp_path: Path, change: dict, expected: str) -> None:
    write_lvb(tmp_path, LVB, LVB | {"id": "abc_1"} | change)
    found = problems(tmp_path)
    assert list(found) == ["longvideobench/lvb_val.json:1"]
    assert expected in found["longvideobench/lvb_val.json:1"]
    assert [item.id for item in load_benchmarks(tmp_path)[0]] == ["longvideobench/abc_0"]


def test_rows_without_keys_without_shape_and_with_a_used_id_are_set_aside(tmp_path: Path) -> None:
    without_gold = {key: value for key, value in LVB.items() if key != "correct_choice"}
    write_lvb(tmp_path, LVB, without_gold, "text", None, LVB)
    found = problems(tmp_path)
    assert [name.rsplit(":", 1)[1] for name in found] == ["1", "2", "3", "4"]
    assert found["longvideobench/lvb_val.json:1"] == "correct_choice: Field required"
    assert found["longvideobench/lvb_val.json:4"] == "an earlier row has the id longvideobench/abc_0 too"


def test_mlvu_rows_with_gold_outside_the_options_or_an_absolute_path_are_set_aside(tmp_path: Path) -> None:
    rows = [MLVU, MLVU | {"answer": "Nothing"}, MLVU | {"duration": float("nan")}, MLVU | {"video": "../../../x.mp4"}]
    write_json(tmp_path / "mlvu/MLVU/json/2_needle.json", rows)
    found = problems(tmp_path)
    assert list(found) == [f"mlvu/2_needle.json:{i}" for i in (1, 2, 3)]
    assert found["mlvu/2_needle.json:1"] == "the gold answer 'Nothing' is not among the options"
    assert "duration" in found["mlvu/2_needle.json:2"]
    assert "leaves the benchmark's folder" in found["mlvu/2_needle.json:3"]


@pytest.mark.parametrize("answer", ["", "E", "d", "AB", "Ä"])
def test_videomme_rows_whose_gold_is_no_letter_of_an_option_are_set_aside(tmp_path: Path, answer: str) -> None:
    rows = [VIDEOMME, VIDEOMME | {"question_id": "001-2", "answer": answer}]
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", rows)
    assert "the gold answer" in problems(tmp_path)["videomme/test-00000-of-00001.json:1"]


def test_all_benchmarks_that_are_there_are_read_in_a_fixed_order(tmp_path: Path) -> None:
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [VIDEOMME])
    write_lvb(tmp_path, LVB)
    assert [item.benchmark for item in load_benchmarks(tmp_path)[0]] == ["longvideobench", "videomme"]


def test_no_benchmark_at_all_says_which_layouts_are_expected_where(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_benchmarks(tmp_path)
    for part in (str(tmp_path), "lvb_val.json", "mlvu/MLVU/json/<task>.json", "test-00000-of-00001.parquet"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["longvideobench", "mlvu", "videomme"])
def test_a_folder_without_questions_says_what_is_expected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"Expected: " + name):
        load_benchmarks(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b'{"a": 1}', b""])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = write_json(tmp_path / "longvideobench/lvb_val.json", [])
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"lvb_val\.json"):
        load_benchmarks(tmp_path)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "videomme/videomme/test-00000-of-00001.parquet"
    write_parquet(path, [VIDEOMME])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"parquet cannot be read"):
        load_benchmarks(tmp_path)


def test_rows_that_are_all_bad_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    write_lvb(tmp_path, LVB | {"correct_choice": 9})
    with pytest.raises(UserError, match=r"1 rows were set aside. The first: longvideobench/lvb_val.json:0: the gold"):
        load_benchmarks(tmp_path)
