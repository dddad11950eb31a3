"""New video files from parts of others: a clip cut out, a clip put into a long video.

    cut(Path("clip.mp4"), Part(path, video, 12.0, 18.5), index_dir)
    spliced = splice(folder, [Part(…), Part(clip, …), Part(…)], like=video, index_dir=index_dir)

Everything is decoded and encoded again as H.264, so that a part may begin at any frame, and looks no sharper than its
neighbours. Sound is left out.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags

from tpo.records import Video, content_id
from tpo.video.decode import errors_named, read_frames, stretched
from tpo.video.frame_index import FrameIndex
from tpo.video.measure import load_index

_VERSION = "v1"  # part of the names of kept files: raise it when other pixels would be written
_TIME_BASE = Fraction(1, 90_000)  # every common frame rate has a whole, or nearly whole, number of these
_EDGE_S = 0.6e-3  # as near to a cut as this is on it
# Ours: nearly without loss, for encoding again must not be what a test measures. The same bytes on any machine: x264's
# depend on the number of threads, and on the processor unless it is told not to. An MP4 with B-frames has no place for
# how long its last frame is on display.
_H264 = {"preset": "veryfast", "crf": "17", "g": "48", "bf": "0", "x264-params": "cpu-independent=1"}
_THREADS = 4


@dataclass(frozen=True)
class Part:
    """A stretch of a video file, from `start_s` up to, not including, `end_s`, counted from its first frame."""

    path: Path
    video: Video
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s <= self.video.duration_s + _EDGE_S:
            stretch = f"{self.start_s:g} to {self.end_s:g} s"
            raise ValueError(f"{self.path.name} is {self.video.duration_s:g} s long and has no part {stretch}")


@dataclass(frozen=True)
class Spliced:
    """A file made of parts. Part `i` is on display from `bounds_s[i]` up to, not including, `bounds_s[i + 1]`."""

    path: Path
    bounds_s: tuple[float, ...]


def cut(out: Path, part: Part, index_dir: Path) -> None:
    """Write one part as a file of its own, whole or not at all.

    Raises:
        DecodeError: the video cannot be decoded, or is not the one that was measured.
        OSError: the file cannot be written.
    """
    _write(out, [part], part.video, index_dir)


def splice(folder: Path, parts: Sequence[Part], like: Video, index_dir: Path) -> Spliced:
    """A file below `folder` that shows parts one after the other, in the size and at the frame rate of `like`.

    Parts of `like` keep their frames and timestamps, also where these are not at a constant rate. Parts of others are
    stretched (bars would tell them apart from afar), and show at each tick of the frame rate what they show in the
    middle of it. The file's name stands for what is in it: if it is there it is not written again.

    Raises:
        DecodeError: a video cannot be decoded, or is not the one that was measured.
        OSError: the file cannot be written.
    """
    what = [(part.video.id, part.start_s, part.end_s) for part in parts]
    out = folder / f"{content_id(_VERSION, av.__version__, _H264, like.id, what)}.mp4"
    if not out.is_file():
        _write(out, parts, like, index_dir)
    return Spliced(out, tuple(accumulate((_length_s(part, like) for part in parts), initial=0.0)))


def _length_s(part: Part, like: Video) -> float:
    if part.video.id == like.id:
        return part.end_s - part.start_s
    return _num_ticks(part, like) / like.fps


def _num_ticks(part: Part, like: Video) -> int:
    return max(1, round((part.end_s - part.start_s) * like.fps))


def _write(out: Path, parts: Sequence[Part], like: Video, index_dir: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=".", suffix=".partial", delete=False) as partial:
        try:
            _encode(partial.name, parts, like, index_dir)
            os.fsync(partial.fileno())
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise
    Path(partial.name).chmod(0o644)  # files made for a moment are for their owner alone
    Path(partial.name).replace(out)


def _encode(file: str, parts: Sequence[Part], like: Video, index_dir: Path) -> None:
    size = (like.height, like.width, 3)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(like.fps).limit_denominator(1001), options=_H264)
        stream.height, stream.width = like.height, like.width
        # Colour at half the size, as everybody's files are, where the size can be halved.
        stream.pix_fmt = "yuv444p" if like.height % 2 or like.width % 2 else "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.flags |= Flags.frame_duration  # or the last frame is shown as long as any
        stream.thread_count = _THREADS
        offset_s = 0.0
        for part in parts:
            length_s = _length_s(part, like)
            for pixels, start_s, end_s in _frames(part, like, length_s, index_dir):
                fitted = pixels if pixels.shape == size else stretched(pixels, size)
                frame = av.VideoFrame.from_ndarray(fitted, format="rgb24")
                frame.time_base, frame.pts = _TIME_BASE, round((offset_s + start_s) / _TIME_BASE)
                frame.duration = round((offset_s + end_s) / _TIME_BASE) - frame.pts
                container.mux(stream.encode(frame))
            offset_s += length_s
        container.mux(stream.encode())


def _frames(part: Part, like: Video, length_s: float, index_dir: Path) -> Iterator[tuple[np.ndarray, float, float]]:
    """A part's pictures, each with when its display begins and ends, in seconds from the part's beginning."""
    with errors_named(part.path):
        index = load_index(index_dir, part.path, part.video.id)
        positions, starts_s = _own(index, part) if part.video.id == like.id else _at_ticks(index, part, like)
        ends_s = np.append(starts_s[1:], length_s)
        distinct, first = np.unique(positions, return_index=True)
        shown = zip(np.split(starts_s, first[1:]), np.split(ends_s, first[1:]), strict=True)
        for pixels, (begins_s, finishes_s) in zip(read_frames(part.path, index, distinct.tolist()), shown, strict=True):
            for start_s, end_s in zip(begins_s, finishes_s, strict=True):
                yield pixels, float(start_s), float(end_s)


def _own(index: FrameIndex, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Every frame on display in the part, and when; the first may have begun before it."""
    first = int(index.on_display(np.array([part.start_s]))[0])
    behind = int(np.searchsorted(index.timestamps_s, part.end_s - _EDGE_S))
    positions = np.arange(first, max(behind, first + 1))
    return positions, np.maximum(index.timestamps_s[positions] - part.start_s, 0.0)


def _at_ticks(index: FrameIndex, part: Part, like: Video) -> tuple[np.ndarray, np.ndarray]:
    ticks = np.arange(_num_ticks(part, like))
    return index.on_display(part.start_s + (ticks + 0.5) / like.fps), ticks / like.fps
