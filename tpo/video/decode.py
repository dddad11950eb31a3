"""Frames by timestamp. The one place that turns a `View` into pixels."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from PIL import Image

from tpo.records import Distractor, View, ViewKind
from tpo.video.frame_cache import FrameCache
from tpo.video.frame_index import FrameIndex
from tpo.video.measure import DamagedError, load_index, upright

# The middle of 0 to 255: what comes nearest to nothing once it is normalised, where a mean of about 0.5 is taken off.
_MASK_GREY = 128
_OUT_OF_ORDER = (ViewKind.SHUFFLED, ViewKind.REVERSED)


class DecodeError(Exception):
    """The file could not be decoded; the text says what the decoder said."""


@dataclass(frozen=True)
class Frames:
    """Decoded frames, in the order of their view.

    Attributes:
        pixels: uint8 [n, h, w, 3] (RGB).
        timestamps_s: the moment each is first on display, float64 [n] seconds. Of a view that was shuffled or reversed
            the same times in ascending order: models are told them in words and positions, and could read the order
            off that was taken from them.
        duration_s: of the whole video.
        keys: name what each frame shows; frames of one key are the same, in whatever view.
    """

    pixels: np.ndarray
    timestamps_s: np.ndarray
    duration_s: float
    decoder: str
    decoder_version: str
    keys: tuple[str, ...] = ()


def last_words(error: Exception, path: str) -> str:
    """The last line of a decoder's complaint, the same each time: no error number, no path but the file's name."""
    text = error.strerror if isinstance(error, av.error.FFmpegError) and error.strerror else str(error)
    line = (text.strip() or type(error).__name__).splitlines()[-1].replace(path, Path(path).name)
    return re.sub(r"^\[Errno -?\d+\] ", "", line)


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """What goes wrong with a file as a `DecodeError` that names it."""
    try:
        yield
    except (av.error.FFmpegError, DamagedError, OSError, ValueError) as error:
        raise DecodeError(f"{path.name}: {last_words(error, str(path))}") from error


def decode(
    path: Path,
    view: View,
    index_dir: Path,
    cache: FrameCache | None = None,
    others: Mapping[str, Path] = MappingProxyType({}),
) -> Frames:
    """Read the frames on display at the view's timestamps, in the view's order, upright.

    What a view masks is grey and is not read. Its distractors are read from their own videos and stretched to the size
    of this one: bars around them would tell them apart from afar.

    Every frame is what an in-order decode of the whole file shows at that moment: decoding begins at keyframes that
    were proved to give the same pictures (`tpo.video.measure`), and a frame is taken only if its timestamp is the
    one asked for. Timestamps count from the first frame.

    Args:
        index_dir: where what was measured about the video was put when it was probed.
        cache: frames that are there are taken from there, the others are put there.
        others: files of the videos that distractors come from, by video id.

    Raises:
        DecodeError: a file cannot be opened or decoded, is not the one that was measured, or is not in `others`.
    """
    with errors_named(path):
        index = load_index(index_dir, path, view.video_id)
        wanted = index.on_display(np.asarray(view.timestamps_s))
        pts = index.pts[wanted].tolist()
        own = _own(view) or [0]  # of a view without a frame of its own, one tells the size
        kept = _frames(path, index, view.video_id, wanted[own], cache)
    size, times_s = kept[pts[own[0]]].shape, index.timestamps_s[wanted]
    pixels: list[np.ndarray] = [np.full(size, _MASK_GREY, np.uint8)] * len(pts)
    keys = [f"grey {size}"] * len(pts)
    for position in _own(view):
        pixels[position], keys[position] = kept[pts[position]], f"{view.video_id}:{pts[position]}"
    for video_id, clip in _clips(view).items():
        if video_id not in others:
            raise DecodeError(f"{path.name}: no file is known of video {video_id[:12]}, which gives it distractors")
        of_other = View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=tuple(one.timestamp_s for one in clip))
        other = decode(others[video_id], of_other, index_dir, cache)
        for distractor, frame, key in zip(clip, other.pixels, other.keys, strict=True):
            pixels[distractor.position], keys[distractor.position] = stretched(frame, size), f"{key} {size}"
    return Frames(
        pixels=np.stack(pixels),
        timestamps_s=np.sort(times_s) if view.kind in _OUT_OF_ORDER else times_s,
        duration_s=index.duration_s,
        decoder="pyav",
        decoder_version=av.__version__,
        keys=tuple(keys),
    )


def _clips(view: View) -> dict[str, list[Distractor]]:
    """A view's distractors by video, so that each of those is opened once."""
    clips: dict[str, list[Distractor]] = {}
    for distractor in view.distractors:
        clips.setdefault(distractor.video_id, []).append(distractor)
    return clips


def stretched(frame: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A picture [h, w, 3] in another size (height, width, 3)."""
    height_px, width_px, _ = size
    return np.asarray(Image.fromarray(frame).resize((width_px, height_px), Image.Resampling.BICUBIC))


def _own(view: View) -> list[int]:
    """The positions at which a view shows its own video."""
    taken = {*view.masked, *(distractor.position for distractor in view.distractors)}
    return [position for position in range(len(view.timestamps_s)) if position not in taken]


def _frames(
    path: Path, index: FrameIndex, video_id: str, wanted: np.ndarray, cache: FrameCache | None
) -> dict[int, np.ndarray]:
    """Pixels of the frames at these positions of the index, by their timestamps."""
    pts = index.pts[wanted].tolist()
    kept = cache.read(video_id, pts) if cache else {}
    missing = [position for position in np.unique(wanted).tolist() if int(index.pts[position]) not in kept]
    new = dict(zip(index.pts[missing].tolist(), read_frames(path, index, missing), strict=True))
    if cache:
        cache.write(video_id, list(new), new.values())
    return kept | new


def read_frames(path: Path, index: FrameIndex, positions: Sequence[int], skip: bool = True) -> Iterator[np.ndarray]:
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
                yield from read_frames(path, index, positions[number:], skip=False)
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
    """Videos below `root`. What was measured about them, by content, lies in `index_dir`, their frames in `cache`.

    `paths` says where the videos lie from which a view may borrow frames, by their id and relative to `root`.
    """

    root: Path
    index_dir: Path
    cache: FrameCache | None = None
    paths: Mapping[str, str] = field(default_factory=dict)

    def frames(self, path: str, view: View) -> Frames:
        """The frames of a video, named relative to `root`; see `decode`."""
        borrowed = {one.video_id for one in view.distractors} & self.paths.keys()
        others = {video_id: self.root / self.paths[video_id] for video_id in borrowed}
        return decode(self.root / path, view, self.index_dir, self.cache, others)

    def check(self, path: str, video_id: str) -> None:
        """See that a video is there and the one with this id, without decoding it.

        Raises:
            DecodeError: it is not.
        """
        with errors_named(self.root / path):
            load_index(self.index_dir, self.root / path, video_id)

    def prepare(self, path: str, views: Sequence[View]) -> None:
        """Put the video's own frames of many views of it into the cache, in one pass over the file.

        Raises:
            DecodeError: see `decode`.
        """
        if self.cache is None or not views:
            return
        file = self.root / path
        with errors_named(file):
            index = load_index(self.index_dir, file, views[0].video_id)
            there = self.cache.timestamps(views[0].video_id)
            moments_s = np.array([view.timestamps_s[position] for view in views for position in _own(view)])
            wanted = [p for p in np.unique(index.on_display(moments_s)).tolist() if int(index.pts[p]) not in there]
            self.cache.write(views[0].video_id, index.pts[wanted].tolist(), read_frames(file, index, wanted))
