"""Is the same video known again in another file, is no other one taken for it, and what does looking cost?

    python bench/near_duplicates.py                 # 16 clips of 2 minutes, up to 5000 videos
    python bench/near_duplicates.py --quick         # 16 clips of 20 seconds, up to 1000 videos
    python bench/near_duplicates.py --videos DIR    # and the clips in a folder

Every clip is encoded again in each of the ways below. A pair that is found is right if both come from one clip. The
clips come in kinds that look alike, among them the same intro before different clips, and different things going on in
one place. Clips in which next to nothing moves, or only in the intro, cannot be told apart and are not to be found. The
cost is that of fingerprints made up in memory: 5 minutes each, one in ten a copy, with pictures that many videos show.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy.ndimage import gaussian_filter

from tpo.video.copies import find_copies
from tpo.video.fingerprint import SAMPLE_STEP_S, Fingerprint, hash_picture

FPS = 25
HEIGHT_PX, WIDTH_PX = 108, 192
LONGER_SIDE_PX = 128
INTRO_S = 5
STATIC = "static"  # in the names of the kinds that are not to be found
MIN_CLIP_S = 18  # of shorter clips, a cut leaves less than is looked for


@dataclass(frozen=True)
class Change:
    """How a clip is encoded again; lengths are shares of the clip's."""

    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "26", "preset": "veryfast"})
    scale: tuple[float, float] = (1, 1)
    bars: tuple[float, float] = (0, 0)  # of the new picture's height and width, each side
    fps: float = 0  # 0: as it was
    gain: float = 1
    lift: float = 0  # grey levels
    start_s: float = 0
    length: float = 1


