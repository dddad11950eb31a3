"""Frames by timestamp. The one place that turns a `View` into pixels."""

import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from tpo.records import View
from tpo.video.frame_index import DamagedError, FrameIndex, load_index


class DecodeError(Exception):
    """The file could not be decoded; the text says what the decoder said."""


@dataclass(frozen=True)
class Frames:
    """Decoded frames: pixels uint8 [n, h, w, 3] (RGB) and the moment each is first on display, float64 [n] seconds."""

    pixels: np.ndarray
    timestamps_s: np.ndarray
    decoder: str
    decoder_version: str


@dataclass(frozen=True)
class VideoFolder:
    """Videos below `root`. What was measured about them, by content, lies in `index_dir`."""

    root: Path
    index_dir: Path

    def frames(self, path: str, view: View) -> Frames:
        """The frames of a video, named relative to `root`; see `decode`."""
        return decode(self.root / path, view, self.index_dir)


def last_words(error: Exception, path: str) -> str:
    """The last line of a decoder's complaint, the same each time: no clock, no path but the file's name."""
    line = (str(error).strip() or type(error).__name__).splitlines()[-1].replace(path, Path(path).name)
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", line)


def decode(path: Path, view: View, index_dir: Path) -> Frames:
    """Read the frames on display at the view's timestamps, in the view's order, upright.

    Every frame is what an in-order decode of the whole file shows at that moment: decoding begins at keyframes that
    were proved to give the same pictures (`tpo.video.frame_index`), and a frame is taken only if its timestamp is the
    one asked for. Timestamps count from the first frame.

    Args:
        index_dir: where the index of the video was put when it was probed.

    Raises:
        DecodeError: the file cannot be opened or decoded, or is not the one that was measured.
    """
    try:
        index = load_index(index_dir, path, view.video_id)
        wanted = index.on_display(np.asarray(view.timestamps_s))
        kept = _read(path, index, sorted(set(wanted.tolist())))
    except (av.error.FFmpegError, DamagedError, OSError, ValueError) as error:
        raise DecodeError(f"{path.name}: {last_words(error, str(path))}") from error
    return Frames(
        pixels=np.stack([kept[position] for position in wanted.tolist()]),
        timestamps_s=index.timestamps_s[wanted],
        decoder="pyav",
        decoder_version=av.__version__,
    )


def _read(path: Path, index: FrameIndex, positions: list[int]) -> dict[int, np.ndarray]:
    """Pixels of the frames at ascending positions of the index."""
    kept: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        video = container.streams[index.stream]
        assert isinstance(video, av.VideoStream)
        video.thread_type = "AUTO"
        decoded, at = container.decode(video), -1
        for position in positions:
            restart = int(index.restarts[np.searchsorted(index.restarts, position, side="right") - 1])
            if restart > at + 1:  # what lies between is not needed
                container.seek(int(index.pts[restart]), stream=video)
                decoded = container.decode(video)
            wanted_pts = int(index.pts[position])
            frame = next((frame for frame in decoded if frame.pts is not None and frame.pts >= wanted_pts), None)
            if frame is None or frame.pts != wanted_pts:
                raise DamagedError(f"no frame at {float(wanted_pts * index.time_base):.3f} s. Did the file change?")
            kept[position], at = _upright(frame), position
    return kept


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [h, w, 3], turned as the file's display matrix says (`frame.rotation`, counter-clockwise)."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
