"""What one pass over a video finds out, kept by content so that it is done once.

    measure(path).save(index_dir, video_id, state(path))
    index = load_index(index_dir, path, video_id)

Containers lie about frame counts, durations and keyframes. And a decoder that begins at a keyframe does not always give
the pictures that an in-order decode gives: frames that lead an open group of pictures need the group before, and some
"keyframes" are no clean restart points at all. So everything is decoded in order, and then every keyframe is tried: its
group is decoded from it alone and compared, frame by frame, with the in-order decode.
"""

import hashlib
import math
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from tpo.video.fingerprint import SAMPLE_STEP_S, Fingerprint, hash_picture
from tpo.video.frame_index import FrameIndex

# Part of the files' names: what an older form of this module, or another decoder, found out is measured again.
VERSION = f"v3-pyav{av.__version__}"
_MIN_GROUP_FRAMES = 8  # ours: where every frame is a keyframe, trying each of them would decode the file many times
_ROW_STEP = 4  # every fourth row of a picture is compared: damage comes in blocks of at least that height
_SEEK_MARGIN_S = 0.2  # ours: in transport streams a seek to a keyframe's own time ends behind it
_SMALL_PX = 128  # ours: longer side of the grey pictures that fingerprint, brightness and change are taken from
_CHUNK_BYTES = 1 << 24

FileState = tuple[int, int]
Progress = Callable[[], None]


class DamagedError(Exception):
    """The stream cannot be decoded to its end; the text says what the decoder said, and where."""


@dataclass(frozen=True)
class Measured:
    """A video's frames and what they look like.

    Attributes:
        brightness: mean grey level of the pictures sampled every `SAMPLE_STEP_S`, 0 (black) to 255.
        change: mean absolute difference in grey levels from one sampled picture to the next; 0 for a single picture.
    """

    index: FrameIndex
    fingerprint: Fingerprint
    brightness: float
    change: float

    def save(self, index_dir: Path, video_id: str, measured: FileState) -> None:
        """Write a file that appears whole or not at all; `measured` is the `state` of the video file."""
        index_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=index_dir, prefix=".partial-", delete=False) as partial:
            np.savez_compressed(
                partial, measured=measured, brightness=self.brightness, change=self.change,
                **self.index.as_arrays(), **vars(self.fingerprint),
            )  # fmt: skip
        Path(partial.name).replace(_file(index_dir, video_id))


def load_index(index_dir: Path, path: Path, video_id: str) -> FrameIndex:
    """The index of a video that was measured before; it is measured now if that was lost.

    Raises:
        DamagedError: the file is not the one with this id any more, or cannot be decoded.
        av.error.FFmpegError: the index was lost, and the file cannot be opened.
    """
    found = state(path)
    if not is_measured(index_dir, video_id):
        _check_content(path, video_id, found)
        measure(path).save(index_dir, video_id, found)
    with np.load(_file(index_dir, video_id), allow_pickle=False) as saved:
        if tuple(saved["measured"].tolist()) != found:
            _check_content(path, video_id, found)
        return FrameIndex.from_arrays(saved)


def load_measured(index_dir: Path, video_id: str) -> Measured:
    """What was found out about a video that `is_measured`."""
    with np.load(_file(index_dir, video_id), allow_pickle=False) as saved:
        return Measured(
            index=FrameIndex.from_arrays(saved),
            fingerprint=Fingerprint(**{name: saved[name] for name in Fingerprint.__dataclass_fields__}),
            brightness=float(saved["brightness"]),
            change=float(saved["change"]),
        )


def is_measured(index_dir: Path, video_id: str) -> bool:
    return _file(index_dir, video_id).is_file()


def _file(index_dir: Path, video_id: str) -> Path:
    return index_dir / f"{video_id}.{VERSION}.npz"


def state(path: Path) -> FileState:
    """Size and time of change of a file: while these stay, its content is taken to stay."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _check_content(path: Path, video_id: str, found: FileState) -> None:  # noqa: ARG001 (looked at again when it changes)
    if file_sha256(path) != video_id:
        raise DamagedError("is not the video that was measured. Run `dvc repro`, which measures it again")


def file_sha256(path: Path, on_progress: Progress = lambda: None) -> str:
    """In hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total.update(chunk)
            on_progress()
    return total.hexdigest()


