"""The file of reviews while people add to it: every line is on disk before the page says so.

    journal = ReviewJournal(REVIEWS)
    journal.append(review)
    journal.standing()["3f2a…"]["anna"]

Threads may share a journal, and several processes a file: each reads what the others added.
"""

import fcntl
import os
import threading
from pathlib import Path

from tpo.curation.reviews import parse_reviews, standing
from tpo.records import Review, ReviewVerdict
from tpo.store import to_line


class ReviewJournal:
    """What was said so far, in memory and in `path`."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self.reviews: list[Review] = []
        self._standing: dict[str, dict[str, ReviewVerdict]] = {}
        self._read_bytes = 0
        self._inode = 0
        self.refresh()

    def append(self, review: Review) -> None:
        """Write one line, after what anyone else wrote. It is on disk when this returns."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _drop_half_line(file.fileno())
                os.write(file.fileno(), to_line(review).encode())
                os.fsync(file.fileno())
        self.refresh()

    def refresh(self) -> None:
        """Read what was added since, by whomever; all of it if the file is another one.

        Raises:
            UserError: a line is not a review.
        """
        with self._lock:
            if not self.path.is_file():
                self._forget()
                return
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read_bytes:
                    self._forget()
                    self._inode = status.st_ino
                file.seek(self._read_bytes)
                content = file.read()
            added = parse_reviews(content, self.path, len(self.reviews) + 1)
            self.reviews += added
            self._read_bytes += content.rfind(b"\n") + 1
            if added:
                self._standing = standing(self.reviews)

    def standing(self) -> dict[str, dict[str, ReviewVerdict]]:
        """By pair, each reviewer's last verdict."""
        return self._standing

    def has_looked(self, pair_id: str, reviewer: str) -> bool:
        """Whether a reviewer was shown before which answer of a pair is which."""
        return any(review.pair_id == pair_id and review.reviewer == reviewer for review in self.reviews)

    def _forget(self) -> None:
        self.reviews, self._standing = [], {}
        self._read_bytes = self._inode = 0


def _drop_half_line(file: int) -> None:
    """What a crash of the machine left of a line: nobody was told that it is there."""
    size = os.fstat(file).st_size
    tail = os.pread(file, 1 << 16, max(0, size - (1 << 16)))
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(file, size - len(tail) + tail.rfind(b"\n") + 1)
