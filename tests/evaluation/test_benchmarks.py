"""The layouts in which the benchmarks are downloaded, read as items."""

from pathlib import Path

import pytest
from benchmark_rows import LVB, MLVU, VIDEOMME, write_json, write_lvb, write_parquet

from tpo.errors import UserError
from tpo.evaluation.benchmarks import find_items, load_benchmarks
from tpo.evaluation.benchmarks.defects import GOLD_TWICE
from tpo.evaluation.benchmarks.mlvu import duration_group
from tpo.records import Granularity, Item, Task


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
            subtitles="subtitles/abc_en.json",
            subtitles_start_s=12.5,
            duration_s=300.5,
            duration_group="600",
            category="S2O",
            granularity=Granularity.LOCALIZED,
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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"starting_timestamp_for_subtitles": 30, "type": "global"}, (30.0, Granularity.COMPREHENSIVE)),
        ({"starting_timestamp_for_subtitles": 0, "type": "other"}, (0.0, None)),
    ],
)
def test_longvideobench_offsets_may_be_whole_numbers_and_other_types_are_of_no_granularity(
    tmp_path: Path, change: dict, expected: tuple
) -> None:
    write_lvb(tmp_path, LVB | change)
    item = load_benchmarks(tmp_path)[0][0]
    assert (item.subtitles_start_s, item.granularity) == expected


def test_longvideobench_needs_only_what_a_question_is_made_of(tmp_path: Path) -> None:
    needed = ("id", "video_path", "question", "candidates", "correct_choice", "duration_group", "question_category")
    write_lvb(tmp_path, {key: LVB[key] for key in needed})
    item = load_benchmarks(tmp_path)[0][0]
    assert (item.subtitles, item.duration_s, item.granularity) == (None, None, None)


def test_longvideobench_parquet_in_several_parts_is_read_whole(tmp_path: Path) -> None:
    rest = {key: value for key, value in LVB.items() if key != "candidates"}
    options = {f"option{i}": option for i, option in enumerate(LVB["candidates"])}
    for part in range(2):
        path = tmp_path / f"longvideobench/validation-0000{part}-of-00002.parquet"
        write_parquet(path, [rest | options | {"id": f"abc_{part}"}])
    assert [item.id for item in load_benchmarks(tmp_path)[0]] == ["longvideobench/abc_0", "longvideobench/abc_1"]


def test_mlvu_gold_is_found_by_its_text(tmp_path: Path) -> None:
    again = MLVU | {"duration": 5000, "answer": "A dog barks ", "question": "What happens last?"}
    write_json(tmp_path / "mlvu/MLVU/json/5_order.json", [MLVU, again])
    items, rejections = load_benchmarks(tmp_path)
    assert rejections == []
    assert [(item.id, item.gold, item.duration_group) for item in items] == [
        ("mlvu/5_order:0", 2, "5-10min"),
        ("mlvu/5_order:1", 0, ">30min"),
    ]
    assert items[0].video == "MLVU/video/5_order/movie_1.mp4"
    assert (items[0].category, items[0].granularity) == ("order", Granularity.COMPREHENSIVE)


def test_mlvu_generation_tasks_have_a_reference_and_scoring_points_where_they_are_listed(tmp_path: Path) -> None:
    row = {"video": "x.mp4", "duration": 400, "question": "Describe it.", "answer": "A boat sails."}
    sub_scene = row | {"question_type": "subPlot", "scoring_points": ["a boat", "it sails"]}
    write_json(tmp_path / "mlvu/MLVU/json/8_sub_scene.json", [sub_scene])
    write_json(tmp_path / "mlvu/MLVU/json/9_summary.json", [row | {"question_type": "summary"}])
    items, rejections = load_benchmarks(tmp_path)
    assert rejections == []
    assert [(item.task, item.options, item.gold, item.reference) for item in items] == [
        (Task.OPEN, (), None, "A boat sails.")
    ] * 2
    assert [item.scoring_points for item in items] == [("a boat", "it sails"), ()]
    assert [item.category for item in items] == ["sub_scene", "summary"]
    assert [item.granularity for item in items] == [Granularity.LOCALIZED, Granularity.COMPREHENSIVE]


@pytest.mark.parametrize(
    ("said", "category"),
    [("findNeedle", "needle"), ("needleQA", "needle"), ("needle", "needle"), ("subPlot", "sub_scene"), ("ego", "ego")],
)
def test_mlvu_tasks_have_one_name_whatever_the_file_calls_them(tmp_path: Path, said: str, category: str) -> None:
    write_json(tmp_path / "mlvu/MLVU/json/2_needle.json", [MLVU | {"question_type": said}])
    assert load_benchmarks(tmp_path)[0][0].category == category