def video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that is meant by "the video": of those that are no cover picture the one with the most pixels.

    Raises:
        DamagedError: there are such streams, and none that can be decoded.
    """
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    known = [stream for stream in moving if stream.codec_context is not None]
    if moving and not known:
        raise DamagedError("there is no decoder for the video stream")
    return max(known, key=lambda stream: stream.width * stream.height, default=None)


def upright(pixels: np.ndarray, rotation_deg: int) -> np.ndarray:
    """A decoded picture [h, w, …] turned as the file's display matrix says (`frame.rotation`, counter-clockwise)."""
    return np.ascontiguousarray(np.rot90(pixels, rotation_deg // 90))


def measure(path: Path, on_progress: Progress = lambda: None) -> Measured:
    """Decode the video stream in order, then each group of pictures again from its keyframe alone, and compare.

    `on_progress` is called with each frame.

    Raises:
        DamagedError: a packet cannot be decoded, a picture is damaged, or timestamps are missing or not ascending.
        av.error.FFmpegError: this is no container that can be opened.
    """
    with av.open(str(path)) as container:
        video = video_stream(container)
        if video is None:
            raise DamagedError("the file has no video stream")
        looks = _Looks()
        seen = _decode_in_order(container, video, looks, on_progress)
        restarts, seeks = _clean_restarts(container, video, seen, on_progress)
        assert video.time_base is not None
        pts = np.array([frame.pts for frame in seen], np.int64)
        last_pts = seen[-1].duration or (int(np.median(np.diff(pts))) if len(pts) > 1 else _one_frame(video))
        index = FrameIndex(video.index, video.time_base, pts, int(pts[-1]) + last_pts, restarts, seeks)
    return Measured(index, looks.fingerprint(), looks.brightness, looks.change)


def _one_frame(video: VideoStream) -> int:
    """How long a frame is at the rate that the header tells, in units of the time base."""
    rate, base = video.average_rate, video.time_base
    return max(1, round(1 / rate / base)) if rate and base else 1


class _Looks:
    """What a video looks like: a small grey picture every `SAMPLE_STEP_S` of it, each forgotten after the next."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._hashes: list[np.uint64] = []
        self._informative: list[bool] = []
        self._levels: list[float] = []
        self._changes: list[float] = []
        self._last: np.ndarray | None = None
        self._scaler = VideoReformatter()  # one for all frames: making one costs more than scaling
        self._next_s = 0.0

    def look(self, time_s: float, frame: av.VideoFrame) -> None:
        """Take the frame if its time has come; `time_s` counts from the first frame."""
        if time_s < self._next_s:
            return
        self._next_s = (math.floor(time_s / SAMPLE_STEP_S) + 1) * SAMPLE_STEP_S
        shrink = min(1.0, _SMALL_PX / max(frame.width, frame.height))
        width, height = (max(1, round(side * shrink)) for side in (frame.width, frame.height))
        small = self._scaler.reformat(frame, width=width, height=height, format="gray", interpolation="AREA")
        grey = upright(small.to_ndarray(), frame.rotation)
        bits, informative = hash_picture(grey)
        self._times_s.append(time_s)
        self._hashes.append(bits)
        self._informative.append(informative)
        self._levels.append(float(grey.mean()))
        if self._last is not None and self._last.shape == grey.shape:
            self._changes.append(float(np.abs(grey.astype(np.int16) - self._last).mean()))
        self._last = grey

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            times_s=np.array(self._times_s, np.float32),
            hashes=np.array(self._hashes, np.uint64),
            informative=np.array(self._informative, bool),
        )

    @property
    def brightness(self) -> float:
        return float(np.mean(self._levels))

    @property
    def change(self) -> float:
        return float(np.mean(self._changes)) if self._changes else 0.0


class _Seen(NamedTuple):
    pts: int
    duration: int
    digest: int
    is_key: bool


def _decode_in_order(
    container: InputContainer, video: VideoStream, looks: _Looks, on_progress: Progress
) -> list[_Seen]:
    seen: list[_Seen] = []
    size: tuple[int, int] | None = None
    assert video.time_base
    try:
        for frame in container.decode(video):
            on_progress()
            if frame.pts is None:
                raise DamagedError(f"frame {len(seen)} has no timestamp")
            if seen and frame.pts <= seen[-1].pts:
                found = f"frame {len(seen)} is timed at {frame.time:.3f} s, not after the one before it"
                raise DamagedError(f"{found}; encode the file again")
            if frame.is_corrupt:
                raise DamagedError(f"the picture at {frame.time:.3f} s is damaged")
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                found = f"the picture changes its size at {frame.time:.3f} s, from {size[0]}x{size[1]}"
                raise DamagedError(f"{found} to {frame.width}x{frame.height}; encode the file again")
            seen.append(_Seen(frame.pts, frame.duration, _digest(frame), frame.key_frame))
            looks.look(float((frame.pts - seen[0].pts) * video.time_base), frame)
    except MemoryError:  # of FFmpeg's errors this one is not about the file
        raise
    except av.error.FFmpegError as error:
        raise DamagedError(f"after {len(seen)} frames: {error.strerror}") from error
    if not seen:
        raise DamagedError("not one frame can be decoded")
    return seen


def _clean_restarts(
    container: InputContainer, video: VideoStream, seen: list[_Seen], on_progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Keyframes from which all frames up to the next such one come out as they do in order; see `FrameIndex`."""
    candidates = [0]
    for position, frame in enumerate(seen):
        if frame.is_key and position - candidates[-1] >= _MIN_GROUP_FRAMES:
            candidates.append(position)
    assert video.time_base
    margin_pts = round(_SEEK_MARGIN_S / video.time_base)
    clean, end = [], len(seen)
    for position in reversed(candidates[1:]):
        frames = seen[position:end]
        for seek in (frames[0].pts, frames[0].pts - margin_pts):
            if _is_clean(container, video, frames, seek, on_progress):
                clean.append((position, seek))
                end = position
                break
    restarts, seeks = np.array([(0, seen[0].pts), *reversed(clean)], np.int64).T
    return restarts, seeks


def _is_clean(
    container: InputContainer, video: VideoStream, frames: list[_Seen], seek: int, on_progress: Progress
) -> bool:
    """Whether decoding from where a seek ends gives exactly these frames, of which the first is a keyframe."""
    remaining = iter(frames)
    expected = next(remaining)
    try:
        container.seek(seek, stream=video)
        for frame in container.decode(video):
            on_progress()
            if frame.pts is not None and frame.pts < frames[0].pts:  # leads its group, or the seek ended earlier
                continue
            if frame.pts != expected.pts or _digest(frame) != expected.digest:
                return False
            following = next(remaining, None)
            if following is None:
                return True
            expected = following
    except av.error.FFmpegError:
        return False
    return False


def _digest(frame: av.VideoFrame) -> int:
    """crc32 of every fourth row of all planes."""
    packed = len(frame.planes) == 1
    bits = frame.format.padded_bits_per_pixel if packed else frame.format.components[0].bits
    total = 0
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height : _ROW_STEP]
        shown = rows[:, : plane.width * math.ceil(bits / 8)]  # behind these lies padding, which nobody sets
        total = zlib.crc32(shown.tobytes(), total)
    return total
