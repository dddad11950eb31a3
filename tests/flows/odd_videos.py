"""Videos as people have them: one function for every way in which a file can be odd or broken."""

import io
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

FPS, WIDTH, HEIGHT = 10, 96, 64
H264 = "keyint=20:bframes=3:b-adapt=0:scenecut=0"
HEVC = "log-level=none:pools=none:frame-threads=1:keyint=20:scenecut=0"  # open groups are its default
X265 = {"codec": "libx265", "options": {"x265-params": HEVC}}
TEN_BITS = "yuv420p10le"


def pictures(seed: int, seconds: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Iterator[np.ndarray]:
    """Grey pictures of a camera that pans over a landscape, another one every two seconds."""
    rng = np.random.default_rng(seed)
    land = np.empty(0)
    for number in range(round(seconds * FPS)):
        if number % (2 * FPS) == 0:
            image = Image.fromarray(rng.integers(20, 236, (5, 7), np.uint8))
            land = np.asarray(image.resize((3 * size[0], size[1]), Image.Resampling.BICUBIC))
        left = number * 2 % (2 * size[0])
        yield land[:, left : left + size[0]].copy()


def encode(
    out: av.container.OutputContainer,
    shown: Sequence[np.ndarray],
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    times_s: Sequence[float] | None = None,
    rotation_deg: int = 0,
    time_base: Fraction = Fraction(1, 1000),
) -> None:
    """Add a video stream. One thread, so that the same bytes come out each time."""
    stream = out.add_stream(codec, rate=FPS, options=dict({"x264-params": H264} if options is None else options))
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width = shown[0].shape
    stream.pix_fmt, stream.thread_count = pix_fmt, 1
    stream.codec_context.time_base = time_base
    stream.set_display_rotation(rotation_deg)
    for number, grey in enumerate(shown):
        frame = av.VideoFrame.from_ndarray(grey, format="gray")
        frame.time_base = time_base
        frame.pts = round((times_s[number] if times_s else Fraction(number, FPS)) / time_base)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def write(
    path: Path,
    seconds: float = 4,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    seed: int | None = None,
    shown: Sequence[np.ndarray] | None = None,
    scaled_to: tuple[int, int] | None = None,
    file_format: str | None = None,
    muxer: Mapping[str, str] | None = None,
    **how: Any,
) -> None:
    """A video that shows what no other file does, unless it has the same `seed`, or pictures that are given."""
    seed = zlib.crc32(os.fsencode(path.name)) if seed is None else seed
    shown = list(pictures(seed, seconds, size)) if shown is None else shown
    if scaled_to:
        shown = [np.asarray(Image.fromarray(grey).resize(scaled_to)) for grey in shown]
    with av.open(str(path), "w", format=file_format, options=dict(muxer or {})) as out:
        encode(out, shown, **how)


def write_cut(path: Path, share: float = 0.6, **how: Any) -> None:
    """The first part of the file, as of a download that was interrupted."""
    write(path, **how)
    os.truncate(path, int(path.stat().st_size * share))


def write_cut_in_the_index(path: Path) -> None:
    """The end of the index is missing, and with it what the decoder has to know."""
    write(path)
    os.truncate(path, path.read_bytes().index(b"moov") + 330)


def write_in_an_unknown_codec(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))


def write_beside_an_unknown_codec(path: Path) -> None:
    """Two streams, of which the first is in a codec that nobody knows."""
    write_beside_a_smaller_stream(path)
    head, first, rest = path.read_bytes().partition(b"stsd")
    path.write_bytes(head + first + rest.replace(b"avc1", b"zzz9", 1))


def write_with_a_hole(path: Path, **how: Any) -> None:
    """A part of one packet in the middle, a keyframe, is zeros; the container is whole."""
    write(path, size=(192, 128), **how)
    with av.open(str(path)) as container:
        keyframe = [packet for packet in container.demux(video=0) if packet.is_keyframe][1]
        assert keyframe.pos is not None
        begin, num_bytes = keyframe.pos + keyframe.size // 4, keyframe.size // 2
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(num_bytes))


