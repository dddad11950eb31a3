"""A folder as people have them: every odd or broken file by its name, with what is to become of it."""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from odd_videos import (
    FPS,
    H264,
    HEIGHT,
    TEN_BITS,
    WIDTH,
    X265,
    link,
    pictures,
    same,
    write,
    write_beside_a_smaller_stream,
    write_beside_an_unknown_codec,
    write_cut,
    write_cut_in_the_index,
    write_from_the_second_group_on,
    write_in_an_unknown_codec,
    write_in_two_sizes,
    write_mac_companion,
    write_part,
    write_sound,
    write_with_a_cover_stream,
    write_with_a_hole,
    write_with_an_attached_cover,
    write_with_misplaced_keyframes,
    write_without_a_table_of_keyframes,
)

from tpo.records import Reason

Make = Callable[[Path], None]
Facts = dict[str, Any]


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
        partial(write_from_the_second_group_on, options={"x264-params": f"{H264}:open-gop=1"}),
        {"num_frames": 60, "duration_s": 6.0},
    ),
    "cut in an open group, hevc.mkv": (
        partial(write_from_the_second_group_on, **X265), {"codec": "hevc", "num_frames": 60, "duration_s": 6.0},
    ),
    "misplaced keyframes.mp4": (write_with_misplaced_keyframes, {"num_frames": 80, "duration_s": 8.0}),
    "every frame is said to be a keyframe.mp4": (
        write_without_a_table_of_keyframes, {"num_frames": 80, "duration_s": 8.0},
    ),
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
    "link out.mp4": (partial(link, target="../elsewhere.mp4"), Reason.OUTSIDE_FOLDER, "a link out of the"),
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
    "one pixel, h264.mp4": [Reason.TOO_SMALL, Reason.STATIC],
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
