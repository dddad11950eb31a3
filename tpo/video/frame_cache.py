"""Decoded frames on disk: lossless, by content, and never more than so many bytes of them.

    cache = FrameCache(Path(".tpo/frame_cache"), max_bytes=10 << 30)
    pixels = cache.read(video_id, pts)              # those that are there
    cache.write(video_id, pts, frames)              # one file for all of them, whole or not at all

A file holds the frames of one video that one pass over it gave. Its name and folder say what pixels depend on: the
video's sha256, the decoder and its version; in it are the frames' timestamps and pixels. The files that were used
longest ago go first. Any number of processes may read, write and be killed: a file that is gone is a frame to be
decoded again, and what a kill left half-written is never read and goes like any other file.
"""

import contextlib
import fcntl
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import av
import numpy as np

from tpo.records import content_id

_DECODER = f"pyav{av.__version__}"
_KEEP = 0.9  # ours: when it is full, a tenth is freed at once, so that it is not full again with the next file

_NOT_THERE = (OSError, ValueError, EOFError)  # a file went while we looked, or a power cut broke it


@dataclass(frozen=True)
class FrameCache:
    """Frames below `folder`, at most `max_bytes` of them."""

    folder: Path
    max_bytes: int

    def read(self, video_id: str, pts: Sequence[int]) -> dict[int, np.ndarray]:
        """Those of the frames with these timestamps that are here, uint8 [h, w, 3] by timestamp, not to be written to.

        They are read from the disk when they are looked at; that their file is deleted meanwhile does not matter.
        """
        missing, found = set(pts), {}
        for file in self._files(video_id):
            with contextlib.suppress(*_NOT_THERE):
                stored, pixels = _open(file)
                wanted = [(row, p) for row, p in enumerate(stored.tolist()) if p in missing]
                if wanted:
                    found.update({p: pixels[row] for row, p in wanted})
                    missing -= found.keys()
                    os.utime(file)
            if not missing:
                break
        return found

    def timestamps(self, video_id: str) -> set[int]:
        """Which frames of a video are here."""
        there: set[int] = set()
        for file in self._files(video_id):
            with contextlib.suppress(*_NOT_THERE):
                there.update(_open(file)[0].tolist())
        return there

    def write(self, video_id: str, pts: Sequence[int], frames: Iterable[np.ndarray]) -> None:
        """Keep frames, which may come one by one from a decoder. If the disk is full there is a warning."""
        if not pts:
            return
        file = self.folder / video_id / f"{_DECODER}-{content_id(list(pts))}.frames"
        try:
            with self._written_at_once(file) as partial:
                _write(partial, pts, frames)
            self._make_room(file.stat().st_size)
        except OSError as error:
            if isinstance(error, av.error.FFmpegError):  # the video's, not the disk's
                raise
            warnings.warn(f"frames are not kept in {self.folder}: {error.strerror}", stacklevel=2)

    def _files(self, video_id: str) -> list[Path]:
        return sorted((self.folder / video_id).glob(f"{_DECODER}-*.frames"))

    @contextmanager
    def _written_at_once(self, file: Path) -> Iterator[IO[bytes]]:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".partial-", delete=False) as partial:
            try:
                yield partial
            except BaseException:
                Path(partial.name).unlink(missing_ok=True)
                raise
        Path(partial.name).replace(file)

    def _make_room(self, num_bytes: int) -> None:
        """Count what was added; when that is too much, count all files and delete those used longest ago."""
        with (self.folder / "bytes").open("a+", encoding="ascii") as counter:
            fcntl.flock(counter, fcntl.LOCK_EX)
            counter.seek(0)
            total = int(counter.read() or 0) + num_bytes
            if total > self.max_bytes:
                total = self._delete_oldest()
            counter.truncate(0)
            counter.write(str(total))

    def _delete_oldest(self) -> int:
        """Bytes that remain."""
        files = []
        for file in self.folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files):
            if total <= self.max_bytes * _KEEP:
                break
            file.unlink(missing_ok=True)
            total -= size
        return total


def _write(file: IO[bytes], pts: Sequence[int], frames: Iterable[np.ndarray]) -> None:
    """Two arrays in NumPy's own format, one behind the other: timestamps int64 [n] and pixels uint8 [n, h, w, 3]."""
    np.save(file, np.array(pts, np.int64))
    for number, pixels in enumerate(frames):
        if number == 0:
            shape = (len(pts), *pixels.shape)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(np.ascontiguousarray(pixels).data)


def _open(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Timestamps, and pixels that are read when they are asked for. Raises ValueError if the file is not whole."""
    with file.open("rb") as opened:
        pts = np.load(opened, allow_pickle=False)
        np.lib.format.read_magic(opened)
        shape, _, _ = np.lib.format.read_array_header_1_0(opened)
        return pts, np.asarray(np.memmap(opened, np.uint8, "r", opened.tell(), shape))