def write_sound(path: Path, seconds: float = 4, with_video: bool = False) -> None:
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=16000)
        if with_video:
            encode(out, list(pictures(zlib.crc32(path.name.encode()), seconds)))
        for start in range(0, round(16000 * seconds), 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            out.mux(sound.encode(frame))
        out.mux(sound.encode())


def write_from_the_second_group_on(path: Path, **how: Any) -> None:
    """Written, then cut without encoding, which is what `ffmpeg -ss 2 -c copy` does."""
    whole = path.with_name("whole.mp4")
    write(whole, seconds=8, seed=zlib.crc32(path.name.encode()), **how)
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy, group = new.add_stream_from_template(stream), 0
        for packet in old.demux(stream):
            group += packet.is_keyframe
            if packet.dts is not None and packet.pts is not None and group > 1:
                packet.pts, packet.dts = (round(stamp - 2 / packet.time_base) for stamp in (packet.pts, packet.dts))
                packet.stream = copy
                new.mux(packet)
    whole.unlink()


def write_with_misplaced_keyframes(path: Path) -> None:
    """The container's table of keyframes is wrong: all but the first are said to come a second later than they do."""
    write(path, seconds=8)
    content = bytearray(path.read_bytes())
    table = content.index(b"stss") + 8
    count = int.from_bytes(content[table : table + 4])
    for entry in range(table + 8, table + 4 + 4 * count, 4):
        content[entry : entry + 4] = (int.from_bytes(content[entry : entry + 4]) + FPS).to_bytes(4)
    path.write_bytes(content)


def write_without_a_table_of_keyframes(path: Path) -> None:
    """Which says that every frame is one."""
    write(path, seconds=8)
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))


def write_beside_a_smaller_stream(path: Path) -> None:
    """The first stream is the smaller one, at half the frame rate."""
    with av.open(str(path), "w") as out:
        small = list(pictures(1, 4, (48, 32)))[::2]
        streams = [out.add_stream("libx264", rate=rate, options={"x264-params": H264}) for rate in (FPS // 2, FPS)]
        for stream, shown in zip(streams, (small, list(pictures(2, 4))), strict=True):
            stream.height, stream.width = shown[0].shape
            stream.pix_fmt, stream.thread_count = "yuv420p", 1
        out.start_encoding()
        for stream, shown in zip(streams, (small, list(pictures(2, 4))), strict=True):
            for grey in shown:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
            out.mux(stream.encode())


def cover_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (400, 400), "red").save(file, "JPEG")
    return file.getvalue()


def write_with_an_attached_cover(path: Path) -> None:
    with av.open(str(path), "w") as out:
        out.add_attachment("cover.jpg", "image/jpeg", cover_picture())
        encode(out, list(pictures(3, 4)))


def write_with_a_cover_stream(path: Path) -> None:
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg")
        cover.width = cover.height = 400
        cover.pix_fmt, cover.disposition = "yuvj420p", Disposition.attached_pic
        stream = out.add_stream("libx264", rate=FPS, options={"x264-params": H264})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = WIDTH, HEIGHT, "yuv420p", 1
        out.start_encoding()
        packet = av.Packet(cover_picture())
        packet.stream, packet.time_base, packet.pts, packet.dts = cover, Fraction(1, FPS), 0, 0
        out.mux(packet)
        for grey in pictures(4, 4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        out.mux(stream.encode())


def write_in_two_sizes(path: Path, later: tuple[int, int]) -> None:
    """A broadcast that goes on in another size: two transport streams, one behind the other."""
    parts = [path.with_suffix(suffix) for suffix in (".a.ts", ".b.ts")]
    write(parts[0], seconds=2, time_base=Fraction(1, 90000))
    later_s = [2.2 + number / FPS for number in range(20)]
    write(parts[1], seconds=2, size=later, times_s=later_s, time_base=Fraction(1, 90000))
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def write_mac_companion(path: Path) -> None:
    """What macOS leaves beside each file on a foreign disk."""
    path.write_bytes(bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(4072))


def same(path: Path, of: str) -> None:
    shutil.copy(path.with_name(of), path)


def write_part(path: Path, of: str, first_group: int) -> None:
    with av.open(str(path.with_name(of))) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        groups = 0
        for packet in old.demux(stream):
            groups += packet.is_keyframe
            if packet.dts is not None and groups > first_group:
                packet.stream = copy
                new.mux(packet)


def link(path: Path, target: str) -> None:
    path.symlink_to(target)
