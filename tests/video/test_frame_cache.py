"""The cache, filled and emptied by real decodes, by several processes at once, and by processes that are killed."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from numbered_video import every, number_on, write_numbered

from tpo.records import Video, View, ViewKind
from tpo.video.decode import DecodeError, VideoFolder, decode
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober

NUM_BYTES = 64 * 64 * 3


def view(video_id: str, *timestamps_s: float) -> View:
    return View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=timestamps_s)


@pytest.fixture
def video(tmp_path: Path) -> Video:
    write_numbered(tmp_path / "a.mp4", every(0.1, 100))
    with Prober(tmp_path / "index") as prober:
        found = prober.probe(tmp_path, tmp_path / "a.mp4")
    assert isinstance(found, Video)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> VideoFolder:
    return VideoFolder(tmp_path, tmp_path / "index", FrameCache(tmp_path / "cache", 100 * NUM_BYTES))


def cached_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*/*"))


def frames(*numbers: int) -> list[np.ndarray]:
    return [np.full((8, 8, 3), number, np.uint8) for number in numbers]


def test_frames_come_back_exactly_and_without_the_decoder(folder: VideoFolder, video: Video) -> None:
    asked = view(video.id, 9.0, 0.0, 4.05, 4.0, 9.9)
    first = folder.frames("a.mp4", asked)
    assert [number_on(pixels) for pixels in first.pixels] == [90, 0, 40, 40, 99]
    (folder.root / "a.mp4").write_bytes(bytes((folder.root / "a.mp4").stat().st_size))
    os.utime(folder.root / "a.mp4", ns=(0, _measured_ns(folder, video)))
    second = folder.frames("a.mp4", asked)  # of the file nothing is left that could be decoded
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.timestamps_s, second.timestamps_s)
    with pytest.raises(DecodeError):
        folder.frames("a.mp4", view(video.id, 1.0))


def _measured_ns(folder: VideoFolder, video: Video) -> int:
    (file,) = folder.index_dir.glob(f"{video.id}.*")
    with np.load(file) as saved:
        return int(saved["measured"][1])


def test_many_views_are_prepared_in_one_pass(folder: VideoFolder, video: Video, tmp_path: Path) -> None:
    views = [view(video.id, *(start / 10 + step for step in range(5))) for start in range(40)]
    folder.prepare("a.mp4", views)
    (kept,) = (tmp_path / "cache" / video.id).iterdir()  # one file: one pass
    prepared = kept.stat().st_mtime_ns
    for one in views:
        assert np.array_equal(
            folder.frames("a.mp4", one).pixels, decode(tmp_path / "a.mp4", one, folder.index_dir).pixels
        )
    assert list((tmp_path / "cache" / video.id).iterdir()) == [kept], "nothing was decoded again"
    assert kept.stat().st_mtime_ns > prepared, "it counts as used"
    folder.prepare("a.mp4", views)
    assert list((tmp_path / "cache" / video.id).iterdir()) == [kept], "what is there is not decoded again"


def test_only_frames_that_are_missing_are_decoded(folder: VideoFolder, video: Video, tmp_path: Path) -> None:
    folder.frames("a.mp4", view(video.id, 1.0, 2.0, 3.0))
    folder.frames("a.mp4", view(video.id, 2.0, 3.0, 4.0))
    sizes = sorted(file.stat().st_size // NUM_BYTES for file in (tmp_path / "cache" / video.id).iterdir())
    assert sizes == [1, 3]


def test_the_cache_stays_below_its_bound_and_what_was_used_last_stays(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, max_bytes=1900)
    for name in ("a", "b", "c"):
        cache.write(name, [1, 2], frames(1, 2))  # 700 bytes each, with their timestamps
        if name != "a":
            time.sleep(0.01)
            assert cache.read("a", [1]).keys() == {1}
            time.sleep(0.01)
    assert cached_bytes(tmp_path) <= 1900
    assert cache.timestamps("a") == {1, 2}
    assert cache.timestamps("b") == set()
    assert cache.timestamps("c") == {1, 2}


def test_a_video_that_is_larger_than_the_cache_is_decoded_all_the_same(video: Video, tmp_path: Path) -> None:
    folder = VideoFolder(tmp_path, tmp_path / "index", FrameCache(tmp_path / "cache", 3 * NUM_BYTES))
    folder.prepare("a.mp4", [view(video.id, *every(0.1, 100))])
    found = folder.frames("a.mp4", view(video.id, 0.0, 3.3, 7.7, 9.9))
    assert [number_on(pixels) for pixels in found.pixels] == [0, 33, 77, 99]
    assert cached_bytes(tmp_path / "cache") <= 3 * NUM_BYTES


@pytest.mark.parametrize("keep", [0, 10, 150, 300, 600])
def test_a_file_that_is_cut_short_is_a_frame_to_be_decoded_again(tmp_path: Path, keep: int) -> None:
    cache = FrameCache(tmp_path, max_bytes=10**6)
    cache.write("v", [1, 2], frames(1, 2))
    (file,) = (tmp_path / "v").iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    assert cache.read("v", [1, 2]) == {}
    assert cache.timestamps("v") == set()
    cache.write("v", [1, 2], frames(1, 2))
    assert cache.read("v", [2])[2].max() == 2


def test_a_full_or_forbidden_disk_is_a_warning_and_no_failure(
    folder: VideoFolder, video: Video, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="frames are not kept in"):
        found = folder.frames("a.mp4", view(video.id, 0.0, 3.3))
    assert [number_on(pixels) for pixels in found.pixels] == [0, 33]


def _hammer(root: Path, video_id: str, seed: int, rounds: int) -> None:
    folder = VideoFolder(root, root / "index", FrameCache(root / "cache", 30 * NUM_BYTES))
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        numbers = rng.integers(0, 100, 6).tolist()
        found = folder.frames("a.mp4", view(video_id, *(number / 10 for number in numbers)))
        assert [number_on(pixels) for pixels in found.pixels] == numbers


def test_readers_and_writers_at_once_get_the_right_frames_while_others_are_killed(video: Video, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_hammer, args=(tmp_path, video.id, seed, 60)) for seed in range(2)]
    victims = [spawn.Process(target=_hammer, args=(tmp_path, video.id, seed, 10**6)) for seed in (7, 8)]
    for process in workers + victims:
        process.start()
    ends_at = time.monotonic() + 60
    while not list((tmp_path / "cache").glob("*/*.frames")) and time.monotonic() < ends_at:
        time.sleep(0.01)
    for victim in victims:
        time.sleep(0.3)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
    for process in workers + victims:
        process.join()
    assert [process.exitcode for process in workers] == [0, 0]
    assert cached_bytes(tmp_path / "cache") <= 40 * NUM_BYTES  # a file that a victim had in hand is not counted yet
    _hammer(tmp_path, video.id, 9, 20)
    assert cached_bytes(tmp_path / "cache") <= 30 * NUM_BYTES
    shutil.rmtree(tmp_path / "cache")
    _hammer(tmp_path, video.id, 10, 2)
