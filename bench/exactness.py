"""Random views of many kinds of files: is every frame the one that a player shows at that moment?

    python bench/exactness.py            # 10,000 views, some minutes
    python bench/exactness.py --quick    # 20 views of each file

Each picture carries its number. What a player shows is what PyAV gives when it decodes the file from its start to its
end; a frame of ours is wrong if its pixels are not exactly those, which counts wrong numbers as well as damaged
pictures. Every view is one of a sampler's, with random counts and segments, or random moments, also outside the video.
A quarter of them go through a frame cache that is too small for all of them. decord is asked for the frames of the
sparse views by their numbers, which is its way; what it gives is wrong if the number on it is.

Views round to milliseconds. So the frame that a player shows half a millisecond later is right too; a frame that it
shows a full millisecond later is not wrong, but counted as early.
"""

import argparse
import importlib.util
import json
import math
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from tpo.records import Segment, Video, View, ViewKind
from tpo.video.decode import DecodeError, VideoFolder, last_words
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober
from tpo.video.sample import dense, segment, sparse, without_segment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/video"))
from numbered_video import (  # type: ignore[import-not-found]
    H264,
    HEVC,
    HEVC_SHORT,
    MILLISECONDS,
    OPEN_GOP,
    SIDE_PX,
    cut_without_encoding,
    every,
    number_on,
    picture,
    write_numbered,
)

NUM_FRAMES = 240
TOTAL_VIEWS = 10_000
MAX_FRAMES = 32
CACHE_BYTES = 20 * 3 * SIDE_PX**2 * MAX_FRAMES
STEADY_S = every(0.1, NUM_FRAMES)
UNSTEADY_S = (np.cumsum(np.random.default_rng(0).integers(20, 400, NUM_FRAMES)) / 1000).tolist()
THIRDS_S = [number / 30 for number in range(NUM_FRAMES)]
AN_HOUR_IN_S = [*STEADY_S[:120], *(3600 + time_s for time_s in THIRDS_S[:120])]
LATE_S = [5 + time_s for time_s in STEADY_S]
HEVC_CLOSED = {"x265-params": HEVC_SHORT["x265-params"] + ":open-gop=0"}
REFRESH = {"x264-params": "keyint=24:bframes=0:intra-refresh=1"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "48"}
AV1 = {"preset": "10", "crf": "20", "svtav1-params": "lp=1:keyint=48"}
MPEG4 = {"b": "400k"}

Write = Callable[[Path], None]


