"""32 frames of a long video: our indexed reader against the usual ways, in time and in wrong frames.

    python bench/decode.py                       # 1 and 10 minutes, short and long groups of pictures, closed and open
    python bench/decode.py --minutes 1 10 60     # and an hour
    python bench/decode.py --quick               # 1 minute

Each picture carries its number, so a wrong one is seen. Each way reads the same frames `--repeats` times; the median
counts. "index" is what measuring a file costs once, at ingest; "cached" is the second reading. Then many views of one
video, as many questions about it need them: all prepared in one pass, against one after the other.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np

from tpo.records import View, ViewKind
from tpo.video.decode import VideoFolder, decode
from tpo.video.frame_cache import FrameCache
from tpo.video.measure import file_sha256, measure, state

FPS = 25
NUM_FRAMES = 32
NUM_VIEWS = 8
HEIGHT_PX, WIDTH_PX = 360, 640
BITS, BLOCK_PX = 20, 32
GROUPS = {
    "short groups": "keyint=25:bframes=2:scenecut=0",
    "long groups": "keyint=250:bframes=2:scenecut=0",
    "open groups": "keyint=50:bframes=3:b-adapt=0:scenecut=0:open-gop=1",
}


def write_film(path: Path, seconds: int, x264: str) -> None:
    """H.264 with a camera's grain; along the top edge the frame's number as 20 bright or dark blocks."""
    rng = np.random.default_rng(0)
    grain = rng.integers(60, 190, (8, HEIGHT_PX // 4, WIDTH_PX // 4), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "x264-params": x264})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number in range(seconds * FPS):
            grey = grain[number // 3 % 8].copy()
            bits = np.array([number >> bit & 1 for bit in range(BITS)], bool)
            grey[:BLOCK_PX] = np.where(bits, 235, 16).astype(np.uint8).repeat(BLOCK_PX)
            frame = av.VideoFrame.from_ndarray(grey, format="gray")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers_on(pixels: np.ndarray) -> np.ndarray:
    """The number that each picture carries: uint8 [n, h, w, 3] → int [n]."""
    blocks = pixels[:, 8 : BLOCK_PX - 8].mean(axis=(1, 3)).reshape(len(pixels), BITS, BLOCK_PX).mean(axis=2)
    return np.asarray(((blocks > 125) << np.arange(BITS)).sum(axis=1))


def by_decord(path: Path, wanted: np.ndarray, threads: int) -> np.ndarray:
    pixels: np.ndarray = decord.VideoReader(str(path), num_threads=threads).get_batch(wanted.tolist()).asnumpy()
    return pixels


def in_order(path: Path, wanted: np.ndarray) -> np.ndarray:
    """Decode everything up to the last frame wanted."""
    asked = set(wanted.tolist())
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        frames = zip(range(int(wanted[-1]) + 1), container.decode(video=0), strict=False)
        return np.stack([frame.to_ndarray(format="rgb24") for number, frame in frames if number in asked])


def by_seeking(path: Path, wanted: np.ndarray) -> np.ndarray:
    """Seek to the keyframe before each frame and decode until its time: right for closed groups alone."""
    kept = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        assert stream.time_base
        for number in wanted.tolist():
            pts = round(number / FPS / stream.time_base)
            container.seek(pts, stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.pts is not None and frame.pts >= pts)
            kept.append(frame.to_ndarray(format="rgb24"))
    return np.stack(kept)


def compare(path: Path, seconds: int, repeats: int) -> dict[str, tuple[float, int]]:
    """Seconds and number of wrong frames, over all repeats, of each way."""
    wanted = np.linspace(0, seconds * FPS - 1, NUM_FRAMES).round().astype(int)
    view = View(video_id=file_sha256(path), kind=ViewKind.DENSE, timestamps_s=tuple((wanted / FPS).round(3).tolist()))
    began = time.perf_counter()
    measure(path).save(path.parent, view.video_id, state(path))
    found = {"index": (time.perf_counter() - began, 0)}
    cached = VideoFolder(path.parent, path.parent, FrameCache(path.parent / "cache", 10**10))
    cached.prepare(path.name, [view])
    ways: dict[str, Callable[[], np.ndarray]] = {
        "cached": lambda: cached.frames(path.name, view).pixels,
        "ours": lambda: decode(path, view, path.parent).pixels,
        "decord": lambda: by_decord(path, wanted, 0),
        "decord, 1 thread": lambda: by_decord(path, wanted, 1),
        "PyAV, seeking": lambda: by_seeking(path, wanted),
        "PyAV, in order": lambda: in_order(path, wanted),
    }
    for way, read in ways.items():
        times, wrong = [], 0
        for _ in range(repeats):
            began = time.perf_counter()
            pixels = read()
            times.append(time.perf_counter() - began)
            wrong += int((numbers_on(pixels) != wanted).sum())
        found[way] = (statistics.median(times), wrong)
    return found


def many_views(path: Path, seconds: int) -> dict[str, float]:
    """Seconds for views at moments of their own: one after the other, and prepared in one pass."""
    video_id, folder = file_sha256(path), path.parent
    rng = np.random.default_rng(0)
    moments = [np.sort(rng.uniform(0, seconds, NUM_FRAMES)).round(3).tolist() for _ in range(NUM_VIEWS)]
    views = [View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=tuple(times)) for times in moments]
    began = time.perf_counter()
    apart = [decode(path, view, folder).pixels for view in views]
    middle = time.perf_counter()
    together = VideoFolder(folder, folder, FrameCache(folder / "cache", 10**10))
    together.prepare(path.name, views)
    same = [together.frames(path.name, view).pixels for view in views]
    ended = time.perf_counter()
    assert all(np.array_equal(one, other) for one, other in zip(apart, same, strict=True))
    return {"one by one": middle - began, "prepared": ended - middle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one minute of video alone")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in [1] if args.quick else args.minutes:
            for name, x264 in GROUPS.items():
                path = Path(folder) / f"{minutes} min, {name}.mp4"
                write_film(path, minutes * 60, x264)
                found = compare(path, minutes * 60, args.repeats)
                print(f"{path.stem}: {NUM_FRAMES} frames, median of {args.repeats}, wrong frames of all repeats")
                for way, (seconds, wrong) in found.items():
                    print(f"  {way:18} {seconds:7.3f} s  {f'{wrong} wrong' if wrong else ''}", flush=True)
                views = many_views(path, minutes * 60)
                for way, seconds in views.items():
                    print(f"  {f'{NUM_VIEWS} views, {way}':18} {seconds:7.3f} s", flush=True)
                others = set(found) - {"index", "cached", "ours"}
                right = min(found[way][0] for way in others if not found[way][1])
                results[path.stem] = {
                    "speedup_vs_best_that_is_right": round(right / found["ours"][0], 2),
                    "speedup_of_the_cache": round(found["ours"][0] / found["cached"][0], 1),
                    f"cost_of_{NUM_VIEWS}_views_in_readings": round(views["prepared"] / found["ours"][0], 2),
                    f"speedup_{NUM_VIEWS}_views": round(views["one by one"] / views["prepared"], 2),
                    "wrong_frames": {way: wrong for way, (_, wrong) in found.items() if way != "index"},
                }
                path.unlink()
                shutil.rmtree(path.parent / "cache")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
