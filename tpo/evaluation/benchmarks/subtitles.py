"""What is said in a video: LongVideoBench's two JSON shapes, and .srt files.

lines = read_subtitles(folder / item.subtitles, item.subtitles_start_s, video.duration_s)
shown = under_frames(lines, view.timestamps_s)
"""

import html
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SRT_TIMES = re.compile(r"\s*([\d:.,]+)\s*-->\s*([\d:.,]+)")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}")  # <font …>, <i>, and {\an8} as SubStation Alpha has it
_SHORTEST_S = 1.0  # LongVideoBench's own loader shows a shorter line as if it lasted so long


class SubtitleError(ValueError):
    """A subtitle file that says nothing usable; the text names it and says what to do. Callers count these."""


@dataclass(frozen=True)
class Line:
    """What is said from `start_s` to `end_s` seconds of the video."""

    start_s: float
    end_s: float
    text: str


def read_subtitles(path: Path, start_s: float, duration_s: float) -> list[Line]:
    """The lines of a .json or .srt file in time order; lines with the same times all stay.

    Args:
        start_s: the moment of the file's clock at which the video begins. Times are given on the video's clock, so
            that those of lines before it are negative.
        duration_s: of the video. A line without an end lasts until then. An end that is a whole number is an end:
            LongVideoBench's own loader takes it for none.

    Raises:
        SubtitleError: the file is missing, empty or damaged, or has another format.
    """
    text = _read_text(path)
    entries = _read_json(path, text) if path.suffix == ".json" else _read_srt(path, text)
    lines = [
        Line(begin - start_s, duration_s if end is None else end - start_s, words)
        for begin, end, said in entries
        if (words := " ".join(html.unescape(_TAG.sub("", said)).split()))
    ]
    return sorted(lines, key=lambda line: (line.start_s, line.end_s))


def under_frames(lines: Iterable[Line], timestamps_s: Iterable[float]) -> list[str]:
    """What is said while one of the sampled frames is shown, in time order, each line once.

    As LongVideoBench's own loader does it: a line under a second is stretched to one around its middle, and a frame
    lies strictly between the two ends.
    """
    moments = list(timestamps_s)
    said = []
    for line in sorted(lines, key=lambda line: (line.start_s, line.end_s)):
        start_s, end_s = line.start_s, line.end_s
        if end_s - start_s < _SHORTEST_S:
            middle_s = (start_s + end_s) / 2
            start_s, end_s = middle_s - _SHORTEST_S / 2, middle_s + _SHORTEST_S / 2
        if any(start_s < moment < end_s for moment in moments):
            said.append(line.text)
    return said


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SubtitleError(f"{path} cannot be read: {error.strerror}. Download the subtitles again.") from error
    text = _decode(data)
    if not text.strip():
        raise SubtitleError(f"{path} is empty. Download the subtitles again.")
    return text


def _decode(data: bytes) -> str:
    """UTF-8 or UTF-16, with or without a byte order mark; what is neither was written on an old Windows computer."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data[:200]:  # Latin letters in UTF-16 have a zero byte each
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", errors="replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


Entry = tuple[float, float | None, str]  # start and end in seconds of the file's clock, text


def _read_json(path: Path, text: str) -> list[Entry]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise SubtitleError(f"{path} is no JSON: {error}. Download the subtitles again.") from error
    if not isinstance(rows, list):
        raise SubtitleError(f"{path} holds a JSON {type(rows).__name__}, expected a list of lines.")
    return [_json_entry(path, number, row) for number, row in enumerate(rows)]


def _json_entry(path: Path, number: int, row: Any) -> Entry:
    """{"start": "00:00:01.500", "end": …, "line": …}, or {"timestamp": [1.5, null], "text": …}."""
    try:
        if "timestamp" in row:
            (start, end), text = row["timestamp"], row["text"]
        else:
            start, end, text = row["start"], row["end"], row["line"]
        return _seconds(start), None if end is None else _seconds(end), text.strip()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SubtitleError(f"{path}, line {number} (from 0) has no text, start or end that can be read.") from error


def _read_srt(path: Path, text: str) -> list[Entry]:
    """An entry begins with its times; before them stands its number, which belongs to no text."""
    rows = text.splitlines()
    times = [(at, match) for at, row in enumerate(rows) if (match := _SRT_TIMES.match(row))]
    if not times:
        raise SubtitleError(f"{path} has no line like 00:00:01,000 --> 00:00:02,000. Download the subtitles again.")
    ends = [at for at, _ in times[1:]] + [len(rows)]
    entries: list[Entry] = []
    for (at, match), end in zip(times, ends, strict=True):
        try:
            start_s, end_s = _seconds(match[1]), _seconds(match[2])
        except ValueError as error:
            raise SubtitleError(f"{path}, row {at + 1}: {rows[at][:80]!r} are no times.") from error
        entries.append((start_s, end_s, " ".join(_without_number(rows[at + 1 : end], last=end == len(rows)))))
    return entries


def _without_number(rows: Sequence[str], *, last: bool) -> Sequence[str]:
    return rows[:-1] if rows and not last and rows[-1].strip().isdecimal() else rows


def _seconds(value: Any) -> float:
    """1.5, 1 and "00:00:01.500" in seconds."""
    if isinstance(value, str):
        match = _CLOCK.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is no time")
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no time")
    return float(value)
