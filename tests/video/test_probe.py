"""Real files, sound and damaged, go through a real child process; real kills and a real hang meet it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from numbered_video import H264, OPEN_GOP, every, write_numbered, write_sound

from tpo.demo.world import FPS, SIZE_PX, plan_events, write_video
from tpo.params import ProbeParams
from tpo.records import Reason, Rejection, Video
from tpo.video.measure import file_sha256
from tpo.video.probe import Prober


@pytest.fixture(scope="module")
def prober(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prober]:
    with Prober(tmp_path_factory.mktemp("frames")) as prober:
        yield prober


def sound_video(prober: Prober, path: Path) -> Video:
    video = prober.probe(path.parent, path)
    assert isinstance(video, Video), video
    return video


def set_aside(prober: Prober, root: Path, name: str) -> Rejection:
    found = prober.probe(root, root / name)
    assert isinstance(found, Rejection), found
    assert (found.stage, found.item) == ("ingest", name)
    assert found.detail
    assert str(root) not in found.detail
    assert str(root.parent) not in found.detail
    found.model_validate_json(found.model_dump_json())  # what cannot be written down stops the stage later
    return found


def child_pid(prober: Prober) -> int:
    (child,) = prober._free
    return child.pid


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_demo_video_is_measured(prober: Prober, tmp_path: Path) -> None:
    events = plan_events(np.random.default_rng(0), 3)
    write_video(tmp_path / "clip.mp4", events, phase=0.0)
    video = sound_video(prober, tmp_path / "clip.mp4")
    assert video.model_dump() == {
        "id": file_sha256(tmp_path / "clip.mp4"), "path": "clip.mp4", "size_bytes": video.size_bytes,
        "duration_s": events[-1].end_s, "fps": FPS, "num_frames": round(events[-1].end_s * FPS),
        "width": SIZE_PX, "height": SIZE_PX, "rotation_deg": 0, "codec": "h264", "is_vfr": False, "has_audio": False,
        "last_frame_s": events[-1].end_s - 1 / FPS, "longest_frame_s": 1 / FPS,
        "num_restarts": video.num_restarts, "brightness": video.brightness, "change": video.change,
    }  # fmt: skip
    assert video.size_bytes == (tmp_path / "clip.mp4").stat().st_size


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "h264", ("libx264", OPEN_GOP)),
        ("a.mkv", "hevc", ("libx265", {"x265-params": "log-level=none"})),
        ("a.webm", "vp9", ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"})),
        ("b.mp4", "av1", ("libsvtav1", {"preset": "12", "svtav1-params": "lp=1"})),
    ],
)
def test_every_codec_has_its_frames_counted_and_timed(
    prober: Prober, tmp_path: Path, name: str, codec: str, options: tuple[str, dict[str, str]]
) -> None:
    write_numbered(tmp_path / name, every(0.1, 57), *options)
    video = sound_video(prober, tmp_path / name)
    assert (video.codec, video.num_frames, video.duration_s, video.fps) == (codec, 57, 5.7, 10)
    assert not video.is_vfr


def test_frames_are_counted_and_not_believed_from_the_header(prober: Prober, tmp_path: Path) -> None:
    write_numbered(tmp_path / "whole.mkv", every(0.1, 200))
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "part.mkv").write_bytes(whole[: len(whole) * 6 // 10])  # its header still says 20 s
    part = sound_video(prober, tmp_path / "part.mkv")
    assert 90 < part.num_frames < 130
    assert part.duration_s == pytest.approx(part.num_frames / 10, abs=0.5)


def test_a_variable_frame_rate_is_noticed_and_averaged(prober: Prober, tmp_path: Path) -> None:
    times_s = [0, 0.1, 0.2, 0.9, 1.0, 2.0, 2.1, 3.9]
    write_numbered(tmp_path / "a.mkv", times_s)
    video = sound_video(prober, tmp_path / "a.mkv")
    assert video.is_vfr
    assert video.num_frames == 8
    assert 3.9 < video.duration_s <= 6
    assert video.fps == pytest.approx(8 / video.duration_s, abs=1e-3)
    assert (video.last_frame_s, video.longest_frame_s) == (3.9, 1.8)


def test_a_video_that_starts_late_is_as_long_as_what_it_shows(prober: Prober, tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mkv", [30 + time_s for time_s in every(0.1, 20)])
    assert sound_video(prober, tmp_path / "a.mkv").duration_s == 2


def test_a_single_frame_is_a_video_of_one_frames_length(prober: Prober, tmp_path: Path) -> None:
    write_numbered(tmp_path / "one.mp4", [0.0])
    video = sound_video(prober, tmp_path / "one.mp4")
    assert (video.num_frames, video.duration_s, video.is_vfr) == (1, 0.1, False)


@pytest.mark.parametrize(
    "name",
    ["with  spaces.mp4", 'quo\'te "x".mp4', "new\nline.mp4", "-v.mp4", "file:a.mp4", "%03d.mp4", "猫;$(id).mp4"],
)
def test_an_odd_name_is_a_name_like_any_other(prober: Prober, tmp_path: Path, name: str) -> None:
    write_numbered(tmp_path / "plain.mp4", every(0.1, 5))
    (tmp_path / "plain.mp4").rename(tmp_path / name)
    assert sound_video(prober, tmp_path / name).path == name


def test_a_name_that_is_not_utf_8_is_set_aside_readably(prober: Prober, tmp_path: Path) -> None:
    write_numbered(tmp_path / "plain.mp4", every(0.1, 5))
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    (tmp_path / "plain.mp4").rename(path)
    found = prober.probe(tmp_path, path)
    assert isinstance(found, Rejection)
    assert (found.item, found.reason) == ("caf\\xe9.mp4", Reason.UNREADABLE)
    assert "UTF-8" in found.model_dump_json()


def test_each_kind_of_damage_is_set_aside_for_its_reason(prober: Prober, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    write_numbered(root / "whole.mp4", every(0.1, 200))
    whole = (root / "whole.mp4").read_bytes()
    (root / "truncated.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (root / "hole.mp4").write_bytes(whole[:3000] + bytes(300) + whole[3300:])
    (root / "text.mp4").write_text("this is not a video\n" * 50)
    (root / "empty.mp4").touch()
    write_sound(root / "sound.mp4")
    write_numbered(tmp_path / "outside.mp4", every(0.1, 5))
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "broken link.mp4").symlink_to(root / "nothing.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    os.mkfifo(root / "pipe.mp4")
    (root / "more").symlink_to(root)
    expected = {
        "truncated.mp4": (Reason.UNREADABLE, "Invalid data found"),
        "hole.mp4": (Reason.UNREADABLE, "after "),
        "text.mp4": (Reason.UNREADABLE, "Invalid data found"),
        "empty.mp4": (Reason.EMPTY_FILE, "0 bytes"),
        "sound.mp4": (Reason.NO_VIDEO_STREAM, "no video stream"),
        "link.mp4": (Reason.OUTSIDE_FOLDER, "a link out of the videos folder"),
        "broken link.mp4": (Reason.UNREADABLE, "not a regular file"),
        "loop.mp4": (Reason.UNREADABLE, "not a regular file"),
        "pipe.mp4": (Reason.UNREADABLE, "not a regular file"),
        "more": (Reason.UNREADABLE, "a link to a folder"),
        "gone.mp4": (Reason.UNREADABLE, "not a regular file"),
    }
    for name, (reason, words) in expected.items():
        first, second = (set_aside(prober, root, name) for _ in range(2))
        assert first == second, "the same file must give the same record"
        assert (name, first.reason) == (name, reason)
        assert words in first.detail
    assert sound_video(prober, root / "whole.mp4").num_frames == 200  # the same child is well


def test_timestamps_out_of_order_are_a_reason_and_not_a_guess(prober: Prober, tmp_path: Path) -> None:
    # An AVI has no presentation times, so with B-frames nobody knows when a frame is on display.
    write_numbered(tmp_path / "a.avi", every(0.1, 50), time_base=Fraction(1, 10))
    found = set_aside(prober, tmp_path, "a.avi")
    assert found.detail == "frame 3 is timed at 0.200 s, not after the one before it; encode the file again"


def test_a_playlist_is_not_taken_for_the_video_that_it_names(prober: Prober, tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 50))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\na.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    for name in ("list.m3u8", "list.mp4"):
        found = set_aside(prober, tmp_path, name)
        assert (found.reason, found.detail[:10]) == (Reason.UNREADABLE, "a playlist")


def test_a_link_inside_the_folder_is_followed(prober: Prober, tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    assert sound_video(prober, tmp_path / "b.mp4").id == sound_video(prober, tmp_path / "a.mp4").id


def test_another_tpo_in_the_folder_is_not_the_one_that_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tpo").mkdir()
    (tmp_path / "tpo/__init__.py").write_text("raise SystemExit('the wrong one')")
    write_numbered(tmp_path / "clip.mp4", every(0.1, 5))
    monkeypatch.chdir(tmp_path)
    with Prober(tmp_path / "frames") as prober:
        sound_video(prober, tmp_path / "clip.mp4")


def test_one_child_serves_many_files(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    with Prober(tmp_path / "frames") as prober:
        sound_video(prober, tmp_path / "a.mp4")
        pid = child_pid(prober)
        sound_video(prober, tmp_path / "a.mp4")
        assert child_pid(prober) == pid
    assert not is_running(pid)


def test_a_decoder_that_hangs_is_killed_and_the_next_file_is_measured(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    with Prober(tmp_path / "frames", ProbeParams(silence_s=5)) as prober:
        sound_video(prober, tmp_path / "a.mp4")
        hung = child_pid(prober)
        os.kill(hung, signal.SIGSTOP)
        began = time.monotonic()
        found = set_aside(prober, tmp_path, "a.mp4")
        assert found.reason is Reason.PROBE_TIMEOUT
        assert found.detail == "the decoder gave nothing for 5 s and was killed"
        assert 4.9 < time.monotonic() - began < 30
        assert not is_running(hung)
        sound_video(prober, tmp_path / "a.mp4")


def test_decoding_without_an_end_is_stopped(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    with Prober(tmp_path / "frames", ProbeParams(timeout_s=0.001)) as prober:
        found = set_aside(prober, tmp_path, "a.mp4")
    assert (found.reason, found.detail) == (Reason.PROBE_TIMEOUT, "decoding took longer than 0.001 s and was stopped")


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes seconds to measure."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_numbered(path, every(0.1, 20_000), options={"preset": "ultrafast", **H264})
    write_numbered(path.with_name("short.mp4"), every(0.1, 5))
    return path


def test_a_decoder_that_takes_longer_than_a_silence_but_is_heard_of_is_left_alone(
    long_video: Path, tmp_path: Path
) -> None:
    with Prober(tmp_path / "frames", ProbeParams(silence_s=20)) as prober, ThreadPoolExecutor(1) as pool:
        sound_video(prober, long_video.with_name("short.mp4"))  # the child has started
        (child,) = prober._free
        child._limits = ProbeParams(silence_s=4)
        began = time.monotonic()
        found = pool.submit(sound_video, prober, long_video)
        for _ in range(2):
            time.sleep(0.2)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(2.2)
            os.kill(child.pid, signal.SIGCONT)
        assert found.result().num_frames == 20_000
        assert time.monotonic() - began > 4.2


def test_a_file_that_changes_while_it_is_read_is_set_aside(long_video: Path, tmp_path: Path) -> None:
    with Prober(tmp_path / "frames") as prober, ThreadPoolExecutor(1) as pool:
        sound_video(prober, long_video.with_name("short.mp4"))
        (child,) = prober._free
        process = psutil.Process(child.pid)
        idle_s = sum(process.cpu_times()[:2])
        found = pool.submit(set_aside, prober, long_video.parent, "long.mp4")
        while sum(process.cpu_times()[:2]) < idle_s + 0.2:  # it is in the middle of the file
            time.sleep(0.01)
        os.utime(long_video, (0, 0))
        assert (found.result().reason, found.result().detail) == (
            Reason.VIDEO_CHANGED, "the file changed while it was read; run again",
        )  # fmt: skip


def test_the_kernel_ends_a_child_that_hangs_without_a_parent() -> None:
    program = "import time; from tpo.video.probe import _Heart; _Heart(0.1).beat(); time.sleep(60)"
    child = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert child.returncode == -signal.SIGALRM


def test_pictures_too_large_for_the_memory_limit_are_set_aside_and_the_next_file_is_measured(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "huge.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16_384, 8_192, "yuvj420p"
        frame = av.VideoFrame(16_384, 8_192, "yuvj420p")
        frame.pts = 0
        container.mux([*stream.encode(frame), *stream.encode()])
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    with Prober(tmp_path / "frames", ProbeParams(max_memory_mb=256)) as prober:
        found = set_aside(prober, tmp_path, "huge.mkv")
        assert (found.reason, found.detail) == (
            Reason.PROBE_MEMORY, "decoding takes more than ingest.probe.max_memory_mb",
        )  # fmt: skip
        sound_video(prober, tmp_path / "a.mp4")


def test_threads_share_a_prober_and_each_gets_a_child(tmp_path: Path) -> None:
    for number in range(6):
        write_numbered(tmp_path / f"{number}.mp4", every(0.1, 5 + number))
    with Prober(tmp_path / "frames") as prober, ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda number: sound_video(prober, tmp_path / f"{number}.mp4"), range(6)))
        assert [video.num_frames for video in found] == [5, 6, 7, 8, 9, 10]
        children = [child.pid for child in prober._free]
        assert 1 <= len(children) <= 2
    assert not any(is_running(pid) for pid in children)


def test_a_decoder_that_crashes_on_a_file_is_reported_and_the_next_file_is_measured(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    with Prober(tmp_path / "frames") as prober:
        sound_video(prober, tmp_path / "a.mp4")
        os.kill(child_pid(prober), signal.SIGSTOP)  # so that it dies with the file in hand
        killer = threading.Timer(0.3, os.kill, (child_pid(prober), signal.SIGKILL))
        killer.start()
        found = set_aside(prober, tmp_path, "a.mp4")
        killer.join()
        assert (found.reason, found.detail) == (Reason.PROBE_CRASH, "the decoder crashed (exit code -9)")
        sound_video(prober, tmp_path / "a.mp4")


def test_a_child_that_dies_between_two_files_never_stops_the_run(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    with Prober(tmp_path / "frames") as prober:
        for pause_s in (0.0, 0.0, 0.2):  # without a pause the prober may or may not see in time that it is gone
            sound_video(prober, tmp_path / "a.mp4")
            os.kill(child_pid(prober), signal.SIGKILL)
            time.sleep(pause_s)
            found = prober.probe(tmp_path, tmp_path / "a.mp4")
            assert isinstance(found, Video) or found.reason is Reason.PROBE_CRASH
            sound_video(prober, tmp_path / "a.mp4")


def test_no_child_outlives_a_prober_that_is_left_by_an_error(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    prober = Prober(tmp_path / "frames")

    def work() -> int:
        with prober:
            sound_video(prober, tmp_path / "a.mp4")
            os.environ["TPO_TEST_PID"] = str(child_pid(prober))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not is_running(int(os.environ.pop("TPO_TEST_PID")))


def test_no_child_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 5))
    program = (
        "import sys, time; from pathlib import Path; from tpo.video.probe import Prober\n"
        f"folder = Path({str(tmp_path)!r}); prober = Prober(folder); prober.probe(folder, folder / 'a.mp4')\n"
        "print(prober._free[0].pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)