HEVC = {"crf": "38", "preset": "ultrafast", "x265-params": "log-level=none"}
VP9 = {"crf": "50", "b": "0", "deadline": "realtime", "cpu-used": "8"}
CHANGES = {
    "HEVC, low bit rate": Change("libx265", HEVC),
    "VP9, low bit rate": Change("libvpx-vp9", VP9),
    "half the size": Change(scale=(0.5, 0.5)),
    "another aspect ratio": Change(scale=(1, 0.75)),
    "letterbox": Change(bars=(0.12, 0)),
    "pillarbox": Change(bars=(0, 0.2)),
    "10 frames a second": Change(fps=10),
    "30 frames a second": Change(fps=30),
    "darker": Change(gain=0.75),
    "brighter, less contrast": Change(gain=0.8, lift=35),
    "cut": Change(start_s=3.29, length=0.6),
    "cut, half the size, HEVC": Change("libx265", HEVC, scale=(0.5, 0.5), start_s=2.77, length=0.65),
    "cut, letterbox, 10 frames a second": Change(bars=(0.12, 0), fps=10, start_s=4.13, length=0.6),
}


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A surface with coarse and fine structure, float64 [height, width], about 0 to 255."""
    layers = [gaussian_filter(rng.standard_normal((height, width)), size) * size for size in (24, 8, 2)]
    weighted = [layer / layer.std() * weight for layer, weight in zip(layers, (45, 25, 8), strict=True)]
    return np.asarray(np.clip(128 + np.sum(weighted, axis=0), 0, 255))


def window(surface: np.ndarray, top: float, left: float) -> np.ndarray:
    """A picture of the surface at this place, which is reflected to and fro to stay inside."""
    spans = surface.shape[0] - HEIGHT_PX, surface.shape[1] - WIDTH_PX
    y, x = (int(abs((at + span) % (2 * span) - span)) for at, span in zip((top, left), spans, strict=True))
    return surface[y : y + HEIGHT_PX, x : x + WIDTH_PX].copy()


def put(picture: np.ndarray, at: np.ndarray, size: int, grey: float) -> None:
    y, x = (at % (HEIGHT_PX - size, WIDTH_PX - size)).astype(int)
    picture[y : y + size, x : x + size] = grey


def shots(rng: np.random.Generator, num_frames: int) -> Iterator[np.ndarray]:
    """Cut every 2 to 6 seconds: another surface, another movement of the camera, something that crosses it."""
    left = 0
    for _ in range(num_frames):
        if not left:
            left = int(rng.integers(2 * FPS, 6 * FPS))
            surface = texture(rng, HEIGHT_PX * 2, WIDTH_PX * 2)
            place, speed = rng.uniform(0, 200, 2), rng.uniform(-1, 1, 2)
            thing, velocity = rng.uniform(0, 200, 2), rng.uniform(-2, 2, 2)
            size, grey = int(rng.integers(16, 50)), float(rng.uniform(0, 255))
        left, place, thing = left - 1, place + speed, thing + velocity
        picture = window(surface, *place)
        put(picture, thing, size, grey)
        yield picture


def pan(rng: np.random.Generator, num_frames: int) -> Iterator[np.ndarray]:
    """One slow movement over a wide surface."""
    surface = texture(rng, HEIGHT_PX * 3, WIDTH_PX * 4)
    place, speed = rng.uniform(0, 200, 2), rng.uniform(0.4, 0.8, 2)
    for number in range(num_frames):
        yield window(surface, *(place + number * speed))


def handheld(rng: np.random.Generator, num_frames: int) -> Iterator[np.ndarray]:
    """One place, a camera that is never still, a few things that move."""
    surface = texture(rng, HEIGHT_PX * 2, WIDTH_PX * 2)
    sway = gaussian_filter(rng.standard_normal((num_frames, 2)), (12, 0)) * 120
    things, speeds = rng.uniform(0, 200, (4, 2)), rng.uniform(-2.5, 2.5, (4, 2))
    for number in range(num_frames):
        picture = window(surface, *(70 + sway[number]))
        for thing, speed, grey in zip(things, speeds, (20, 90, 170, 240), strict=True):
            put(picture, thing + number * speed, 30, grey)
        yield picture


def one_place(rng: np.random.Generator, num_frames: int, things: int) -> Iterator[np.ndarray]:
    """A fixed camera over the same road in every clip, grain, and big things that pass now and then."""
    surface = texture(np.random.default_rng(7), HEIGHT_PX, WIDTH_PX)
    starts = rng.uniform(0, num_frames, things)
    lanes, speeds = rng.uniform(0, HEIGHT_PX - 60, things), rng.uniform(2, 5, things)
    for number in range(num_frames):
        picture = surface + rng.normal(0, 6, surface.shape)
        for start, lane, speed in zip(starts, lanes, speeds, strict=True):
            if 0 < (x := (number - start) * speed) < WIDTH_PX - 60:
                put(picture, np.array([lane, x]), 60, 250)
        yield picture


def slides(rng: np.random.Generator, num_frames: int) -> Iterator[np.ndarray]:
    """Lines of dark blocks on white, others every 4 to 9 seconds, below a heading that is always there."""
    left = 0
    for _ in range(num_frames):
        if not left:
            left = int(rng.integers(4 * FPS, 9 * FPS))
            picture = np.full((HEIGHT_PX, WIDTH_PX), 245.0)
            picture[8:20, 15:120] = 40
            for top in range(30, HEIGHT_PX - 9, 12):
                picture[top : top + 7, 15 : int(rng.integers(15, WIDTH_PX - 8))] = 60
        left -= 1
        yield picture


def with_intro(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield from shots(np.random.default_rng(99), INTRO_S * FPS)
    yield from frames


Maker = Callable[[np.random.Generator, int], Iterator[np.ndarray]]
KINDS: dict[str, Maker] = {
    "shots": shots,
    "pan": pan,
    "handheld": handheld,
    "slides": slides,
    "same intro": lambda rng, num_frames: with_intro(shots(rng, num_frames - INTRO_S * FPS)),
    "one busy place": lambda rng, num_frames: one_place(rng, num_frames, num_frames // 40),
    STATIC: lambda rng, num_frames: one_place(rng, num_frames, 0),
    f"same intro, {STATIC}": lambda rng, num_frames: with_intro(one_place(rng, num_frames - INTRO_S * FPS, 0)),
}


def write(path: Path, pictures: Iterable[np.ndarray], fps: float, codec: str, options: dict[str, str]) -> None:
    """Encode grey pictures, [h, w] in 0..255."""
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape
            frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), format="gray")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def changed(path: Path, change: Change, fps: float, duration_s: float) -> Iterator[np.ndarray]:
    """The file's pictures, grey, as they are to be encoded again at `fps`."""
    end_s = min(duration_s, change.start_s + change.length * duration_s)
    with av.open(str(path)) as container:
        shown = 0
        for frame in container.decode(video=0):
            if frame.time is None or frame.time >= end_s:
                break
            picture = None
            while frame.time - change.start_s >= shown / fps - 1e-6:
                picture = as_changed(frame, change) if picture is None else picture
                shown += 1
                yield picture


