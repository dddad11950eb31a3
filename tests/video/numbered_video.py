"""Real encoded videos whose every picture carries its own number, so that a test can see which frame it was given."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIDE_PX = 64
MILLISECONDS = Fraction(1, 1000)
# Small groups of pictures with B-frames; one thread, so that the same bytes come out each time.
H264 = {"x264-params": "keyint=24:bframes=3:scenecut=0"}
OPEN_GOP = {"x264-params": "keyint=24:bframes=3:scenecut=0:b-adapt=0:open-gop=1"}
HEVC = {"x265-params": "log-level=none:pools=none:frame-threads=1"}  # open groups are its default
HEVC_SHORT = {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=24:scenecut=0"}


def picture(number: int) -> np.ndarray:
    """uint8 [64, 64, 3]: the number's eight bits as bright and dark blocks, two rows of four."""
    bits = np.array([number >> bit & 1 for bit in range(8)]).reshape(2, 4)
    grey = np.where(bits, 230, 20).astype(np.uint8).repeat(32, axis=0).repeat(16, axis=1)
    return np.stack([grey] * 3, axis=-1)


def number_on(pixels: np.ndarray) -> int:
    """The number that a decoded picture carries."""
    blocks = pixels.astype(float).mean(axis=-1).reshape(2, 32, 4, 16)[:, 8:24, :, 4:12].mean(axis=(1, 3))
    return sum(1 << bit for bit in range(8) if blocks.ravel()[bit] > 125)


def write_numbered(
    path: Path,
    times_s: Sequence[float],
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    rate: int = 10,
    time_base: Fraction = MILLISECONDS,
) -> None:
    """Encode one picture for each time. `time_base` is that of the timestamps."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or H264))
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.codec_context.time_base = time_base
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.time_base, frame.pts = time_base, round(time_s / time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def played(path: Path) -> tuple[list[float], list[int]]:
    """What a player shows, by PyAV: each frame's time in seconds and the number on it."""
    with av.open(str(path)) as container:
        frames = [
            (float(frame.time), number_on(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)
        ]
    times_s, numbers = zip(*frames, strict=True)
    return list(times_s), list(numbers)


def every(seconds: float, count: int) -> list[float]:
    return [round(n * seconds, 3) for n in range(count)]


def cut_without_encoding(source: Path, out: Path, keyframe: int, skip_s: float = 0.0) -> None:
    """What `ffmpeg -ss … -c copy` does: the packets from the n-th keyframe on, the first `skip_s` of them not shown."""
    with av.open(str(source)) as old, av.open(str(out), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        seen, zero = 0, None
        for packet in old.demux(stream):
            seen += packet.is_keyframe
            if packet.dts is None or seen < keyframe:
                continue
            zero = packet.pts + round(skip_s / packet.time_base) if zero is None else zero
            packet.pts, packet.dts, packet.stream = packet.pts - zero, packet.dts - zero, copy
            new.mux(packet)


def write_sound(path: Path) -> None:
    """A file with a sound track and nothing to see."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
