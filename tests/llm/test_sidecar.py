"""Caption files as people have them: our JSON, SubRip and WebVTT, clean and broken."""

from pathlib import Path

import pytest

from tpo.llm.sidecar import SUFFIXES, CaptionFileError, SidecarCaption, find_sidecar, read_sidecar


def read(folder: Path, name: str, content: str | bytes) -> list[tuple[float, float, str]]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(c.start_s, c.end_s, c.text) for c in read_sidecar(path)]


SRT = """\
1
00:00:00,000 --> 00:00:08,500
A <i>red</i> star,
then <font color="#00ff00">a green one</font>.

2
00:00:08,500 --> 01:02:03,004  X1:40 X2:600 Y1:20 Y2:50
{\\an8}2 < 3 & 5 > 4


3
00:00:20,000 --> 00:00:18,000
- Who is it?
- Nobody.
"""
SRT_READ = [
    (0.0, 8.5, "A red star, then a green one."),
    (8.5, 3723.004, "2 < 3 & 5 > 4"),
    (20.0, 18.0, "- Who is it? - Nobody."),
]

VTT = """\
WEBVTT - made by hand
Kind: captions
Language: en

NOTE
A comment
over two lines

STYLE
::cue { color: lime }

REGION
id:left
width:40%

first cue
00:00.000 --> 00:08.500 align:start position:0%
<v Ann>a <c.red.loud>red</c> <00:00:03.000><b>star</b>

01:00:08.500 --> 01:00:10.000
Tom &amp; Jerry &lt;3

NOTE one line

100:00:00.000 --> 100:00:01.000
"""
VTT_READ = [(0.0, 8.5, "a red star"), (3608.5, 3610.0, "Tom & Jerry <3"), (360000.0, 360001.0, "")]


def test_our_json_is_read_in_the_files_order(tmp_path: Path) -> None:
    late, early = r'{"start_s": 8.5, "end_s": 9, "text": " a\nblue  moon "}', '{"start_s": 0, "end_s": 8.5, "text": ""}'
    text = f'{{"captions": [{late}, {early}]}}'
    assert read(tmp_path, "a.captions.json", text) == [(8.5, 9.0, "a blue moon"), (0.0, 8.5, "")]


def test_subrip_text_is_put_on_one_line_and_loses_its_tags(tmp_path: Path) -> None:
    assert read(tmp_path, "a.srt", SRT) == SRT_READ


def test_webvtt_headers_notes_styles_ids_and_settings_are_no_captions(tmp_path: Path) -> None:
    assert read(tmp_path, "a.vtt", VTT) == VTT_READ


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_any_line_ends_are_tolerated(tmp_path: Path, line_end: str, mark: bytes) -> None:
    assert read(tmp_path, "a.srt", mark + SRT.replace("\n", line_end).encode()) == SRT_READ
    assert read(tmp_path, "a.vtt", mark + VTT.replace("\n", line_end).encode()) == VTT_READ
    assert read(tmp_path, "a.captions.json", mark + f'{{"captions":{line_end}[]}}'.encode()) == []


def test_subrip_without_numbers_or_a_last_line_end_is_read(tmp_path: Path) -> None:
    text = "00:00:01,000 --> 00:00:02,000\none\n\n00:00:02.000 --> 00:00:03.000\ntwo ☂"
    assert read(tmp_path, "a.srt", text) == [(1.0, 2.0, "one"), (2.0, 3.0, "two ☂")]


def test_an_empty_subrip_file_and_a_bare_webvtt_header_hold_no_captions(tmp_path: Path) -> None:
    assert read(tmp_path, "a.srt", "") == []
    assert read(tmp_path, "a.srt", "\r\n \r\n") == []
    assert read(tmp_path, "a.vtt", "WEBVTT") == []


def test_an_escaped_tag_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n&lt;b&gt; is bold")[0][2] == "<b> is bold"