def as_changed(frame: av.VideoFrame, change: Change) -> np.ndarray:
    height, width = (
        round(side * by / 2) * 2 for side, by in zip((frame.height, frame.width), change.scale, strict=True)
    )
    small = frame.reformat(width=width, height=height, format="gray", interpolation="AREA").to_ndarray()
    bar_y, bar_x = (round(side * bar / (1 - 2 * bar)) for side, bar in zip(small.shape, change.bars, strict=True))
    return np.pad(small * change.gain + change.lift, ((bar_y, bar_y), (bar_x, bar_x)))


def fingerprint(path: Path) -> Fingerprint:
    times_s: list[float] = []
    hashes, informative = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time is None or frame.time < len(times_s) * SAMPLE_STEP_S:
                continue
            shrink = min(1.0, LONGER_SIDE_PX / max(frame.width, frame.height))
            width, height = round(frame.width * shrink), round(frame.height * shrink)
            grey = frame.reformat(width=width, height=height, format="gray", interpolation="AREA").to_ndarray()
            bits, shows = hash_picture(grey)
            times_s.append(frame.time)
            hashes.append(bits)
            informative.append(shows)
    return Fingerprint(np.array(times_s, np.float32), np.array(hashes, np.uint64), np.array(informative, bool))


def length_and_rate(path: Path) -> tuple[float, float]:
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        assert container.duration is not None
        assert rate is not None
        return container.duration / av.time_base, float(rate)


def make_clip(path: Path, kind: str, number: int, seconds: int) -> Path:
    rng = np.random.default_rng([number, *kind.encode()])
    write(path, KINDS[kind](rng, seconds * FPS), FPS, "libx264", {"crf": "20", "preset": "veryfast"})
    return path


def make_clips(folder: Path, seconds: int, videos: Path | None, pool: Executor) -> list[Path]:
    """Two clips of each kind, and those given."""
    named = [(folder / f"{kind} {number}.mkv", kind, number, seconds) for kind in KINDS for number in range(2)]
    clips = list(pool.map(make_clip, *zip(*named, strict=True)))
    given = sorted(path for path in videos.iterdir() if path.suffix in (".mp4", ".mkv", ".webm")) if videos else []
    return clips + [path for path in given if length_and_rate(path)[0] >= MIN_CLIP_S]


def fingerprints_of(clip: Path, folder: Path) -> dict[str, Fingerprint]:
    """Of the clip, and of all that is made from it."""
    found = {clip.stem: fingerprint(clip)}
    duration_s, fps = length_and_rate(clip)
    path = folder / f"{clip.stem}, changed.mkv"
    for name, change in CHANGES.items():
        pictures = changed(clip, change, change.fps or fps, duration_s)
        write(path, pictures, change.fps or fps, change.codec, change.options)
        found[f"{clip.stem}: {name}"] = fingerprint(path)
    return found


def recognise(clips: list[Path], folder: Path, pool: Executor) -> dict[str, float]:
    """Print what is found among the clips and all that was made from them; precision and recall."""
    everything: dict[str, Fingerprint] = {}
    for found_of in pool.map(fingerprints_of, clips, [folder] * len(clips)):
        everything |= found_of
    original = {clip.stem: everything[clip.stem] for clip in clips}
    made = {video: shown for video, shown in everything.items() if video not in original}
    copies = find_copies(made, original)
    found = {copy.video for copy in copies if copy.video.split(": ")[0] == copy.of}
    moving = [clip.stem for clip in clips if STATIC not in clip.stem]
    print(f"  {'found of':42}")
    for name in CHANGES:
        missed = [clip for clip in moving if f"{clip}: {name}" not in found]
        count = f"{len(moving) - len(missed)}/{len(moving)}"
        print(f"  {name:36} {count:>5}  {f'not {missed}' if missed else ''}")
    still = sum(STATIC in video for video in found)
    count = f"{still}/{(len(clips) - len(moving)) * len(CHANGES)}"
    print(f"  {'static clips, all changes':36} {count:>5}  which are not to be found")
    right = len(found) - still
    pairs: Counter[bool] = Counter()
    for copy in find_copies(everything):
        is_right = copy.video.split(": ")[0] == copy.of.split(": ")[0]
        pairs[is_right] += 1
        if not is_right:
            print(f"  wrong: {copy}")
    print(f"  pairs found among all {len(everything)}: {pairs[True]} right, {pairs[False]} wrong", flush=True)
    return {
        "precision": round(pairs[True] / max(1, pairs.total()), 4),
        "wrong_pairs": pairs[False],
        "recall": round(right / (len(moving) * len(CHANGES)), 4),
        "copies_made": len(moving) * len(CHANGES),
    }


