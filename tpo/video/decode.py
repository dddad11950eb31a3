"""Frames by timestamp. The one place that turns a `View` into pixels."""

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo.records import View

_CHUNK_FRAMES = 64


class DecodeError(Exception):
    """The file could not be decoded; the text says what the decoder said."""


@dataclass(frozen=True)
class Frames:
    """Decoded frames: pixels uint8 [n, h, w, 3] (RGB) and the moment each is first on display, float64 [n] seconds."""

    pixels: np.ndarray
    timestamps_s: np.ndarray
    decoder: str
    decoder_version: str


def frame_starts_s(reader: Any) -> np.ndarray:
    """When each frame of a `decord.VideoReader` is first on display, in seconds from the file's zero, float64 [n].

    A file that was cut without encoding it again begins with frames that are never shown (before its edit list starts,
    or without what they refer to). decord lists them, with negative times, and does not return them; so its n-th frame
    is the n-th of the others.
    """
    starts_s: np.ndarray = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
    return starts_s[starts_s >= 0]


def last_words(error: Exception, path: str) -> str:
    """The last line of a decoder's complaint, the same each time: no clock, no path but the file's name."""
    line = (str(error).strip() or type(error).__name__).splitlines()[-1].replace(path, Path(path).name)
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", line)


def decode(path: Path, view: View) -> Frames:
    """Read the frames on display at the view's timestamps, in the view's order.

    The file is read in order from the start: sparse reads by decord give wrong frames, without an error, on files with
    open groups of pictures (dmlc/decord#365), in-order reads never do. Timestamps count from the first frame.

    Raises:
        DecodeError: the file cannot be opened or decoded.
    """
    import decord

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        starts_s = frame_starts_s(reader)
        starts_s = starts_s - starts_s[0]
        # A millisecond of tolerance: 3.3335 is written down as 3.333, and decord's times are float32.
        wanted = np.searchsorted(starts_s, np.asarray(view.timestamps_s) + 1e-3, side="right") - 1
        wanted = np.clip(wanted, 0, len(starts_s) - 1)
        needed = set(wanted.tolist())
        kept: dict[int, np.ndarray] = {}
        for first in range(0, int(wanted.max()) + 1, _CHUNK_FRAMES):
            chunk = range(first, min(first + _CHUNK_FRAMES, len(starts_s)))
            pixels = reader.get_batch(list(chunk)).asnumpy()
            kept |= {index: pixels[index - first] for index in needed.intersection(chunk)}
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise DecodeError(f"{path.name}: {last_words(error, str(path))}") from error
    return Frames(
        pixels=np.stack([kept[index] for index in wanted.tolist()]),
        timestamps_s=starts_s[wanted],
        decoder="decord",
        decoder_version=importlib.metadata.version("decord2"),
    )
