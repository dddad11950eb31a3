"""What models have said, by everything that it depends on: a call that was paid for once is not made again.

A SQLite file, because several threads write it while a stage runs, and a reply must be on disk before it is used.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Lock

_SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID"


class ReplyCache:
    """Texts by the content id of what they answer. Threads may share one, and so may processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._connection = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # a reply is on disk when `put` returns
        self._connection.execute(_SCHEMA)

    def get(self, key: str) -> str | None:
        """The reply to what `key` stands for, or none."""
        with self._lock, closing(self._connection.execute("SELECT reply FROM replies WHERE key = ?", [key])) as found:
            row = found.fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, reply: str) -> None:
        """Keep a reply; returns when it is on disk."""
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", [key, reply])

    def put_all(self, replies: Mapping[str, str]) -> None:
        """Keep several replies, all of them or, after a kill, none; returns when they are on disk."""
        with self._lock, self._connection:  # commits, or takes it all back
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", replies.items())

    def close(self) -> None:
        self._connection.close()