def flipped(rng: np.random.Generator, hashes: np.ndarray, share: float) -> np.ndarray:
    """With this share of the bits changed."""
    return hashes ^ np.packbits(rng.random((len(hashes), 64)) < share, axis=1).view(np.uint64)[:, 0]


def made_up(rng: np.random.Generator, stock: np.ndarray) -> Fingerprint:
    """5 minutes: shots of 2 to 12 s, each a picture that drifts; one in twenty of them from the stock of pictures."""
    num_samples = 600
    lengths = rng.integers(4, 24, num_samples // 4)
    pictures = rng.integers(0, 2**64, len(lengths), np.uint64)
    common = rng.random(len(lengths)) < 0.05
    pictures[common] = rng.choice(stock, common.sum())
    shown = np.repeat(pictures, lengths)[:num_samples]
    drift = np.where(np.repeat(common, lengths)[:num_samples], 0, flipped(rng, np.zeros(num_samples, np.uint64), 0.02))
    times_s = np.arange(num_samples, dtype=np.float32) * np.float32(SAMPLE_STEP_S)
    return Fingerprint(times_s, shown ^ drift.astype(np.uint64), np.ones(num_samples, bool))


def measure_cost(num_videos: int) -> dict[str, float]:
    """Seconds to find the copies among so many videos, one in ten a noisy cut of an earlier one; and those found."""
    rng = np.random.default_rng(0)
    stock = rng.integers(0, 2**64, 50, np.uint64)
    videos: dict[str, Fingerprint] = {}
    true = {}
    for number in range(num_videos):
        if number % 10:
            videos[f"{number}"] = made_up(rng, stock)
            continue
        whole = videos.get(f"{number - 7}") or made_up(rng, stock)
        part = slice(int(rng.integers(0, 200)), int(rng.integers(450, 600)))
        times_s = whole.times_s[part] - whole.times_s[part][0]
        videos[f"{number}"] = Fingerprint(times_s, flipped(rng, whole.hashes[part], 0.05), whole.informative[part])
        if number:
            true[f"{number}"] = f"{number - 7}"
    began = time.perf_counter()
    pairs = {copy.video: copy.of for copy in find_copies(videos)}
    seconds = time.perf_counter() - began
    right = sum(true.get(video) == of for video, of in pairs.items())
    return {
        "seconds": round(seconds, 2),
        "seconds_per_video": round(seconds / num_videos, 5),
        "found": right,
        "of": len(true),
        "wrong": len(pairs) - right,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short clips and few videos")
    parser.add_argument("--seconds", type=int, default=120, help="length of the clips")
    parser.add_argument("--videos", type=Path, help="a folder of clips to add")
    args = parser.parse_args()
    seconds = 20 if args.quick else args.seconds
    with tempfile.TemporaryDirectory() as made, ProcessPoolExecutor() as pool:
        folder = Path(made)
        clips = make_clips(folder, seconds, args.videos, pool)
        print(f"{len(clips)} clips, most of {seconds} s, in {len(CHANGES)} ways each", flush=True)
        results: dict[str, object] = dict(recognise(clips, folder, pool))
    print("videos of 5 minutes   seconds   a video      copies found   wrong")
    for num_videos in (100, 500, 1000) if args.quick else (100, 500, 2000, 5000):
        cost = measure_cost(num_videos)
        results[f"{num_videos} videos"] = cost
        found = f"{cost['found']}/{cost['of']}"
        each = f"{1000 * cost['seconds_per_video']:.1f} ms"
        print(f"{num_videos:19} {cost['seconds']:9.2f} {each:>11} {found:>17} {cost['wrong']:7}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
