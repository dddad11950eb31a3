"""Subtitle files in the shapes in which they are downloaded; the words are ours."""

import json
from pathlib import Path

import pytest

from tpo.evaluation.benchmarks.subtitles import Line, SubtitleError, read_subtitles, under_frames

SRT = """1
00:00:01,000 --> 00:00:03,500
<font color="white" size=".72c">Good <i>morning</i>.</font>

2
00:00:04,000 --> 00:00:06,000
{\\an8}What a day,
isn't it?

3
00:00:04,000 --> 00:00:06,000
[birds &amp; wind]

4
01:00:00.250 --> 01:00:01,000
42
"""


def write(path: Path, content: object) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_both_json_shapes_give_the_same_lines_on_the_videos_clock(tmp_path: Path) -> None:
    clock = [{"start": "00:00:31.500", "end": "00:00:33.000", "line": "Hello."}]
    numbers = [{"timestamp": [31.5, 33.0], "text": "Hello."}]
    expected = [Line(1.5, 3.0, "Hello.")]
    assert read_subtitles(write(tmp_path / "a.json", clock), 30, 60.0) == expected
    assert read_subtitles(write(tmp_path / "b.json", numbers), 30, 60.0) == expected


def test_a_whole_number_is_an_end_and_no_end_is_that_of_the_video(tmp_path: Path) -> None:
    rows = [{"timestamp": [1, 4], "text": "one"}, {"timestamp": [5.5, None], "text": "two"}]
    lines = read_subtitles(write(tmp_path / "a.json", rows), 0.5, 60.0)
    assert [(line.start_s, line.end_s) for line in lines] == [(0.5, 3.5), (5.0, 60.0)]


def test_lines_before_the_video_begins_have_negative_times_and_are_under_no_frame(tmp_path: Path) -> None:
    rows = [{"timestamp": [2.0, 4.0], "text": "before"}, {"timestamp": [31.0, 33.0], "text": "in it"}]
    lines = read_subtitles(write(tmp_path / "a.json", rows), 30, 60.0)
    assert lines[0] == Line(-28.0, -26.0, "before")
    assert under_frames(lines, [0.0, 2.0, 3.0]) == ["in it"]


def test_srt_loses_its_tags_and_numbers_and_no_line(tmp_path: Path) -> None:
    assert read_subtitles(write(tmp_path / "a.srt", SRT.encode()), 0, 4000.0) == [
        Line(1.0, 3.5, "Good morning."),
        Line(4.0, 6.0, "What a day, isn't it?"),
        Line(4.0, 6.0, "[birds & wind]"),
        Line(3600.25, 3601.0, "42"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_usual_encoding_is_read(tmp_path: Path, encoding: str, ends: str) -> None:
    text = ends.join(["1", "00:00:01,000 --> 00:00:02,000", "Café déjà vu", ""])
    lines = read_subtitles(write(tmp_path / "a.srt", text.encode(encoding)), 0, 9.0)
    assert lines == [Line(1.0, 2.0, "Café déjà vu")]


def test_json_is_read_in_another_encoding_too(tmp_path: Path) -> None:
    text = json.dumps([{"timestamp": [1.0, 2.0], "text": "Café"}], ensure_ascii=False)
    path = write(tmp_path / "a.json", text.encode("utf-16"))
    assert read_subtitles(path, 0, 9.0) == [Line(1.0, 2.0, "Café")]


def test_a_silent_video_has_a_list_of_no_lines(tmp_path: Path) -> None:
    assert read_subtitles(write(tmp_path / "a.json", []), 0, 9.0) == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.srt", b"", "a.srt is empty. Download the subtitles again"),
        ("a.json", b" \n", "a.json is empty"),
        ("a.srt", b"\xef\xbb\xbf", "a.srt is empty"),
        ("a.srt", b"WEBVTT, but not really", "has no line like 00:00:01,000 --> 00:00:02,000"),
        ("a.srt", b"1\n00:00:01,000 --> 77\nHello.", "row 2: '00:00:01,000 --> 77' are no times"),
        ("a.json", b"{", "is no JSON"),
        ("a.json", b'{"a": 1}', "holds a JSON dict, expected a list of lines"),
        ("a.json", b'[{"timestamp": [1.0, 2.0]}]', "line 0 (from 0) has no text, start or end"),
        ("a.json", b'[{"timestamp": [1.0, 2.0], "text": null}]', "line 0 (from 0) has no text, start or end"),
        ("a.json", b'[{"timestamp": 1.0, "text": "x"}]', "line 0 (from 0) has no text, start or end"),
        ("a.json", b'[{"start": "soon", "end": "later", "line": "x"}]', "line 0 (from 0) has no text, start or end"),
        ("a.json", b'[{"timestamp": [NaN, 2.0], "text": "x"}]', "line 0 (from 0) has no text, start or end"),
        ("a.json", b'["x"]', "line 0 (from 0) has no text, start or end"),
    ],
)
def test_an_unusable_file_is_an_error_that_names_it(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    with pytest.raises(SubtitleError) as error:
        read_subtitles(write(tmp_path / name, content), 0, 9.0)
    assert expected in str(error.value)


def test_a_missing_file_is_the_same_kind_of_error(tmp_path: Path) -> None:
    with pytest.raises(SubtitleError, match=r"a.srt cannot be read: No such file"):
        read_subtitles(tmp_path / "a.srt", 0, 9.0)


def test_only_lines_under_the_frames_are_shown_once_and_in_time_order() -> None:
    lines = [Line(20.0, 25.0, "late"), Line(1.0, 5.0, "early"), Line(8.0, 12.0, "between"), Line(1.0, 5.0, "also")]
    assert under_frames(lines, [22.0, 2.0, 3.0]) == ["early", "also", "late"]
    assert under_frames(lines, [6.0, 7.0]) == []


def test_a_short_line_counts_as_one_of_a_second_and_a_frame_at_an_end_is_not_under_it() -> None:
    blink = [Line(10.0, 10.2, "blink")]  # shown from 9.6 to 10.6 s
    assert under_frames(blink, [9.7]) == ["blink"]
    assert under_frames(blink, [10.5]) == ["blink"]
    assert under_frames(blink, [9.5, 10.7]) == []
    assert under_frames([Line(2.0, 4.0, "line")], [2.0, 4.0]) == []
