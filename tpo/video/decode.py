"""Frames by timestamp. The one place that turns a `View` into pixels."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from tpo.records import View
from tpo.video.frame_cache import FrameCache
from tpo.video.frame_index import FrameIndex
from tpo.video.measure import DamagedError, load_index, upright


class DecodeError(Exception):
    """The file could not be decoded; the text says what the decoder said."""


@dataclass(frozen=True)
class Frames:
    """Decoded frames.

    Attributes:
        pixels: uint8 [n, h, w, 3] (RGB).
        timestamps_s: the moment each is first on display, float64 [n] seconds.
        duration_s: of the whole video.
    """

    pixels: np.ndarray
    timestamps_s: np.ndarray
    duration_s: float
    decoder: str
    decoder_version: str


def last_words(error: Exception, path: str) -> str:
    """The last line of a decoder's complaint, the same each time: no error number, no path but the file's name."""
    text = error.strerror if isinstance(error, av.error.FFmpegError) and error.strerror else str(error)
    line = (text.strip() or type(error).__name__).splitlines()[-1].replace(path, Path(path).name)
    return re.sub(r"^\[Errno -?\d+\] ", "", line)


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
        duration_s=index.duration_s,
        decoder="pyav",
        decoder_version=av.__version__,
    )


def _read(path: Path, index: FrameIndex, positions: Sequence[int], skip: bool = True) -> Iterator[np.ndarray]:
    """Pixels of the frames at ascending positions of the index, one after the other.

    With `skip`, frames that are not wanted and that no other frame refers to are not decoded. Where a decoder without
    them gives a frame that was not asked for, the rest is read again with all of them. Threads that decode frames ahead
    are left out: at each new start they have decoded what nobody wants (docs/LOG.md has the figures).
    """
    if not positions:
        return
    starts = _starts(index, positions)
    wanted = set(index.pts[positions].tolist())
    with av.open(str(path)) as container:
        video = container.streams[index.stream]
        assert isinstance(video, av.VideoStream)
        converter = VideoReformatter()
        frames: Iterator[av.VideoFrame] = iter(())
        for number, (start, position) in enumerate(zip(starts, positions, strict=True)):
            if start is not None:
                if start > 0:  # at 0 the container is where it was opened
                    container.seek(int(index.seeks[np.searchsorted(index.restarts, start)]), stream=video)
                frames = _decoded(container, video, wanted if skip else None)
            pts = int(index.pts[position])
            frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= pts), None)
            if frame is not None and frame.pts == pts:
                yield upright(converter.reformat(frame, format="rgb24").to_ndarray(), frame.rotation)
            elif skip:
                yield from _read(path, index, positions[number:], skip=False)
                return
            else:
                raise DamagedError(f"no frame at {float(pts * index.time_base):.3f} s. Did the file change?")


def _starts(index: FrameIndex, positions: Sequence[int]) -> list[int | None]:
    """Where to begin decoding anew for each position; none where going on from the one before it is no longer."""
    before = [-2, *positions[:-1]]
    restarts = index.restarts[np.searchsorted(index.restarts, positions, side="right") - 1].tolist()
    return [restart if restart > at + 1 else None for restart, at in zip(restarts, before, strict=True)]


def _decoded(container: InputContainer, video: av.VideoStream, wanted: set[int] | None) -> Iterator[av.VideoFrame]:
    """The frames that follow, or of those to which no other frame refers only the `wanted`, by timestamp."""
    for packet in container.demux(video):
        is_wanted = wanted is None or packet.pts is None or packet.pts in wanted
        video.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        yield from packet.decode()


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
