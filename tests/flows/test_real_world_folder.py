"""A folder as people have them: every way in which a video can be odd or broken, by itself, through the real flow."""

import io
import json
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.stream import Disposition
from PIL import Image
from processes import edit_params, finish, killed_when, must_work

from tpo.records import Checked, Reason, Rejection, Video, View, ViewKind
from tpo.store import count_reasons, read_manifest, read_records
from tpo.video.decode import decode
from tpo.video.decontaminate import VideoReport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
FPS, WIDTH, HEIGHT = 10, 96, 64
H264 = "keyint=20:bframes=3:b-adapt=0:scenecut=0"
HEVC = "log-level=none:pools=none:frame-threads=1:keyint=20:scenecut=0"  # open groups are its default
X265 = {"codec": "libx265", "options": {"x265-params": HEVC}}
TEN_BITS = "yuv420p10le"
CATALOG_FILES = ("videos.jsonl", "rejected.jsonl", "flagged.jsonl", "decontamination.json")

Make = Callable[[Path], None]
Facts = dict[str, Any]


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


def write_with_a_hole(path: Path, share: float = 0.5, **how: Any) -> None:
    """300 bytes of it are zeros."""
    write(path, size=(192, 128), **how)
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * share))
        file.write(bytes(300))


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


def remux(path: Path, change: Callable[[int, av.Packet], bool], **how: Any) -> None:
    """Written, then copied without encoding: those packets for which `change`, which may change them, says so."""
    whole = path.with_name("whole.mp4")
    write(whole, seed=zlib.crc32(path.name.encode()), **how)
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(old.demux(stream)):
            if packet.dts is not None and change(number, packet):
                packet.stream = copy
                new.mux(packet)
    whole.unlink()


def call_every_frame_a_keyframe(number: int, packet: av.Packet) -> bool:
    packet.is_keyframe = True
    return True


def call_only_the_first_a_keyframe(number: int, packet: av.Packet) -> bool:
    packet.is_keyframe = number == 0
    return True


def from_the_second_group_on(number: int, packet: av.Packet) -> bool:
    """What `ffmpeg -ss 2 -c copy` does."""
    assert packet.pts is not None
    assert packet.dts is not None
    packet.pts, packet.dts = (round(stamp - 2 / packet.time_base) for stamp in (packet.pts, packet.dts))
    return number >= 2 * FPS


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


# What every file is unless its line says otherwise.
USUAL: Facts = {
    "num_frames": 40, "duration_s": 4.0, "width": WIDTH, "height": HEIGHT, "rotation_deg": 0,
    "is_vfr": False, "codec": "h264", "has_audio": False,
}  # fmt: skip