def write(
    path: Path, codec: str = "libx264", options: dict[str, str] = H264, *,
    pix_fmt: str = "yuv420p", rotation_deg: int = 0, second: bool = False,
) -> None:  # fmt: skip
    """What `write_numbered` writes, in other pixels, stored turned, or behind a smaller stream that shows white."""
    with av.open(str(path), "w") as container:
        sides = ([SIDE_PX // 2] if second else []) + [SIDE_PX]
        added = [container.add_stream(codec, rate=10, options=dict(options)) for _ in sides]
        streams = [stream for stream in added if isinstance(stream, av.VideoStream)]
        for stream, side in zip(streams, sides, strict=True):
            stream.width = stream.height = side
            stream.pix_fmt, stream.thread_count = pix_fmt, 1
            stream.codec_context.time_base = MILLISECONDS
            stream.set_display_rotation(rotation_deg)
        container.start_encoding()
        for number in range(NUM_FRAMES):
            shown = np.ascontiguousarray(np.rot90(picture(number), -rotation_deg // 90))
            for stream, side in zip(streams, sides, strict=True):
                pixels = shown if side == SIDE_PX else np.full((side, side, 3), 255, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.time_base, frame.pts = MILLISECONDS, number * 100
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())


def numbered(times_s: Sequence[float], codec: str, options: dict[str, str], **more: Any) -> Write:
    return partial(write_numbered, times_s=times_s, codec=codec, options=options, **more)


def with_misplaced_keyframes(path: Path) -> None:
    """The container's table of keyframes says that all but the first come ten frames later than they do."""
    write(path)
    content = bytearray(path.read_bytes())
    table = content.index(b"stss") + 8
    count = int.from_bytes(content[table : table + 4])
    for entry in range(table + 8, table + 4 + 4 * count, 4):
        content[entry : entry + 4] = (int.from_bytes(content[entry : entry + 4]) + 10).to_bytes(4)
    path.write_bytes(content)


def with_every_frame_a_keyframe(path: Path) -> None:
    """It says so, having no table of keyframes."""
    write(path)
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))


def cut(codec: str, options: dict[str, str], skip_s: float) -> Write:
    """From the third keyframe on, copied without encoding."""

    def write_cut(path: Path) -> None:
        whole = path.with_name("whole.mp4")
        write_numbered(whole, STEADY_S, codec, options)
        cut_without_encoding(whole, path, keyframe=3, skip_s=skip_s)
        whole.unlink()

    return write_cut


FILES: dict[str, Write] = {
    "h264, closed groups.mp4": numbered(STEADY_S, "libx264", H264),
    "h264, closed groups.mov": numbered(STEADY_S, "libx264", H264),
    "h264, open groups.mp4": numbered(STEADY_S, "libx264", OPEN_GOP),
    "h264, open groups.mkv": numbered(STEADY_S, "libx264", OPEN_GOP),
    "h264, refreshed bit by bit.mkv": numbered(STEADY_S, "libx264", REFRESH),
    "h264, 10 bits.mkv": partial(write, pix_fmt="yuv420p10le"),
    "h264, thirds of a second.mkv": numbered(THIRDS_S, "libx264", OPEN_GOP),
    "h264, variable rate.mp4": numbered(UNSTEADY_S, "libx264", H264),
    "h264, variable rate, open.mkv": numbered(UNSTEADY_S, "libx264", OPEN_GOP),
    "h264, starts late.mkv": numbered(LATE_S, "libx264", H264),
    "h264, starts late.mp4": numbered(LATE_S, "libx264", OPEN_GOP),
    "h264, an hour in.mp4": numbered(AN_HOUR_IN_S, "libx264", H264),
    "h264, turned 90.mp4": partial(write, rotation_deg=90),
    "h264, turned 270.mov": partial(write, rotation_deg=270),
    "h264, second stream.mp4": partial(write, second=True),
    "h264, misplaced keyframes.mp4": with_misplaced_keyframes,
    "h264, all keyframes, it says.mp4": with_every_frame_a_keyframe,
    "h264, closed groups.ts": numbered(STEADY_S, "libx264", H264),
    "h264, open groups.ts": numbered(STEADY_S, "libx264", OPEN_GOP),
    "h264, cut.mp4": cut("libx264", OPEN_GOP, 0.0),
    "h264, cut between.mp4": cut("libx264", OPEN_GOP, 0.5),
    "h264, cut between.mkv": cut("libx264", OPEN_GOP, 0.5),
    "hevc, long groups.mp4": numbered(STEADY_S, "libx265", HEVC),
    "hevc, open groups.mp4": numbered(STEADY_S, "libx265", HEVC_SHORT),
    "hevc, open groups.mkv": numbered(STEADY_S, "libx265", HEVC_SHORT),
    "hevc, closed groups.mp4": numbered(STEADY_S, "libx265", HEVC_CLOSED),
    "hevc, 10 bits.mp4": partial(write, codec="libx265", options=HEVC_SHORT, pix_fmt="yuv420p10le"),
    "hevc, open groups.ts": numbered(STEADY_S, "libx265", HEVC_SHORT),
    "hevc, cut.mp4": cut("libx265", HEVC_SHORT, 0.0),
    "hevc, cut between.mkv": cut("libx265", HEVC_SHORT, 0.5),
    "vp9.webm": numbered(STEADY_S, "libvpx-vp9", VP9),
    "av1.mp4": numbered(STEADY_S, "libsvtav1", AV1),
    "mpeg4.avi": numbered(STEADY_S, "mpeg4", MPEG4, time_base=Fraction(1, 10)),
    "mpeg4, b-frames.mkv": numbered(STEADY_S, "mpeg4", MPEG4 | {"bf": "2"}),
}


@dataclass(frozen=True)
class Played:
    """What a player shows: when each frame begins, in seconds from the first, its pixels, upright, and its number."""

    starts_s: np.ndarray
    pixels: np.ndarray
    numbers: np.ndarray

    def on_display(self, moments_s: Sequence[float], tolerance_s: float) -> np.ndarray:
        """The frame at each moment, or the next one if it begins so soon."""
        found = np.searchsorted(self.starts_s, np.asarray(moments_s) + tolerance_s + 1e-9, side="right") - 1
        return np.clip(found, 0, len(self.starts_s) - 1)


def play(path: Path) -> Played:
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda stream: stream.width)
        frames = list(container.decode(stream))
    pixels = [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in frames]
    starts_s = np.array([frame.time for frame in frames], np.float64)
    return Played(starts_s - starts_s[0], np.stack(pixels), np.array([number_on(shown) for shown in pixels]))


def random_view(video: Video, rng: np.random.Generator) -> View:
    count = int(rng.integers(1, MAX_FRAMES, endpoint=True))
    start_s, end_s = np.sort(rng.uniform(0, video.duration_s, 2)).round(3).tolist()
    part = Segment(video_id=video.id, start_s=start_s, end_s=max(end_s, start_s + 0.05))
    match rng.integers(5):
        case 0:
            return dense(video, count)
        case 1:
            return segment(video, part, count)
        case 2 if part.end_s - part.start_s < 0.9 * video.duration_s:
            return without_segment(video, part, count)
        case 3:
            return sparse(dense(video, MAX_FRAMES), count / MAX_FRAMES, int(rng.integers(1000)))
        case _:
            moments_s = rng.uniform(-1, video.duration_s + 1, count).round(3)
            return View(video_id=video.id, kind=ViewKind.DENSE, timestamps_s=tuple(moments_s.tolist()))


@dataclass
class Counts:
    views: int = 0
    frames: int = 0
    wrong_frames: int = 0
    wrong_timestamps: int = 0
    early_frames: int = 0
    sparse: list[np.ndarray] = field(default_factory=list)


def read_views(folder: VideoFolder, cached: VideoFolder, video: Video, played: Played, num_views: int) -> Counts:
    """Random views of one video, every fourth of them by way of the cache, compared with what a player shows."""
    rng, counts = np.random.default_rng(zlib.crc32(video.path.encode())), Counts(num_views)
    for number in range(num_views):
        view = random_view(video, rng)
        asked = len(view.timestamps_s)
        counts.frames += asked
        try:
            if number % 4 == 0:
                cached.prepare(video.path, [view, random_view(video, rng)])
            frames = (folder if number % 4 else cached).frames(video.path, view)
        except DecodeError:
            counts.wrong_frames += asked
            continue
        wanted, soon = (played.on_display(view.timestamps_s, tolerance_s) for tolerance_s in (0.5e-3, 1e-3))
        is_early = (soon != wanted) & (np.abs(frames.timestamps_s - played.starts_s[soon]) < 1e-6)
        right = np.where(is_early, soon, wanted)
        counts.early_frames += int(is_early.sum())
        counts.wrong_frames += int((frames.pixels != played.pixels[right]).any(axis=(1, 2, 3)).sum())
        counts.wrong_timestamps += int((np.abs(frames.timestamps_s - played.starts_s[right]) > 1e-6).sum())
        if view.kind is ViewKind.SPARSE:
            counts.sparse.append(wanted)
    return counts


def wrong_by_decord(path: Path, played: Played, asked: Sequence[np.ndarray]) -> tuple[int, str]:
    """Number of wrong frames, with a reader for each view; what it cannot read is wrong. And what it complains of."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)

    wrong, complaint = 0, ""
    for positions in asked:
        try:
            batch = decord.VideoReader(str(path), num_threads=1).get_batch(positions.tolist()).asnumpy()
            numbers = np.array([number_on(pixels) for pixels in batch])
            wrong += int((numbers != played.numbers[positions]).sum())
        except (decord.DECORDError, IndexError, ValueError) as error:
            wrong += len(positions)
            complaint = f": {last_words(error, str(path))[:60]}"
    return wrong, complaint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 views of each file")
    parser.add_argument("--views", type=int, default=math.ceil(TOTAL_VIEWS / len(FILES)), help="of each file")
    args = parser.parse_args()
    os.environ["SVT_LOG"] = "1"  # errors alone
    num_views = 20 if args.quick else args.views
    has_decord = importlib.util.find_spec("decord") is not None
    total, decord_wrong, decord_frames = Counts(), 0, 0
    print("  frames: of the file; restarts: where decoding may begin; read: frames of all views; wrong: of those")
    print(
        f"{'file':34}{'frames':>7}{'restarts':>9}{'read':>8}{'wrong':>6}{'times':>6}{'early':>6}  decord, sparse views"
    )
    with tempfile.TemporaryDirectory() as name, Prober(Path(name) / "index") as prober:
        root = Path(name) / "videos"
        root.mkdir()
        folder = VideoFolder(root, prober.index_dir)
        cached = VideoFolder(root, prober.index_dir, FrameCache(Path(name) / "cache", CACHE_BYTES))
        for file, write_file in FILES.items():
            write_file(root / file)
            video = prober.probe(root, root / file)
            assert isinstance(video, Video), video
            played = play(root / file)
            assert len(played.numbers) == video.num_frames, file
            counts = read_views(folder, cached, video, played, num_views)
            asked = sum(map(len, counts.sparse))
            wrong, complaint = (
                wrong_by_decord(root / file, played, counts.sparse) if has_decord else (0, ": it is not there")
            )
            print(
                f"{file:34}{video.num_frames:7}{video.num_restarts:9}{counts.frames:8}{counts.wrong_frames:6}"
                f"{counts.wrong_timestamps:6}{counts.early_frames:6}  {wrong} of {asked} wrong{complaint}",
                flush=True,
            )
            for key in ("views", "frames", "wrong_frames", "wrong_timestamps", "early_frames"):
                setattr(total, key, getattr(total, key) + getattr(counts, key))
            decord_wrong, decord_frames = decord_wrong + wrong, decord_frames + asked
    result = {key: value for key, value in vars(total).items() if key != "sparse"}
    result |= {"decord_wrong_frames": decord_wrong if has_decord else None, "decord_frames": decord_frames}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
