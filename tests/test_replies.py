"""What models said is kept by what they were asked, over restarts, and by whoever writes it."""

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tpo.replies import ReplyCache


def test_a_reply_is_there_for_whoever_asks_later(tmp_path: Path) -> None:
    first = ReplyCache(tmp_path / "deep" / "replies.sqlite")
    assert first.get("a") is None
    first.put("a", "ja, „so“\n\0 🙂")
    second = ReplyCache(tmp_path / "deep" / "replies.sqlite")
    assert first.get("a") == second.get("a") == "ja, „so“\n\0 🙂"
    second.put("a", "anders")
    assert first.get("a") == "anders"


def test_threads_and_processes_may_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    cache = ReplyCache(file)
    code = (
        "import sys; from pathlib import Path; from tpo.replies import ReplyCache;"
        "cache = ReplyCache(Path(sys.argv[1]));"
        "[cache.put(f'process {n}', str(n)) for n in range(100)]"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(file)]) as other:
        threads = [
            threading.Thread(target=lambda t=t: [cache.put(f"{t} {n}", str(n)) for n in range(50)]) for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert other.returncode == 0
    assert all(cache.get(f"{t} {n}") == str(n) for t in range(4) for n in range(50))
    assert all(cache.get(f"process {n}") == str(n) for n in range(100))


def test_several_replies_are_kept_together_or_after_a_kill_in_between_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    code = (
        "import os, signal, sys; from pathlib import Path; from tpo.replies import ReplyCache\n"
        "class Killing(dict):\n"
        "    def items(self):\n"
        "        yield 'a', '1'\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "ReplyCache(Path(sys.argv[1])).put_all(Killing())"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    cache = ReplyCache(file)
    assert cache.get("a") is None
    cache.put_all({"a": "1", "b": "2"})
    assert [cache.get(key) for key in "ab"] == ["1", "2"]


def test_what_could_not_be_written_leaves_nothing_behind_and_nothing_in_the_way(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "replies.sqlite")
    with pytest.raises(sqlite3.IntegrityError):
        cache.put_all({"a": "1", "b": None})  # type: ignore[dict-item]
    assert cache.get("a") is None
    cache.put_all({"c": "3"})
    assert ReplyCache(tmp_path / "replies.sqlite").get("c") == "3"
