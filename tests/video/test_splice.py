"""Files made of parts of others, read again by the project's own decoder: which picture is on display at which time."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_video import MILLISECONDS, every, number_on, picture
from PIL import Image

from tpo.records import Video, View, ViewKind
from tpo.video import splice as module
from tpo.video.decode import DecodeError, decode
from tpo.video.measure import load_index
from tpo.video.probe import Prober
from tpo.video.splice import Part, Spliced, cut, splice

UNSTEADY_S = (np.cumsum(np.random.default_rng(0).integers(40, 400, 50)) / 1000).tolist()


def write(path: Path, numbers: Sequence[int], times_s: Sequence[float], size: tuple[int, int] = (64, 64)) -> None:
    """A picture with each number, at each time; `size` is height and width."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"x264-params": "keyint=24:bframes=3"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p" if any(side % 2 for side in size) else "yuv420p"
        stream.codec_context.time_base = MILLISECONDS
        for number, time_s in zip(numbers, times_s, strict=True):
            pixels = np.asarray(Image.fromarray(picture(number)).resize(size[::-1], Image.Resampling.NEAREST))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base, frame.pts = MILLISECONDS, round(time_s * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class World:
    """Videos in one folder, measured."""

    def __init__(self, root: Path, prober: Prober):
        self.root, self.prober = root, prober

    def video(self, name: str, numbers: Sequence[int], times_s: Sequence[float], **more: tuple[int, int]) -> Video:
        write(self.root / name, numbers, times_s, **more)
        return self.probe(self.root / name)

    def probe(self, path: Path) -> Video:
        video = self.prober.probe(self.root, path)
        assert isinstance(video, Video), video
        return video

    def part(self, video: Video, start_s: float = 0.0, end_s: float | None = None) -> Part:
        return Part(self.root / video.path, video, start_s, video.duration_s if end_s is None else end_s)

    def splice(self, *parts: Part, like: Video) -> Spliced:
        return splice(self.root / "spliced", parts, like, self.prober.index_dir)

    def put_in(self, clip: Video, haystack: Video, at_s: float) -> Spliced:
        before = [self.part(haystack, 0, at_s)] if at_s else []
        behind = [self.part(haystack, at_s)] if at_s < haystack.duration_s else []
        return self.splice(*before, self.part(clip), *behind, like=haystack)

    def played(self, path: Path) -> tuple[list[float], list[int], Video]:
        """When each frame is first on display, the number on it, and the facts of the file."""
        video = self.probe(path)
        index = load_index(self.prober.index_dir, path, video.id)
        moments_s = tuple(round(float(t), 3) for t in index.timestamps_s)
        frames = decode(
            path, View(video_id=video.id, kind=ViewKind.DENSE, timestamps_s=moments_s), self.prober.index_dir
        )
        assert len(frames.pixels) == video.num_frames
        small = [np.asarray(Image.fromarray(one).resize((64, 64), Image.Resampling.BOX)) for one in frames.pixels]
        return frames.timestamps_s.tolist(), [number_on(one) for one in small], video


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("videos")
    with Prober(root / ".frames") as prober:
        yield World(root, prober)


@pytest.fixture(scope="module")
def haystack(world: World) -> Video:
    """10 s with the numbers 0 to 99."""
    return world.video("haystack.mp4", range(100), every(0.1, 100))


@pytest.fixture(scope="module")
def clip(world: World) -> Video:
    """2 s with the numbers 200 to 219."""
    return world.video("clip.mp4", range(200, 220), every(0.1, 20))


@pytest.mark.parametrize("at_s", [0.0, 0.1, 3.7, 5.0, 9.9, 10.0])
def test_the_clip_is_where_it_was_put_and_the_haystack_all_around_it(
    world: World, haystack: Video, clip: Video, at_s: float
) -> None:
    spliced = world.put_in(clip, haystack, at_s)
    times_s, numbers, video = world.played(spliced.path)
    before = round(at_s * 10)
    assert numbers == [*range(before), *range(200, 220), *range(before, 100)]
    np.testing.assert_allclose(times_s, every(0.1, 120), atol=2e-4)
    assert video.duration_s == pytest.approx(haystack.duration_s + clip.duration_s, abs=1e-3)
    at = 1 if at_s else 0
    assert spliced.bounds_s[at : at + 2] == pytest.approx((at_s, at_s + 2.0))


def test_a_cut_inside_a_frame_shows_that_frame_on_both_sides_of_the_clip(
    world: World, haystack: Video, clip: Video
) -> None:
    times_s, numbers, video = world.played(world.put_in(clip, haystack, 3.75).path)
    assert numbers == [*range(38), *range(200, 220), *range(37, 100)]
    expected_s = [*every(0.1, 38), *(3.75 + t for t in every(0.1, 20)), 5.75, *(5.8 + t for t in every(0.1, 62))]
    np.testing.assert_allclose(times_s, expected_s, atol=2e-4)
    assert video.duration_s == pytest.approx(12.0, abs=1e-3)


def test_a_haystack_without_a_constant_rate_keeps_its_times(world: World, clip: Video) -> None:
    unsteady = world.video("unsteady.mp4", range(50), UNSTEADY_S)
    assert unsteady.is_vfr
    at_s = UNSTEADY_S[20] - UNSTEADY_S[0]
    spliced = world.put_in(clip, unsteady, at_s)
    times_s, numbers, video = world.played(spliced.path)
    start_s, end_s = spliced.bounds_s[1:3]
    inside = [number for time_s, number in zip(times_s, numbers, strict=True) if start_s <= time_s + 1e-3 < end_s]
    assert len(inside) == round(2.0 * unsteady.fps), "as many frames as at the haystack's average rate"
    assert inside == sorted(inside)
    assert 200 <= inside[0] < inside[-1] < 220
    assert numbers == [*range(20), *inside, *range(20, 50)]
    own_s = [t - (end_s - start_s) * (number >= 20) for t, number in zip(times_s, numbers, strict=True) if number < 200]
    np.testing.assert_allclose(own_s, np.array(UNSTEADY_S) - UNSTEADY_S[0], atol=1e-3)
    assert video.duration_s == pytest.approx(unsteady.duration_s + end_s - start_s, abs=2e-3)


@pytest.mark.parametrize(("rate", "shown"), [(30, list(range(201, 220, 3))), (5, [200 + n // 2 for n in range(40)])])
def test_a_clip_of_another_rate_is_shown_at_the_haystacks(
    world: World, haystack: Video, rate: int, shown: list[int]
) -> None:
    """In the middle of each tenth of a second: of three frames the second, of slow ones each twice."""
    other = world.video(f"rate{rate}.mp4", range(200, 220), [n / rate for n in range(20)])
    _, numbers, video = world.played(world.put_in(other, haystack, 5.0).path)
    assert numbers == [*range(50), *shown, *range(50, 100)]
    assert not video.is_vfr
    assert video.fps == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize(("size", "clips"), [((63, 65), (64, 64)), ((64, 64), (97, 131)), ((97, 131), (63, 65))])
def test_odd_sizes_work_and_the_clip_is_stretched_to_the_haystacks(
    world: World, size: tuple[int, int], clips: tuple[int, int]
) -> None:
    name = f"{size[0]}-{clips[0]}"
    odd = world.video(f"odd{name}.mp4", range(20), every(0.1, 20), size=size)
    other = world.video(f"other{name}.mp4", range(200, 210), every(0.1, 10), size=clips)
    _, numbers, video = world.played(world.put_in(other, odd, 1.0).path)
    assert (video.height, video.width) == size
    assert numbers == [*range(10), *range(200, 210), *range(10, 20)]


def test_colours_stay_what_they_were(world: World, clip: Video) -> None:
    rng = np.random.default_rng(0)
    colors = rng.integers(30, 226, (10, 3))
    path = world.root / "colours.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for color in colors:
            pixels = np.broadcast_to(color.astype(np.uint8), (64, 64, 3)).copy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    video = world.probe(path)
    spliced = world.put_in(clip, video, 1.0)
    made = world.probe(spliced.path)

    def means(file: Path, of: Video) -> np.ndarray:
        view = View(video_id=of.id, kind=ViewKind.DENSE, timestamps_s=tuple(every(0.1, 10)))
        return decode(file, view, world.prober.index_dir).pixels.mean(axis=(1, 2))

    assert np.abs(means(spliced.path, made) - means(path, video)).max() < 3


def test_a_haystack_that_is_turned_by_its_metadata_is_upright_in_the_file(world: World, clip: Video) -> None:
    path = world.root / "phone.mp4"
    write(path, range(20), every(0.1, 20), size=(64, 96))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12: the track header's matrix, here a quarter turn
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(data)
    video = world.probe(path)
    assert (video.height, video.width) == (96, 64)
    assert video.rotation_deg in (90, 270)
    spliced = world.put_in(clip, video, 1.0)
    made = world.probe(spliced.path)
    assert (made.height, made.width, made.rotation_deg) == (96, 64, 0)
    view = View(video_id=video.id, kind=ViewKind.DENSE, timestamps_s=tuple(every(0.1, 10)))
    of_made = view.model_copy(update={"video_id": made.id})
    before, after = (decode(f, v, world.prober.index_dir).pixels for f, v in ((path, view), (spliced.path, of_made)))
    assert np.abs(before.astype(int) - after).mean(axis=(1, 2, 3)).max() < 4


def test_a_clip_that_is_cut_out_shows_its_part_and_nothing_else(world: World, haystack: Video) -> None:
    out = world.root / "cuts" / "cut.mp4"
    cut(out, world.part(haystack, 4.05, 5.98), world.prober.index_dir)
    times_s, numbers, video = world.played(out)
    assert numbers == list(range(40, 60))
    np.testing.assert_allclose(times_s, [0.0, *(0.05 + t for t in every(0.1, 19))], atol=2e-4)
    assert video.duration_s == pytest.approx(1.93, abs=1e-3)


def test_the_same_file_is_written_once_and_another_place_is_another_file(
    world: World, haystack: Video, clip: Video
) -> None:
    first = world.put_in(clip, haystack, 2.0)
    state = first.path.stat()
    again = world.put_in(clip, haystack, 2.0)
    assert again == first
    assert again.path.stat().st_mtime_ns == state.st_mtime_ns
    assert world.put_in(clip, haystack, 2.1).path != first.path
    once = first.path.read_bytes()
    first.path.unlink()
    assert world.put_in(clip, haystack, 2.0).path.read_bytes() == once


def test_an_interrupted_write_leaves_nothing(
    world: World, haystack: Video, clip: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = set((world.root / "spliced").glob("*"))

    def interrupted(*_: object) -> Iterator[np.ndarray]:
        yield picture(0)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "read_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.put_in(clip, haystack, 7.3)
    assert set((world.root / "spliced").glob("*")) == there
    assert not list((world.root / "spliced").glob(".*"))


def test_a_killed_write_leaves_no_file_of_that_name_and_is_done_again(
    tmp_path: Path, world: World, haystack: Video, clip: Video
) -> None:
    folder = tmp_path / "spliced"
    parts = [world.part(haystack, 0, 5), world.part(clip), world.part(haystack, 5)]
    code = f"""
import os, signal, sys
from pathlib import Path
from tpo.records import Video
from tpo.video import splice
from tpo.video.splice import Part
real = splice.read_frames
def read(*arguments):
    for number, pixels in enumerate(real(*arguments)):
        if number == 15 and "clip" in arguments[0].name:
            os.kill(os.getpid(), signal.SIGKILL)
        yield pixels
splice.read_frames = read
haystack = Video.model_validate_json({haystack.model_dump_json()!r})
clip = Video.model_validate_json({clip.model_dump_json()!r})
root = Path({str(world.root)!r})
shown = [(haystack, 0, 5), (clip, 0.0, clip.duration_s), (haystack, 5, haystack.duration_s)]
parts = [Part(root / video.path, video, start_s, end_s) for video, start_s, end_s in shown]
splice.splice(Path({str(folder)!r}), parts, haystack, Path({str(world.prober.index_dir)!r}))
"""
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert killed.returncode == -signal.SIGKILL
    assert list(folder.glob("*.mp4")) == []
    spliced = splice(folder, parts, haystack, world.prober.index_dir)
    assert list(folder.glob("*.mp4")) == [spliced.path]
    with av.open(str(spliced.path)) as container:
        assert len(list(container.decode(video=0))) == 120


def test_a_part_that_is_not_in_the_video_is_refused(world: World, haystack: Video) -> None:
    for start_s, end_s in ((5.0, 10.2), (5.0, 5.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match=r"haystack.mp4 is 10 s long and has no part"):
            world.part(haystack, start_s, end_s)


def test_a_video_that_is_not_the_measured_one_is_said_to_be_and_nothing_is_written(world: World, clip: Video) -> None:
    changed = world.video("changed.mp4", range(30), every(0.1, 30))
    write(world.root / "changed.mp4", range(40), every(0.1, 40))
    there = set((world.root / "spliced").iterdir())
    with pytest.raises(DecodeError, match=r"changed.mp4: is not the video that was measured"):
        world.put_in(clip, changed, 1.0)
    assert set((world.root / "spliced").iterdir()) == there


def test_times_of_a_spliced_file_only_rise(world: World, haystack: Video, clip: Video) -> None:
    """Parts that meet inside frames, each a little nearer to a frame's begin."""
    for at_s in (4.9, 4.8999, 4.9001, 4.9003, 4.8994):
        times_s, numbers, video = world.played(world.put_in(clip, haystack, at_s).path)
        assert all(b > a for a, b in pairwise(times_s))
        assert set(numbers) == {*range(100), *range(200, 220)}
        assert video.duration_s == pytest.approx(12.0, abs=1e-3)
