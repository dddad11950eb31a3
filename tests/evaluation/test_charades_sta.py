"""Lines in the shape in which Charades-STA is downloaded; the texts are ours."""

from pathlib import Path

import pytest

from tpo.errors import UserError
from tpo.evaluation.benchmarks import charades_sta
from tpo.records import Granularity, Item, Reason, Task


def write(root: Path, *lines: str) -> Path:
    (root / "charades_sta_test.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root


def test_a_line_is_a_question_for_the_times(tmp_path: Path) -> None:
    items, rejections = charades_sta.load(write(tmp_path, "AB12C 24.3 30.4##a person waters a plant."))
    assert rejections == []
    assert items == [
        Item(
            id="charades_sta/0",
            benchmark="charades_sta",
            video="Charades_v1_480/AB12C.mp4",
            question="a person waters a plant.",
            task=Task.SPAN,
            spans_s=((24.3, 30.4),),
            duration_group="all",
            category="all",
            granularity=Granularity.LOCALIZED,
        )
    ]


def test_the_same_sentence_with_other_times_is_another_question_and_empty_lines_are_none(tmp_path: Path) -> None:
    line = "AB12C 1.0 2.0##a person waters a plant."
    items, rejections = charades_sta.load(write(tmp_path, line, "", line.replace("2.0", "3.0"), line))
    assert rejections == []
    assert [(item.id, item.spans_s) for item in items] == [
        ("charades_sta/0", ((1.0, 2.0),)),
        ("charades_sta/2", ((1.0, 3.0),)),
        ("charades_sta/3", ((1.0, 2.0),)),
    ]


def test_videos_are_found_in_either_folder(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/AB12C.mp4").touch()
    items, _ = charades_sta.load(write(tmp_path, "AB12C 1 2##a.", "XY12Z 1 2##b."))
    assert [item.video for item in items] == ["videos/AB12C.mp4", "Charades_v1_480/XY12Z.mp4"]


def test_an_absolute_path_is_one_below_the_folder_of_videos(tmp_path: Path) -> None:
    items, _ = charades_sta.load(write(tmp_path, "/etc/secret 1.0 2.0##a person."))
    assert items[0].video == "Charades_v1_480/etc/secret.mp4"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("AB12C 1.0 2.0 a person waters a plant.", "expected '<video> <start_s> <end_s>##<sentence>', got 'AB12C"),
        ("AB12C 1.0##a person.", "expected '<video> <start_s> <end_s>##<sentence>'"),
        ("AB12C 1.0 2.0##  ", "expected '<video> <start_s> <end_s>##<sentence>'"),
        ("AB12C one 2.0##a person.", "start_s"),
        ("AB12C -1.0 2.0##a person.", "start_s"),
        ("AB12C 1.0 nan##a person.", "end_s"),
        ("AB12C 1.0 inf##a person.", "end_s"),
        ("AB12C 2.0 2.0##a person.", "the moment ends at 2.0 s, not after its start at 2.0 s"),
        ("AB12C 3.0 2.0##a person.", "the moment ends at 2.0 s, not after its start at 3.0 s"),
        ("../../secret 1.0 2.0##a person.", "the video's path leaves the benchmark's folder"),
    ],
)
def test_a_bad_line_is_set_aside_by_its_number(tmp_path: Path, line: str, expected: str) -> None:
    items, rejections = charades_sta.load(write(tmp_path, "AB12C 1.0 2.0##a person.", line))
    assert [item.id for item in items] == ["charades_sta/0"]
    (rejection,) = rejections
    assert (rejection.item, rejection.reason) == ("charades_sta/charades_sta_test.txt:1", Reason.BAD_ITEM)
    assert expected in rejection.detail


def test_a_folder_without_the_file_or_with_a_damaged_one_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected: charades_sta/charades_sta_test\.txt"):
        charades_sta.load(tmp_path)
    (tmp_path / "charades_sta_test.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"charades_sta_test\.txt cannot be read"):
        charades_sta.load(tmp_path)
