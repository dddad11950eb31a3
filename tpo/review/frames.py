"""Pictures for the page, made when they are asked for: small JPEGs of moments that a view shows.

frames = FrameStore()
frames.offer(video_id, folder, "a.mp4", views)       # from now on these moments can be asked for, and no others
frames.jpeg(video_id, 3_333, 160)
"""

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image

from tpo.records import View, ViewKind
from tpo.video.decode import DecodeError, VideoFolder

HEIGHTS_PX = (160, 540)  # in a row of frames, and by itself
_QUALITY = 82
_KEPT = 2000  # pictures in memory, some 20 MB of small ones


class NoSuchFrameError(Exception):
    """No view that was offered shows this moment, or the video cannot be decoded any more."""


@dataclass
class _Source:
    folder: VideoFolder
    path: str
    moments_ms: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class FrameStore:
    """Frames of videos that were offered. Threads may share it: each video is decoded by one of them at a time."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._lock = threading.Lock()
        self.jpeg = lru_cache(maxsize=_KEPT)(self._jpeg)

    def offer(self, video_id: str, folder: VideoFolder, path: str, views: Sequence[View]) -> None:
        """Let the moments of these views of a video be asked for."""
        moments_ms = {round(moment * 1000) for view in views for moment in view.timestamps_s}
        with self._lock:
            self._sources.setdefault(video_id, _Source(folder, path)).moments_ms |= moments_ms

    def prepare(self, video_id: str, views: Sequence[View]) -> None:
        """Decode views in one pass over the file, where the frame cache lacks them. A broken file is told by `jpeg`."""
        source = self._sources[video_id]
        with source.lock:
            try:
                source.folder.prepare(source.path, views)
            except DecodeError:
                return

    def _jpeg(self, video_id: str, moment_ms: int, height_px: int) -> bytes:
        """One frame as a JPEG, at most so high and never larger than it is.

        Raises:
            NoSuchFrameError: it was not offered, or cannot be decoded.
        """
        source = self._sources.get(video_id)
        if source is None or moment_ms not in source.moments_ms or height_px not in HEIGHTS_PX:
            raise NoSuchFrameError("no view shows this moment")
        view = View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=(moment_ms / 1000,))
        with source.lock:
            try:
                pixels = source.folder.frames(source.path, view).pixels[0]
            except DecodeError as error:
                raise NoSuchFrameError(str(error)) from error
        return _encoded(pixels, height_px)


def _encoded(pixels: np.ndarray, height_px: int) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((8 * height_px, height_px), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()
