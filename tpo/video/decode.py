"""Frames by timestamp. The one place that turns a `View` into pixels."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from tpo.records import View
from tpo.video.frame_cache import FrameCache
from tpo.video.frame_index import FrameIndex
from tpo.video.measure import DamagedError, load_index, upright


class DecodeError(Exception):
    """The file could not be decoded; the text says what the decoder said."""


@dataclass(frozen=True)
class Frames:
    """Decoded frames: pixels uint8 [n, h, w, 3] (RGB) and the moment each is first on display, float64 [n] seconds."""

    pixels: np.ndarray
    timestamps_s: np.ndarray
    decoder: str
    decoder_version: str


def last_words(error: Exception, path: str) -> str:
    """The last line of a decoder's complaint, the same each time: no clock, no path but the file's name."""
    line = (str(error).strip() or type(error).__name__).splitlines()[-1].replace(path, Path(path).name)
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: ", "", line)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, DamagedError, OSError, ValueError) as error:
        raise DecodeError(f"{path.name}: {last_words(error, str(path))}") from error


def decode(path: Path, view: View, index_dir: Path, cache: FrameCache | None = None) -> Frames:
    """Read the frames on display at the view's timestamps, in the view's order, upright.

    Every frame is what an in-order decode of the whole file shows at that moment: decoding begins at keyframes that
    were proved to give the same pictures (`tpo.video.measure`), and a frame is taken only if its timestamp is the
    one asked for. Timestamps count from the first frame.

    Args:
        index_dir: where what was measured about the video was put when it was probed.
        cache: frames that are there are taken from there, the others are put there.

    Raises:
        DecodeError: the file cannot be opened or decoded, or is not the one that was measured.
    """
    with _errors_named(path):
        index = load_index(index_dir, path, view.video_id)
        wanted = index.on_display(np.asarray(view.timestamps_s))
        pts = index.pts[wanted].tolist()
        kept = cache.read(view.video_id, pts) if cache else {}
        missing = [position for position in np.unique(wanted).tolist() if int(index.pts[position]) not in kept]
        new = dict(zip(index.pts[missing].tolist(), _read(path, index, missing), strict=True))
        if cache:
            cache.write(view.video_id, list(new), new.values())
        kept |= new
    return Frames(
        pixels=np.stack([kept[p] for p in pts]),
        timestamps_s=index.timestamps_s[wanted],
        decoder="pyav",
        decoder_version=av.__version__,
    )


def _read(path: Path, index: FrameIndex, positions: Sequence[int]) -> Iterator[np.ndarray]:
    """Pixels of the frames at ascending positions of the index, one after the other."""
    if not positions:
        return
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
            yield upright(frame.to_ndarray(format="rgb24"), frame.rotation)
            at = position


@dataclass(frozen=True)
class VideoFolder:
    """Videos below `root`. What was measured about them, by content, lies in `index_dir`, their frames in `cache`."""

    root: Path
    index_dir: Path
    cache: FrameCache | None = None

    def frames(self, path: str, view: View) -> Frames:
        """The frames of a video, named relative to `root`; see `decode`."""
        return decode(self.root / path, view, self.index_dir, self.cache)

    def prepare(self, path: str, views: Sequence[View]) -> None:
        """Put the frames of many views of one video into the cache, in one pass over the file.

        Raises:
            DecodeError: see `decode`.
        """
        if self.cache is None or not views:
            return
        file = self.root / path
        with _errors_named(file):
            index = load_index(self.index_dir, file, views[0].video_id)
            there = self.cache.timestamps(views[0].video_id)
            moments_s = np.array([moment_s for view in views for moment_s in view.timestamps_s])
            wanted = [p for p in np.unique(index.on_display(moments_s)).tolist() if int(index.pts[p]) not in there]
            self.cache.write(views[0].video_id, index.pts[wanted].tolist(), _read(file, index, wanted))
