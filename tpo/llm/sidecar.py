"""The captions that lie beside a video: `VIDEO.captions.json`, `VIDEO.srt` or `VIDEO.vtt`, also `VIDEO.en.srt`.

    path = find_sidecar(Path("videos/walk.mp4"))     # videos/walk.srt
    captions = read_sidecar(path)                    # in the file's order, text on one line and without tags

The JSON form is ours: `{"captions": [{"start_s": 0.0, "end_s": 8.5, "text": "a red star"}, …]}`. Nothing is guessed: a
file that does not follow its format is an error that names the line. Whether the times fit the video is not asked here.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from tpo.records import Record

SUFFIXES = (".captions.json", ".srt", ".vtt", ".en.srt", ".en.vtt")

_TIME = r"(?:([0-9]{1,4}):)?([0-5]?[0-9]):([0-5][0-9])[.,]([0-9]{3})"
# SubRip may have screen coordinates after the times, WebVTT settings such as `align:start`.
_TIMING = re.compile(rf"{_TIME}[ \t]*-->[ \t]*{_TIME}(?:[ \t].*)?")
_TIMING_FORM = "times like 00:01:02,500 --> 00:01:05,000"
# <i>, </c.color>, <v Ann>, <00:01:02.500> and SubRip's {\an8}; a lone "<", as in "2 < 3", is text.
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|</?[0-9:.]+>|\{\\[^{}]*\}")
_VTT_BLOCKS_TO_SKIP = re.compile(r"(?:NOTE|STYLE|REGION)(?:[ \t].*)?")


class CaptionFileError(Exception):
    """A caption file that does not follow its format: which line, and what was expected there."""


class SidecarCaption(Record):
    """One caption as the file has it; its times are unchecked."""

    start_s: float
    end_s: float
    text: str


class _CaptionFile(Record):
    captions: list[SidecarCaption]


class _Line(NamedTuple):
    number: int
    text: str


def find_sidecar(video_path: Path) -> Path | None:
    """The caption file beside a video, the first of `SUFFIXES` that exists, or None."""
    candidates = (video_path.with_name(video_path.stem + suffix) for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_sidecar(path: Path) -> list[SidecarCaption]:
    """Read a caption file, in the file's order. Texts come without tags, lines joined by a space; they may be empty.

    Raises:
        CaptionFileError: the file cannot be read or does not follow its format.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CaptionFileError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CaptionFileError(
            f"line {line}: expected UTF-8 text, found byte {error.object[error.start]:#x}"
        ) from error
    if path.suffix == ".json":
        return _read_json(text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks = _blocks([_Line(number, line) for number, line in enumerate(lines, start=1)])
    return list(_read_vtt(blocks) if path.suffix == ".vtt" else _read_srt(blocks))


def _read_json(text: str) -> list[SidecarCaption]:
    try:
        return [
            caption.model_copy(update={"text": " ".join(caption.text.split())})
            for caption in _CaptionFile.model_validate_json(text).captions
        ]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CaptionFileError(
            f"{f'{where}: ' if where else ''}{first['msg']}; expected "
            '{"captions": [{"start_s": 0.0, "end_s": 8.5, "text": "…"}, …]}'
        ) from error


def _blocks(lines: list[_Line]) -> Iterator[list[_Line]]:
    """Runs of lines between blank lines."""
    block: list[_Line] = []
    for line in lines:
        if line.text.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _read_srt(blocks: Iterator[list[_Line]]) -> Iterator[SidecarCaption]:
    for block in blocks:
        first, *rest = block
        if "-->" in first.text:
            yield _cue(block)
        elif not re.fullmatch(r"[0-9]+", first.text.strip()):
            raise _unexpected(first, "a caption's number after a blank line")
        elif not rest:
            raise CaptionFileError(f"line {first.number + 1}: expected {_TIMING_FORM} after the number, found nothing")
        else:
            yield _cue(rest)


def _read_vtt(blocks: Iterator[list[_Line]]) -> Iterator[SidecarCaption]:
    header = next(blocks, [_Line(1, "")])
    if header[0].number != 1 or not re.fullmatch(r"WEBVTT(?:[ \t].*)?", header[0].text):
        raise _unexpected(header[0], "WEBVTT on the first line")
    _refuse_timings(header)
    for block in blocks:
        if "-->" in block[0].text:
            cue = _cue(block)
        elif _VTT_BLOCKS_TO_SKIP.fullmatch(block[0].text):
            _refuse_timings(block)
            continue
        elif len(block) == 1:
            raise _unexpected(block[0], _TIMING_FORM)
        else:
            cue = _cue(block[1:])
        # Only WebVTT writes &amp; for &. Last, so that an escaped tag stays text.
        yield cue.model_copy(update={"text": " ".join(html.unescape(cue.text).split())})


def _cue(block: list[_Line]) -> SidecarCaption:
    """A timing line and the text below it."""
    timing, *lines = block
    times = _TIMING.fullmatch(timing.text.strip())
    if times is None:
        raise _unexpected(timing, _TIMING_FORM)
    _refuse_timings(lines)
    start_s, end_s = _seconds(*times.groups()[:4]), _seconds(*times.groups()[4:])
    text = _TAG.sub("", " ".join(line.text for line in lines))
    return SidecarCaption(start_s=start_s, end_s=end_s, text=" ".join(text.split()))


def _refuse_timings(lines: list[_Line]) -> None:
    """A forgotten blank line would otherwise hide the next caption."""
    for line in lines:
        if "-->" in line.text:
            raise _unexpected(line, "a blank line before the next caption")


def _seconds(hours: str | None, minutes: str, seconds: str, milliseconds: str) -> float:
    return (int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)) + int(milliseconds) / 1000


def _unexpected(line: _Line, expected: str) -> CaptionFileError:
    return CaptionFileError(f"line {line.number}: expected {expected}, found {line.text.strip()[:80]!r}")
