"""Which frames a file really has, and where decoding may begin: measured once, by decoding all of it in order.

    measure(path).save(index_dir / f"{video_id}.npz", state(path))
    index = load_index(index_dir, path, video_id)

Containers lie about frame counts, durations and keyframes. And a decoder that begins at a keyframe does not always give
the pictures that an in-order decode gives: frames that lead an open group of pictures need the group before, and some
"keyframes" are no clean restart points at all. So every keyframe is tried: its group is decoded from it alone and
compared, frame by frame, with the in-order decode. `restarts` are the keyframes that passed.
"""

import hashlib
import math
import tempfile
import zlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

_MIN_GROUP_FRAMES = 8  # ours: where every frame is a keyframe, trying each of them would decode the file many times
_ROW_STEP = 4  # every fourth row of a picture is compared: damage comes in blocks of at least that height


class DamagedError(Exception):
    """The stream cannot be decoded to its end; the text says what the decoder said, and where."""


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file's video stream in the order shown.

    Attributes:
        stream: number of the stream in the container.
        time_base: seconds per unit of `pts`.
        pts: int64 [n], strictly ascending.
        end_pts: when the last frame's display ends.
        restarts: int64 [k], positions in `pts` of the keyframes from which decoding gives the right pictures. The first
            is 0: the start of the file.
    """

    stream: int
    time_base: Fraction
    pts: np.ndarray
    end_pts: int
    restarts: np.ndarray

    @property
    def timestamps_s(self) -> np.ndarray:
        """When each frame is first on display, float64 [n] seconds from the first frame."""
        return np.asarray((self.pts - self.pts[0]) * float(self.time_base))

    @property
    def duration_s(self) -> float:
        return float((self.end_pts - int(self.pts[0])) * self.time_base)

    def on_display(self, moments_s: np.ndarray) -> np.ndarray:
        """Position of the frame on display at each moment, int64; before the first and after the last one, that one.

        A millisecond of tolerance, because views round to milliseconds: 3.3335 s is written down as 3.333.
        """
        found = np.searchsorted(self.timestamps_s, np.asarray(moments_s) + 1e-3, side="right") - 1
        return np.clip(found, 0, len(self.pts) - 1)

    def save(self, file: Path, measured: tuple[int, int]) -> None:
        """Write an `.npz` file, whole or not at all; `measured` is the `state` of the video file that was measured."""
        steps = np.diff(self.pts, prepend=0)  # at a constant frame rate all the same, so little is left of them
        base = [self.time_base.numerator, self.time_base.denominator]
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".partial-", delete=False) as partial:
            np.savez_compressed(
                partial, stream=self.stream, time_base=base, pts_steps=steps, end_pts=self.end_pts,
                restarts=self.restarts, measured=measured,
            )  # fmt: skip
        Path(partial.name).replace(file)


def state(path: Path) -> tuple[int, int]:
    """Size and time of change of a file: while these stay, its content is taken to stay."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def load_index(index_dir: Path, path: Path, video_id: str) -> FrameIndex:
    """The index of a video that was measured before; it is measured now if its index was lost.

    Raises:
        DamagedError: the file is not the one with this id any more, or cannot be decoded.
        av.error.FFmpegError: the index was lost, and the file cannot be opened.
    """
    file = index_dir / f"{video_id}.npz"
    found = state(path)
    if not file.is_file():
        _check_content(path, video_id, found)
        measure(path).save(file, found)
    with np.load(file, allow_pickle=False) as saved:
        if tuple(saved["measured"].tolist()) != found:
            _check_content(path, video_id, found)
        return FrameIndex(
            stream=int(saved["stream"]),
            time_base=Fraction(*saved["time_base"].tolist()),
            pts=np.cumsum(saved["pts_steps"]),
            end_pts=int(saved["end_pts"]),
            restarts=saved["restarts"],
        )


@cache
def _check_content(path: Path, video_id: str, found: tuple[int, int]) -> None:  # noqa: ARG001 (looked at again when it changes)
    if file_sha256(path) != video_id:
        raise DamagedError("is not the video that was measured. Run `dvc repro`, which measures it again")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that is meant by "the video": of those that are no cover picture the one with the most pixels."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return max(moving, key=lambda stream: stream.width * stream.height, default=None)


def measure(path: Path) -> FrameIndex:
    """Decode the video stream in order, then each group of pictures again from its keyframe alone, and compare.

    Raises:
        DamagedError: a packet cannot be decoded, a picture is damaged, or timestamps are missing or not ascending.
        av.error.FFmpegError: this is no container that can be opened.
    """
    with av.open(str(path)) as container:
        video = video_stream(container)
        if video is None:
            raise DamagedError("the file has no video stream")
        seen = _decode_in_order(container, video)
        restarts = _clean_restarts(container, video, seen)
        assert video.time_base is not None
        pts = np.array([frame.pts for frame in seen], np.int64)
        last_pts = seen[-1].duration or (int(np.median(np.diff(pts))) if len(pts) > 1 else _one_frame(video))
        return FrameIndex(video.index, video.time_base, pts, int(pts[-1]) + last_pts, np.array(restarts))


def _one_frame(video: VideoStream) -> int:
    """How long a frame is at the rate that the header tells, in units of the time base."""
    rate, base = video.average_rate or Fraction(1), video.time_base or Fraction(1)
    return max(1, round(1 / rate / base))


class _Seen(NamedTuple):
    pts: int
    duration: int
    digest: int
    is_key: bool


def _decode_in_order(container: InputContainer, video: VideoStream) -> list[_Seen]:
    seen: list[_Seen] = []
    try:
        for frame in container.decode(video):
            if frame.pts is None:
                raise DamagedError(f"frame {len(seen)} has no timestamp")
            if seen and frame.pts <= seen[-1].pts:
                found = f"frame {len(seen)} is timed at {frame.time:.3f} s, not after the one before it"
                raise DamagedError(f"{found}; encode the file again")
            if frame.is_corrupt:
                raise DamagedError(f"the picture at {frame.time:.3f} s is damaged")
            seen.append(_Seen(frame.pts, frame.duration, _digest(frame), frame.key_frame))
    except av.error.FFmpegError as error:
        raise DamagedError(f"after {len(seen)} frames: {error.strerror}") from error
    if not seen:
        raise DamagedError("not one frame can be decoded")
    return seen


def _clean_restarts(container: InputContainer, video: VideoStream, seen: list[_Seen]) -> list[int]:
    """Positions of the keyframes from which all frames up to the next such one come out as they do in order."""
    candidates = [0]
    for position, frame in enumerate(seen):
        if frame.is_key and position - candidates[-1] >= _MIN_GROUP_FRAMES:
            candidates.append(position)
    clean = [len(seen)]
    for position in reversed(candidates[1:]):
        if _is_clean(container, video, seen[position : clean[-1]]):
            clean.append(position)
    return [0, *reversed(clean[1:])]


def _is_clean(container: InputContainer, video: VideoStream, frames: list[_Seen]) -> bool:
    """Whether decoding from the first of `frames`, a keyframe, gives exactly these."""
    remaining = iter(frames)
    expected = next(remaining)
    try:
        container.seek(expected.pts, stream=video)
        for frame in container.decode(video):
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