VIDEOS: dict[str, tuple[Make, Facts]] = {
    "plain.mp4": (write, {}),
    "LOUD NAME.MP4": (write, {}),
    "holiday/day 1/beach.mp4": (write, {}),
    "with  spaces .mp4": (write, {}),
    "new\nline.mp4": (write, {}),
    "quo'te \"x\" `y` $z.mp4": (write, {}),
    "猫 – é.mp4": (write, {}),
    ".hidden.mp4": (write, {}),
    "with sound.mp4": (partial(write_sound, with_video=True), {"has_audio": True}),
    "one frame.mp4": (partial(write, seconds=0.1), {"num_frames": 1, "duration_s": 0.1}),
    "two frames.mp4": (partial(write, seconds=0.2), {"num_frames": 2, "duration_s": 0.2}),
    "one pixel, ffv1.mkv": (
        partial(write, size=(1, 1), codec="ffv1", options={}, pix_fmt="yuv444p"),
        {"width": 1, "height": 1, "codec": "ffv1"},
    ),
    "one pixel, h264.mp4": (partial(write, size=(1, 1), pix_fmt="yuv444p"), {"width": 1, "height": 1}),
    "odd sides.mp4": (partial(write, size=(95, 63), pix_fmt="yuv444p"), {"width": 95, "height": 63}),
    "10 bits.mp4": (partial(write, pix_fmt=TEN_BITS), {}),
    "10 bits, hevc.mp4": (partial(write, pix_fmt=TEN_BITS, **X265), {"codec": "hevc"}),
    "full range.mp4": (partial(write, seed=5, pix_fmt="yuvj420p"), {}),
    "limited range.mp4": (partial(write, seed=5), {}),
    "open groups.mp4": (partial(write, options={"x264-params": f"{H264}:open-gop=1"}), {}),
    "open groups, hevc.mkv": (partial(write, **X265), {"codec": "hevc"}),
    "cut in an open group.mp4": (
        partial(remux, change=from_the_second_group_on, options={"x264-params": f"{H264}:open-gop=1"}, seconds=8),
        {"num_frames": None, "duration_s": None},
    ),
    "cut in an open group, hevc.mkv": (
        partial(remux, change=from_the_second_group_on, seconds=8, **X265),
        {"codec": "hevc", "num_frames": None, "duration_s": None},
    ),
    "every frame is said to be a keyframe.mp4": (partial(remux, change=call_every_frame_a_keyframe), {}),
    "one frame is said to be a keyframe.mp4": (partial(remux, change=call_only_the_first_a_keyframe), {}),
    "refreshed bit by bit.mp4": (partial(write, options={"x264-params": "keyint=20:bframes=0:intra-refresh=1"}), {}),
    "beside a smaller stream.mp4": (write_beside_a_smaller_stream, {}),
    "beside an unknown codec.mp4": (write_beside_an_unknown_codec, {}),
    "cover as attachment.mkv": (write_with_an_attached_cover, {}),
    "cover as stream.mp4": (write_with_a_cover_stream, {}),
    "turned 90.mp4": (
        partial(write, rotation_deg=90), {"rotation_deg": 90, "width": HEIGHT, "height": WIDTH},
    ),
    "turned 180.mp4": (partial(write, rotation_deg=180), {"rotation_deg": 180}),
    "turned 270.mp4": (
        partial(write, rotation_deg=270), {"rotation_deg": 270, "width": HEIGHT, "height": WIDTH},
    ),
    "unsteady.mkv": (
        partial(write, times_s=[number // 2 * 0.25 + number % 2 * 0.05 for number in range(40)]),
        {"is_vfr": True, "duration_s": 4.9},
    ),
    "starts late.mkv": (partial(write, times_s=[30 + number / FPS for number in range(40)]), {}),
    "starts late.mp4": (partial(write, times_s=[30 + number / FPS for number in range(40)]), {}),
    "hevc.mov": (partial(write, **X265), {"codec": "hevc"}),
    "vp9.webm": (
        partial(write, codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8", "g": "20"}),
        {"codec": "vp9"},
    ),
    "av1.mp4": (
        partial(write, codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1:keyint=20"}),
        {"codec": "av1"},
    ),
    "mpeg4.avi": (partial(write, codec="mpeg4", options={}, time_base=Fraction(1, FPS)), {"codec": "mpeg4"}),
    "really a transport stream.mp4": (partial(write, file_format="mpegts", time_base=Fraction(1, 90000)), {}),
    "interlaced.mp4": (partial(write, options={"x264-params": f"{H264}:tff=1"}), {}),
    "cut off.mkv": (partial(write_cut, seconds=8), {"num_frames": None, "duration_s": None}),
    "always the same.mp4": (partial(write, shown=[next(pictures(6, 1))] * 40, options={}), {}),
    "black.mp4": (partial(write, shown=[np.zeros((HEIGHT, WIDTH), np.uint8)] * 40), {}),
    "short.mp4": (partial(write, seconds=1.5), {"num_frames": 15, "duration_s": 1.5}),
    "small.mp4": (partial(write, size=(40, 30)), {"width": 40, "height": 30}),
    "film.mp4": (partial(write, seconds=24), {"num_frames": 240, "duration_s": 24.0}),
    "another film.mp4": (partial(write, seconds=16), {"num_frames": 160, "duration_s": 16.0}),
}  # fmt: skip

REJECTED: dict[str, tuple[Make, Reason, str]] = {
    "cut off, index at the end.mp4": (write_cut, Reason.UNREADABLE, "Invalid data found"),
    "cut off, index at the front.mp4": (
        partial(write_cut, muxer={"movflags": "faststart"}), Reason.UNREADABLE, "Invalid data found",
    ),
    "cut off, in fragments.mp4": (
        partial(write_cut, muxer={"movflags": "frag_keyframe+empty_moov"}), Reason.UNREADABLE, "",
    ),
    "hole.mp4": (write_with_a_hole, Reason.UNREADABLE, ""),
    "hole.mkv": (write_with_a_hole, Reason.UNREADABLE, ""),
    "nothing in it.mp4": (Path.touch, Reason.EMPTY_FILE, "0 bytes"),
    "sound alone.mp4": (write_sound, Reason.NO_VIDEO_STREAM, "no video stream"),
    "text.mp4": (partial(Path.write_text, data="this is not a video\n" * 50), Reason.UNREADABLE, "Invalid data found"),
    "._plain.mp4": (write_mac_companion, Reason.UNREADABLE, "Invalid data found"),
    "pipe.mp4": (os.mkfifo, Reason.UNREADABLE, "not a regular file"),
    "broken link.mp4": (partial(link, target="nothing.mp4"), Reason.UNREADABLE, "not a regular file"),
    "link to itself.mp4": (partial(link, target="link to itself.mp4"), Reason.UNREADABLE, "not a regular file"),
    "link out.mp4": (partial(link, target="../elsewhere.mp4"), Reason.OUTSIDE_FOLDER, "outside the videos folder"),
    "b-frames.avi": (partial(write, time_base=Fraction(1, FPS)), Reason.UNREADABLE, "encode the file again"),
    "smaller from the middle on.mp4": (partial(write_in_two_sizes, later=(48, 32)), Reason.UNREADABLE, "size"),
    "larger from the middle on.mp4": (partial(write_in_two_sizes, later=(192, 128)), Reason.UNREADABLE, "size"),
    "cut off in its index.mp4": (write_cut_in_the_index, Reason.UNREADABLE, ""),
    "unknown codec.mp4": (write_in_an_unknown_codec, Reason.UNREADABLE, ""),
    "film_bytes.mp4": (partial(same, of="film.mp4"), Reason.DUPLICATE, "the same bytes as film.mp4"),
    "link to the film.mp4": (partial(link, target="film.mp4"), Reason.DUPLICATE, "the same bytes as film.mp4"),
    "the film, smaller.mkv": (
        partial(write, seconds=24, scaled_to=(60, 40), seed=zlib.crc32(b"film.mp4")),
        Reason.NEAR_DUPLICATE, "of film.mp4, which is larger (96x64, not 60x40)",
    ),
    "part of the film.mp4": (
        partial(write_part, of="film.mp4", first_group=5), Reason.NEAR_DUPLICATE, "of film.mp4, which is longer",
    ),
    "exam.mp4": (
        partial(write, seconds=16),
        Reason.CONTAMINATED, "of videomme/data/exam.mp4 (asked about in videomme/exam-1, videomme/exam-2)",
    ),
    "exam, again.webm": (
        partial(write, seconds=16, seed=zlib.crc32(b"exam.mp4"), codec="libvpx-vp9", options={"deadline": "realtime"}),
        Reason.CONTAMINATED, "of videomme/data/exam.mp4 (asked about in videomme/exam-1, videomme/exam-2)",
    ),
    "test.mp4": (
        partial(write, seconds=12),
        Reason.CONTAMINATED,
        "has the bytes of longvideobench/videos/seen.mp4 (asked about in longvideobench/seen_0)",
    ),
}  # fmt: skip
NOT_UTF_8 = b"caf\xe9.mp4"
TWICE = {"film.mp4", "film_bytes.mp4", "link to the film.mp4"}

# What the limits of params.yaml say of each; where there are more, the first of them is the reason to set it aside.
ODD: dict[str, list[Reason]] = {
    "one frame.mp4": [Reason.TOO_SHORT, Reason.TOO_FEW_FRAMES, Reason.STATIC],
    "two frames.mp4": [Reason.TOO_SHORT, Reason.TOO_FEW_FRAMES, Reason.STATIC],
    "short.mp4": [Reason.TOO_SHORT],
    "one pixel, ffv1.mkv": [Reason.TOO_SMALL],
    "one pixel, h264.mp4": [Reason.TOO_SMALL],
    "small.mp4": [Reason.TOO_SMALL],
    "always the same.mp4": [Reason.STATIC],
    "black.mp4": [Reason.TOO_DARK, Reason.STATIC],
}
RECOGNISABLE = {"film.mp4", "another film.mp4", "exam.mp4", "exam, again.webm", "the film, smaller.mkv",
                "part of the film.mp4", "test.mp4"}  # fmt: skip


def write_videos(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "a folder.mp4").mkdir()
    (root / "notes.txt").write_text("no video, and nobody says that it is one")
    write(root.parent / "elsewhere.mp4")
    for name, (make, *_) in [*VIDEOS.items(), *REJECTED.items()]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make(root / name)
    odd = root / os.fsdecode(NOT_UTF_8)
    write(root / "latin 1.mp4")
    (root / "latin 1.mp4").rename(odd)


def write_benchmarks(root: Path, videos: Path) -> None:
    """Video-MME with a smaller copy of a training video, a broken and a missing one; LongVideoBench with its bytes."""
    mme = root / "videomme"
    (mme / "data").mkdir(parents=True)
    write(mme / "data/exam.mp4", seconds=16, scaled_to=(60, 40), seed=zlib.crc32(b"exam.mp4"))
    write(mme / "data/unrelated.mp4", seconds=16)
    (mme / "data/broken.mp4").write_text("not a video")
    rows = [
        {
            "videoID": name, "question_id": f"{name}-{number}", "duration": "short", "task_type": "Counting",
            "question": f"How many hills are there, asked for the {number}. time?", "answer": "A",
            "options": ["A. Two.", "B. Three.", "C. Four.", "D. None."],
        }
        for name, questions in {"exam": 2, "unrelated": 1, "broken": 1, "missing": 1}.items()
        for number in range(1, questions + 1)
    ]  # fmt: skip
    (mme / "videomme").mkdir()
    (mme / "videomme/test-00000-of-00001.json").write_text(json.dumps(rows))
    long = root / "longvideobench"
    (long / "videos").mkdir(parents=True)
    shutil.copy(videos / "test.mp4", long / "videos/seen.mp4")
    write(long / "videos/unseen.mp4", seconds=16)
    rows = [
        {
            "id": f"{name}_0", "video_id": name, "video_path": f"{name}.mp4", "question": "What comes first?",
            "question_wo_referring_query": "What comes first?", "candidates": ["a hill", "a dale", "a lake", "a wood"],
            "correct_choice": 0, "question_category": "T2E", "topic_category": "travel", "duration_group": 15,
            "duration": 12.0,
        }
        for name in ("seen", "unseen")
    ]  # fmt: skip
    (long / "lvb_val.json").write_text(json.dumps(rows))


def set_up(folder: Path) -> None:
    """Settings that find `data/videos`, and limits that only score, so that odd videos are seen as well."""
    shutil.copy(ROOT / "params.yaml", folder)

    def edit(settings: dict[str, Any]) -> None:
        settings["data"] |= {"videos": "data/videos", "benchmarks": "data/benchmarks"}
        settings["runtime"]["items_per_task"] = 4
        for limits in settings["ingest"]["filters"].values():
            limits["score_only"] = True

    edit_params(folder, edit)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The folder, ingested once; `first/` is its catalog. Nobody changes its videos."""
    folder = tmp_path_factory.mktemp("real world")
    set_up(folder)
    write_videos(folder / "data/videos")
    write_benchmarks(folder / "data/benchmarks", folder / "data/videos")
    must_work("ingest", folder, environment)
    shutil.copytree(folder / "data/catalog", folder / "first")
    return folder


def catalog(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CATALOG_FILES}


def videos_in(folder: Path) -> dict[str, Video]:
    return {video.path: video for video in read_records(folder / "videos.jsonl", Video)}


def rejections_in(folder: Path, name: str = "rejected.jsonl") -> list[Rejection]:
    return read_records(folder / name, Rejection)


def still_working_in(folder: Path) -> list[list[str]]:
    """Every process, of whatever group or session, whose working directory is the folder, after a while to end."""
    ends_at, found = time.monotonic() + 30, [[""]]
    while found and time.monotonic() < ends_at:
        found = []
        for process in psutil.process_iter(["status", "cwd", "cmdline"]):
            if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info["cmdline"])
        time.sleep(0.05)
    return found


def played(path: Path, width: int) -> list[av.VideoFrame]:
    """What a player shows of the stream that is so wide, by decoding it in order."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams.video if width in (stream.width, stream.height))
        return list(container.decode(stream))


@pytest.mark.parametrize("name", VIDEOS)
def test_an_odd_file_is_a_video_with_the_right_facts(project: Path, name: str) -> None:
    video = videos_in(project / "first").get(name)
    assert video, [rejection for rejection in rejections_in(project / "first") if rejection.item == name]
    facts = USUAL | VIDEOS[name][1]
    frames = played(project / "data/videos" / name, facts["width"])
    if facts["num_frames"] is None:  # how many are left depends on where the cut falls
        facts["num_frames"] = len(frames)
        facts["duration_s"] = round(float(frames[-1].time - frames[0].time), 3) + 1 / FPS
        assert 10 < len(frames) < 70
    facts["duration_s"] = pytest.approx(facts["duration_s"], abs=2e-3)
    found = video.model_dump(include=set(facts))
    assert found | {"rotation_deg": video.rotation_deg % 360} == facts
    assert len(frames) == video.num_frames
    assert video.fps == pytest.approx(video.num_frames / video.duration_s, rel=1e-3)
    assert video.size_bytes == (project / "data/videos" / name).stat().st_size


@pytest.mark.parametrize("name", VIDEOS)
def test_its_frames_are_those_that_a_player_shows(project: Path, name: str) -> None:
    video = videos_in(project / "first")[name]
    path = project / "data/videos" / name
    frames = played(path, (USUAL | VIDEOS[name][1])["width"])
    picked = np.random.default_rng(0).permutation(len(frames))[:12].tolist()
    starts_s = [float(frames[position].time - frames[0].time) for position in picked]
    view = View(video_id=video.id, kind=ViewKind.DENSE, timestamps_s=tuple(round(s, 3) for s in starts_s))
    shown = decode(path, view, project / ".tpo/frames")
    assert shown.pixels.shape == (len(picked), video.height, video.width, 3)
    np.testing.assert_allclose(shown.timestamps_s, starts_s, atol=1e-6)
    for position, pixels in zip(picked, shown.pixels, strict=True):
        upright = np.rot90(frames[position].to_ndarray(format="rgb24"), frames[position].rotation // 90)
        np.testing.assert_array_equal(pixels, upright)


@pytest.mark.parametrize("name", REJECTED)
def test_a_file_that_cannot_be_used_is_set_aside_for_its_reason(project: Path, name: str) -> None:
    _, reason, words = REJECTED[name]
    found = [rejection for rejection in rejections_in(project / "first") if rejection.item == name]
    assert [rejection.reason for rejection in found] == [reason], videos_in(project / "first").get(name)
    assert words in found[0].detail
    assert str(project) not in found[0].detail


def test_a_name_that_is_not_utf_8_is_set_aside_readably(project: Path) -> None:
    (found,) = [rejection for rejection in rejections_in(project / "first") if rejection.item.startswith("caf")]
    assert (found.item, found.reason) == ("caf\\xe9.mp4", Reason.UNREADABLE)
    assert "UTF-8" in found.detail


def test_every_file_is_accounted_for_once_and_the_counts_add_up(project: Path) -> None:
    videos, rejected = videos_in(project / "first"), rejections_in(project / "first")
    accounted = [*videos, *(rejection.item for rejection in rejected)]
    assert sorted(accounted) == sorted([*VIDEOS, *REJECTED, "caf\\xe9.mp4"])
    found = read_manifest(project / "first")
    assert (found.items_in, found.items_out) == (len(accounted), len(videos))
    assert found.set_aside == count_reasons(rejected)
    assert found.items_in == found.items_out + sum(found.set_aside.values())
    assert found.facts["hours"] == pytest.approx(sum(video.duration_s for video in videos.values()) / 3600, abs=1e-3)
    assert found.facts["benchmarks"] == "partly checked"
    assert found.resumed == 0


def test_what_limits_only_score_is_kept_and_listed(project: Path) -> None:
    flagged: dict[str, list[Reason]] = {}
    for rejection in rejections_in(project / "first", "flagged.jsonl"):
        flagged.setdefault(rejection.item, []).append(rejection.reason)
    assert flagged == ODD


def test_brightness_does_not_depend_on_the_range_that_pixels_are_stored_in(project: Path) -> None:
    videos = videos_in(project / "first")
    sampled = list(pictures(5, 4))
    for name in ("full range.mp4", "limited range.mp4"):
        assert videos[name].brightness == pytest.approx(np.mean(sampled), abs=3)


def test_the_report_on_benchmarks_says_what_was_checked_and_found(project: Path) -> None:
    report = VideoReport.model_validate_json((project / "first/decontamination.json").read_text())
    copies = {
        name for name, (_, reason, _) in REJECTED.items() if reason in (Reason.NEAR_DUPLICATE, Reason.CONTAMINATED)
    }
    compared = set(VIDEOS) | copies
    assert (report.status, report.videos) == (Checked.PARTLY, len(compared))
    assert set(report.not_comparable) == compared - RECOGNISABLE
    long, mme = report.benchmarks
    assert (long.name, long.status, long.videos) == ("longvideobench", Checked.CHECKED, 2)
    assert (long.unusable, long.not_comparable) == ([], [])
    assert (mme.name, mme.status, mme.videos, mme.not_comparable) == ("videomme", Checked.PARTLY, 2, [])
    assert {rejection.item: rejection.reason for rejection in mme.unusable} == {
        "data/broken.mp4": Reason.UNREADABLE, "data/missing.mp4": Reason.VIDEO_MISSING,
    }  # fmt: skip
    exam = ("videomme", "data/exam.mp4", ["videomme/exam-1", "videomme/exam-2"], False)
    assert {f.video: (f.benchmark, f.benchmark_video, f.items, f.same_bytes) for f in report.found} == {
        "exam.mp4": exam,
        "exam, again.webm": exam,
        "test.mp4": ("longvideobench", "videos/seen.mp4", ["longvideobench/seen_0"], True),
    }
    for found in report.found:
        assert found.overlap_s == pytest.approx(12 if found.same_bytes else 16, abs=0.5)
        assert found.offset_s == pytest.approx(0, abs=0.25)


def test_nothing_is_left_running_or_half_written(project: Path) -> None:
    assert still_working_in(project) == []
    assert not list(project.rglob(".partial-*"))
    assert not list((project / ".tpo/ingest").iterdir())
    assert {path.name for path in (project / "first").iterdir()} == {*CATALOG_FILES, "manifest.json"}


def test_running_again_gives_the_same_catalog_byte_for_byte(project: Path, environment: dict[str, str]) -> None:
    must_work("ingest", project, environment)
    assert catalog(project / "data/catalog") == catalog(project / "first")
    passing = {"seconds"}
    again, first = (read_manifest(project / name).model_dump(exclude=passing) for name in ("data/catalog", "first"))
    assert again == first
    assert still_working_in(project) == []


def test_limits_as_shipped_set_aside_for_the_first_that_is_broken(
    project: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    data = {name: str(project / "data" / name) for name in ("videos", "benchmarks")}
    edit_params(tmp_path, lambda settings: settings["data"].update(data))
    shutil.copytree(project / ".tpo/frames", tmp_path / ".tpo/frames")
    must_work("ingest", tmp_path, environment)
    kept, rejected = videos_in(tmp_path / "data/catalog"), rejections_in(tmp_path / "data/catalog")
    assert kept == {name: video for name, video in videos_in(project / "first").items() if name not in ODD}
    unfit = {name: reasons[0] for name, reasons in ODD.items()}
    before = {rejection.item: rejection.reason for rejection in rejections_in(project / "first")}
    assert {rejection.item: rejection.reason for rejection in rejected} == before | unfit
    assert rejections_in(tmp_path / "data/catalog", "flagged.jsonl") == []


def journaled(folder: Path) -> list[str]:
    """The files that are done, of a run that was killed."""
    lines = [line for path in (folder / ".tpo/ingest").glob("*/journal.jsonl") for line in path.open("rb")]
    return [json.loads(line)["item"] for line in lines if line.endswith(b"\n")]


def wipe(path: Path) -> None:
    """Zeros instead of content, and nothing else of the file changes: whoever reads it would find no video."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_run_that_was_killed_goes_on_and_ends_the_same_without_looking_again_at_what_was_done(
    project: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    set_up(tmp_path)
    subprocess.run(["cp", "-a", str(project / "data"), str(tmp_path)], check=True)  # it can copy pipes and links
    shutil.rmtree(tmp_path / "data/catalog")
    with killed_when(lambda: len(journaled(tmp_path)) >= 20, "ingest", tmp_path, environment):
        done = journaled(tmp_path)
        assert 20 <= len(done) < len(VIDEOS) + len(REJECTED), "the kill came too late to be in the middle"
        assert len(set(done)) == len(done)
        assert not (tmp_path / "data/catalog").exists(), "nothing half-written is to be seen"
        assert still_working_in(tmp_path) == []
        regular = [tmp_path / name for name in done if (tmp_path / name).is_file() and Path(name).name not in TWICE]
        assert len(regular) > 10
        for path in regular:
            wipe(path)
        said = must_work("ingest", tmp_path, environment)
    assert f"ingest: going on, {len(done)} files were done already" in said
    assert catalog(tmp_path / "data/catalog") == catalog(project / "first")
    resumed, undisturbed = (read_manifest(folder) for folder in (tmp_path / "data/catalog", project / "first"))
    assert resumed.resumed == len(done)
    passing = {"resumed", "seconds"}
    assert resumed.model_dump(exclude=passing) == undisturbed.model_dump(exclude=passing)
    assert still_working_in(tmp_path) == []


def test_a_folder_of_which_nothing_can_be_used_fails_with_a_plain_message(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    set_up(tmp_path)
    videos = tmp_path / "data/videos"
    videos.mkdir(parents=True)
    for name in ("text.mp4", "nothing in it.mp4", "pipe.mp4", "broken link.mp4", "sound alone.mp4"):
        REJECTED[name][0](videos / name)
    code, _, err = finish("ingest", tmp_path, environment)
    assert code == 1
    message = "ingest: None of the 5 files in data/videos can be used; data/catalog/rejected.jsonl says why."
    assert err.strip().splitlines()[-1] == message
    assert "Traceback" not in err
    assert {rejection.item: rejection.reason for rejection in rejections_in(tmp_path / "data/catalog")} == {
        path.name: REJECTED[path.name][1] for path in videos.iterdir()
    }
    assert still_working_in(tmp_path) == []


def test_without_a_benchmark_the_report_says_that_nothing_was_checked(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    set_up(tmp_path)
    (tmp_path / "data/videos").mkdir(parents=True)
    (tmp_path / "data/benchmarks").mkdir()
    write(tmp_path / "data/videos/film.mp4", seconds=16)
    said = must_work("ingest", tmp_path, environment)
    assert "ingest: benchmark videos not checked (No benchmark below data/benchmarks." in said
    report = VideoReport.model_validate_json((tmp_path / "data/catalog/decontamination.json").read_text())
    assert (report.status, report.videos, report.benchmarks, report.found) == (Checked.NOT, 1, [], [])
    assert report.status == "not checked"
    assert report.note.startswith("No benchmark below data/benchmarks.")
    assert read_manifest(tmp_path / "data/catalog").facts["benchmarks"] == "not checked"