CUE = "00:00:01,000 --> 00:00:02,000"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", "1\nhello\n", "line 2: expected times like 00:01:02,500 --> 00:01:05,000, found 'hello'"),
        ("a.srt", f"1\n{CUE}\none\n\nstray\n", "line 5: expected a caption's number after a blank line, found 'stray'"),
        ("a.srt", f"1\n{CUE}\none\n2\n{CUE}\ntwo\n", "line 5: expected a blank line before the next caption"),
        ("a.srt", f"1\n{CUE}\none\n\n2", "line 6: expected times like .* after the number, found nothing"),
        ("a.srt", "1\n00:00:01 --> 00:00:02\none", "line 2: expected times like"),
        ("a.srt", "1\n00:61:00,000 --> 00:62:00,000\none", "line 2: expected times like"),
        ("a.srt", "1\n00:00:01,000 -> 00:00:02,000\none", "line 2: expected times like"),
        ("a.srt", f"1\n{CUE}\nna\xefve".encode("latin-1"), "line 3: expected UTF-8 text, found byte 0xef"),
        ("a.srt", f"1\n{CUE}\none".encode("utf-16"), "line 1: expected UTF-8 text, found byte 0xff"),
        ("a.srt", b"\x00\x01\x02\x03", "line 1: expected a caption's number"),
        ("a.vtt", "", "line 1: expected WEBVTT on the first line, found ''"),
        ("a.vtt", SRT, "line 1: expected WEBVTT on the first line, found '1'"),
        ("a.vtt", "\nWEBVTT\n", "line 2: expected WEBVTT on the first line"),
        ("a.vtt", "WEBVTTX\n", "line 1: expected WEBVTT on the first line, found 'WEBVTTX'"),
        ("a.vtt", "WEBVTT\n00:01.000 --> 00:02.000\none", "line 2: expected a blank line before the next caption"),
        ("a.vtt", "WEBVTT\n\nNOTE\n00:01.000 --> 00:02.000\none", "line 4: expected a blank line before the next"),
        ("a.vtt", "WEBVTT\n\nlost text\n", "line 3: expected times like"),
        ("a.vtt", "WEBVTT\n\nid\nlost text\n", "line 4: expected times like"),
        ("a.captions.json", '{"captions": [\n{"start_s": 0,\n', "Invalid JSON: EOF while parsing .* line 3"),
        ("a.captions.json", "[]", r'; expected \{"captions": \['),
        (
            "a.captions.json",
            '{"captions": [{"start_s": 0, "text": "a"}]}',
            r"captions.0.end_s: Field required; expected",
        ),
        (
            "a.captions.json",
            '{"captions": [{"start_s": "x", "end_s": 1, "text": "a"}]}',
            r"captions.0.start_s: .*number",
        ),
        ("a.captions.json", '{"captions": [{"start_s": 0, "end_s": NaN, "text": "a"}]}', r"captions.0.end_s: .*finite"),
        ("a.captions.json", '{"captions": [{"start_s": 0, "end_s": 1, "text": "\\ud800"}]}', "Invalid JSON"),
    ],
)
def test_a_broken_file_is_refused_with_its_line_and_what_was_expected(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(CaptionFileError, match=message):
        read(tmp_path, name, content)


def test_a_file_that_cannot_be_opened_is_a_caption_file_error(tmp_path: Path) -> None:
    with pytest.raises(CaptionFileError, match="cannot be read: No such file"):
        read_sidecar(tmp_path / "gone.srt")


def test_the_first_sidecar_in_the_listed_order_is_found(tmp_path: Path) -> None:
    video = tmp_path / "walk [1].v2.mp4"
    assert find_sidecar(video) is None
    (tmp_path / "walk [1].srt").touch()
    assert find_sidecar(video) is None, "the captions of another video"
    (tmp_path / "walk [1].v2.captions.json").mkdir()
    assert find_sidecar(video) is None, "a folder is no file"
    (tmp_path / "walk [1].v2.captions.json").rmdir()
    for suffix in reversed(SUFFIXES):
        (tmp_path / f"walk [1].v2{suffix}").touch()
        assert find_sidecar(video) == tmp_path / f"walk [1].v2{suffix}"


def test_a_thousand_captions_survive_writing_and_reading(tmp_path: Path) -> None:
    captions = [SidecarCaption(start_s=n / 8, end_s=(n + 1) / 8, text=f"event {n}") for n in range(1000)]

    def stamp(seconds: float) -> str:
        whole = int(seconds)
        return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{round(seconds % 1 * 1000):03}"

    text = "\n".join(
        f"{n}\n{stamp(c.start_s)} --> {stamp(c.end_s)}\n{c.text}\n" for n, c in enumerate(captions, start=1)
    )
    (tmp_path / "long.srt").write_text(text)
    assert read_sidecar(tmp_path / "long.srt") == captions
