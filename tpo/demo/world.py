"""The demo world: long videos of coloured shapes, one event after the other, written as real H.264 files.

A video is a sequence of events ("a red star" for 6 to 14 seconds, then "a blue moon", …). No shape occurs twice in
one video, so every question about order has one answer. It is easy to see (few one-word classes, one object a frame)
and hard to search (ten and more events, three of them within any one segment).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "red": (222, 48, 48),
    "green": (56, 176, 72),
    "blue": (56, 92, 232),
    "yellow": (244, 208, 48),
    "purple": (160, 72, 200),
    "cyan": (64, 208, 216),
    "orange": (244, 136, 32),
    "white": (240, 240, 240),
}
BACKGROUND = (24, 26, 32)
FPS = 2
SIZE_PX = 64


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    radii = [1.0, inner] * points
    return [
        (0.5 + 0.5 * r * math.sin(math.pi * i / points), 0.5 - 0.5 * r * math.cos(math.pi * i / points))
        for i, r in enumerate(radii)
    ]


# Each shape is a list of drawing steps on the unit square: (ImageDraw method, coordinates, 1 = paint, 0 = erase).
SHAPES: dict[str, list[tuple[str, list[tuple[float, float]], int]]] = {
    "circle": [("ellipse", [(0.05, 0.05), (0.95, 0.95)], 1)],
    "ring": [("ellipse", [(0.0, 0.0), (1.0, 1.0)], 1), ("ellipse", [(0.28, 0.28), (0.72, 0.72)], 0)],
    "moon": [("ellipse", [(0.0, 0.0), (1.0, 1.0)], 1), ("ellipse", [(0.35, -0.1), (1.25, 0.8)], 0)],
    "square": [("rectangle", [(0.1, 0.1), (0.9, 0.9)], 1)],
    "window": [
        ("rectangle", [(0.0, 0.0), (1.0, 1.0)], 1),
        *[("rectangle", [(x, y), (x + 0.28, y + 0.28)], 0) for x in (0.14, 0.58) for y in (0.14, 0.58)],
    ],
    "triangle": [("polygon", [(0.5, 0.02), (1.0, 0.95), (0.0, 0.95)], 1)],
    "funnel": [("polygon", [(0.0, 0.05), (1.0, 0.05), (0.5, 0.98)], 1)],
    "diamond": [("polygon", [(0.5, 0.0), (0.9, 0.5), (0.5, 1.0), (0.1, 0.5)], 1)],
    "star": [("polygon", _star(5, 0.4), 1)],
    "plus": [("rectangle", [(0.34, 0.0), (0.66, 1.0)], 1), ("rectangle", [(0.0, 0.34), (1.0, 0.66)], 1)],
    "arrow": [
        ("polygon", [(0.5, 0.0), (1.0, 0.5), (0.0, 0.5)], 1),
        ("rectangle", [(0.36, 0.5), (0.64, 1.0)], 1),
    ],
    "heart": [
        ("ellipse", [(0.0, 0.05), (0.53, 0.58)], 1),
        ("ellipse", [(0.47, 0.05), (1.0, 0.58)], 1),
        ("polygon", [(0.04, 0.44), (0.96, 0.44), (0.5, 1.0)], 1),
    ],
    "hourglass": [("polygon", [(0.05, 0.0), (0.95, 0.0), (0.05, 1.0), (0.95, 1.0)], 1)],
    "ladder": [("rectangle", [(0.0, y), (1.0, y + 0.16)], 1) for y in (0.0, 0.28, 0.56, 0.84)],
    "fence": [("rectangle", [(x, 0.0), (x + 0.16, 1.0)], 1) for x in (0.0, 0.28, 0.56, 0.84)],
    "stairs": [
        ("polygon", [(0, 1), (0, 0.7), (0.33, 0.7), (0.33, 0.4), (0.66, 0.4), (0.66, 0.05), (1, 0.05), (1, 1)], 1)
    ],
}


@dataclass(frozen=True)
class Event:
    """One thing that is shown from `start_s` (inclusive) to `end_s` (exclusive)."""

    start_s: float
    end_s: float
    color: str
    shape: str

    @property
    def caption(self) -> str:
        article = "an" if self.color[0] in "aeiou" else "a"
        return f"{article} {self.color} {self.shape}"


def plan_events(rng: np.random.Generator, num_events: int, of_shapes: Sequence[str] = tuple(SHAPES)) -> list[Event]:
    """Draw a video's events: distinct shapes, any colours, 6 to 14 s each in half seconds, without gaps."""
    shapes = rng.choice(list(of_shapes), num_events, replace=False)
    colors = rng.choice(list(COLORS), num_events)
    ends = np.cumsum(rng.integers(12, 29, num_events) / FPS)
    starts = np.concatenate([[0.0], ends[:-1]])
    return [
        Event(float(start), float(end), str(color), str(shape))
        for start, end, color, shape in zip(starts, ends, colors, shapes, strict=True)
    ]


@lru_cache(maxsize=len(SHAPES))
def shape_mask(shape: str, side_px: int) -> np.ndarray:
    """Coverage of a shape, float32 [side, side] in 0..1, drawn at four times the size and scaled down."""
    big = side_px * 4
    image = Image.new("L", (big, big), 0)
    draw = ImageDraw.Draw(image)
    for method, corners, paint in SHAPES[shape]:
        getattr(draw, method)([(x * big, y * big) for x, y in corners], fill=255 * paint)
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BOX), np.float32) / 255


def render_frame(event: Event, time_s: float, phase: float) -> np.ndarray:
    """The picture at `time_s`: uint8 [SIZE_PX, SIZE_PX, 3]. The shape drifts on a small loop, `phase` sets where."""
    side = SIZE_PX * 5 // 8
    reach = (SIZE_PX - side) / 2
    angle = phase + time_s * 0.9
    left = round(reach * (1 + 0.8 * math.cos(angle)))
    top = round(reach * (1 + 0.8 * math.sin(angle)))
    frame = np.empty((SIZE_PX, SIZE_PX, 3), np.float32)
    frame[:] = BACKGROUND
    alpha = shape_mask(event.shape, side)[..., None]
    patch = frame[top : top + side, left : left + side]
    patch += alpha * (np.asarray(COLORS[event.color], np.float32) - patch)
    return frame.astype(np.uint8)


def frames(events: Sequence[Event], phase: float) -> Iterator[np.ndarray]:
    """All pictures of a video in order, at `FPS`."""
    for event in events:
        for tick in range(round(event.start_s * FPS), round(event.end_s * FPS)):
            yield render_frame(event, tick / FPS, phase)


def write_video(path: Path, events: Sequence[Event], phase: float) -> None:
    """Encode `events` as an H.264 MP4 (4:2:0, a keyframe every 20 s)."""
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "26", "g": "40", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width = stream.height = SIZE_PX
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # this and cpu-independent: the same bytes every time, on any machine
        for pixels in frames(events, phase):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