def test_the_test_set_of_mlvu_has_six_options_and_is_a_benchmark_of_its_own(tmp_path: Path) -> None:
    six = [*MLVU["candidates"], "A cat sleeps", "A phone rings"]
    count = {"candidates": [1, 2, 3, 4, 5, 6], "answer": 4, "question_type": "count", "question_id": "AC_0"}
    rows = [MLVU | {"candidates": six, "question_id": "AO_0"}, MLVU | count]
    write_json(tmp_path / "mlvu_test/test-ground-truth/test_mcq_gt.json", rows)
    scene = {"video": "y.mp4", "duration": 400, "question": "Describe it.", "answer": "A boat sails."}
    scene |= {"question_type": "subsummary", "scoring_points": ["a boat"]}
    write_json(tmp_path / "mlvu_test/test-ground-truth/test_ssc_gt.json", [scene])
    items, rejections = load_benchmarks(tmp_path)
    assert rejections == []
    assert [(item.id, item.benchmark, item.category, item.task) for item in items] == [
        ("mlvu_test/AO_0", "mlvu_test", "order", Task.CHOICE),
        ("mlvu_test/AC_0", "mlvu_test", "count", Task.CHOICE),
        ("mlvu_test/test_ssc_gt:0", "mlvu_test", "sub_scene", Task.OPEN),
    ]
    assert [len(item.options) for item in items] == [6, 6, 0]
    assert (items[1].options[3], items[1].gold) == ("4", 3)
    assert items[0].video == "MLVU_Test/video/movie_1.mp4"


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


def test_videomme_has_the_subtitles_that_are_on_disk(tmp_path: Path) -> None:
    rows = [VIDEOMME, VIDEOMME | {"question_id": "002-1", "videoID": "silent"}]
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", rows)
    (tmp_path / "videomme/subtitle").mkdir()
    (tmp_path / "videomme/subtitle/AbC-123_xyz00.srt").touch()
    assert [item.subtitles for item in load_benchmarks(tmp_path)[0]] == ["subtitle/AbC-123_xyz00.srt", None]


def test_videomme_keeps_the_letter_of_the_file_where_two_options_read_the_same(tmp_path: Path) -> None:
    row = VIDEOMME | {"options": ["A. Open.", "B. Closed.", "C. Exit.", "D. Closed."]}
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [row])
    item = load_benchmarks(tmp_path)[0][0]
    assert (item.gold, item.defects) == (3, (GOLD_TWICE,))


def test_texts_stay_as_they_stand_in_the_file_with_their_white_space(tmp_path: Path) -> None:
    """Prompts then equal those of others letter by letter; comparing texts is done without it."""
    row = VIDEOMME | {"question": "What does it say? ", "options": ["A. Open. ", "B. Closed.", "C. Exit.", "D.  In."]}
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [row])
    item = load_benchmarks(tmp_path)[0][0]
    assert (item.question, item.options) == ("What does it say? ", ("Open. ", "Closed.", "Exit.", " In."))


def test_videomme_finds_a_video_with_another_ending(tmp_path: Path) -> None:
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [VIDEOMME])
    (tmp_path / "videomme/data").mkdir()
    (tmp_path / "videomme/data/AbC-123_xyz00.mkv").touch()
    assert load_benchmarks(tmp_path)[0][0].video == "data/AbC-123_xyz00.mkv"


def test_all_benchmarks_that_are_there_are_read_in_a_fixed_order(tmp_path: Path) -> None:
    write_json(tmp_path / "videomme/videomme/test-00000-of-00001.json", [VIDEOMME])
    write_lvb(tmp_path, LVB)
    assert [item.benchmark for item in load_benchmarks(tmp_path)[0]] == ["longvideobench", "videomme"]


def test_no_benchmark_at_all_says_which_layouts_are_expected_where(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_benchmarks(tmp_path)
    for part in (str(tmp_path), "lvb_val.json", "mlvu/MLVU/json/<task>.json", "test-00000-of-00001.parquet"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["longvideobench", "mlvu", "mlvu_test", "videomme"])
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


def test_work_that_does_without_benchmarks_gets_free_questions_too_and_else_the_complaint(tmp_path: Path) -> None:
    row = {
        "video": "x.mp4",
        "duration": 400,
        "question": "Describe it.",
        "answer": "A boat.",
        "question_type": "summary",
    }
    write_json(tmp_path / "mlvu/MLVU/json/9_summary.json", [row])
    items, note = find_items(tmp_path)
    assert ([item.question for item in items], note) == (["Describe it."], "")
    items, note = find_items(tmp_path / "nowhere")
    assert items == []
    assert "No benchmark below" in note
