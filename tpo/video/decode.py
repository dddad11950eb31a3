"""Frames by timestamp. The one place that turns a `View` into pixels."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

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
        starts_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        starts_s = starts_s - starts_s[0]
        # Half a millisecond of tolerance, so that a timestamp written down as 3.333 finds the frame at 3.3333.
        wanted = np.searchsorted(starts_s, np.asarray(view.timestamps_s) + 5e-4, side="right") - 1
        wanted = np.clip(wanted, 0, len(starts_s) - 1)
        needed = set(wanted.tolist())
        kept: dict[int, np.ndarray] = {}
        for first in range(0, int(wanted.max()) + 1, _CHUNK_FRAMES):
            chunk = range(first, min(first + _CHUNK_FRAMES, len(reader)))
            pixels = reader.get_batch(list(chunk)).asnumpy()
            kept |= {index: pixels[index - first] for index in needed.intersection(chunk)}
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        said = str(error).strip().splitlines()[-1].replace(str(path), path.name)  # records name no machine's folders
        raise DecodeError(f"{path.name}: {said}") from error
    return Frames(
        pixels=np.stack([kept[index] for index in wanted.tolist()]),
        timestamps_s=starts_s[wanted],
        decoder="decord",
        decoder_version=importlib.metadata.version("decord2"),
    )
