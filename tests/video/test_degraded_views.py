"""What is taken from a view by each of the kinds that take something, on many random views and on decoded frames."""

from pathlib import Path

import numpy as np
import pytest
from numbered_video import every, number_on, write_numbered

from tpo.records import Segment, Video, View, ViewKind
from tpo.video.decode import Frames, VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober
from tpo.video.sample import degraded, dense, segment

KINDS = (ViewKind.SHUFFLED, ViewKind.REVERSED, ViewKind.MASKED, ViewKind.DISTRACTORS_INSERTED)
STRENGTHS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def video(name: str = "a", duration_s: float = 60.0) -> Video:
    return Video(
        id=name * 64, path=f"{name}.mp4", size_bytes=1, duration_s=duration_s, fps=10, num_frames=600, width=64,
        height=64, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False, last_frame_s=duration_s - 0.1,
        longest_frame_s=0.1, num_restarts=1, brightness=90.0, change=3.0,
    )  # fmt: skip


OTHER = video("b")


def taken_from(full: View, kind: ViewKind, strength: float, seed: int = 0) -> View:
    return degraded(kind, full, video(), None, [video(), OTHER], strength, seed)


def cases() -> list[tuple[View, float, int]]:
    """Views of 2 to 64 frames at all strengths."""
    rng = np.random.default_rng(0)
    return [(dense(video(), int(rng.integers(2, 65))), strength, seed) for strength in STRENGTHS for seed in range(30)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_frames_tells_nothing_and_the_difficulty_is_what_was_left(kind: ViewKind) -> None:
    for full, strength, seed in cases():
        view = taken_from(full, kind, strength, seed)
        count = len(full.timestamps_s)
        assert len(view.timestamps_s) == count
        assert view.kind is kind
        assert view.difficulty is not None
        assert abs(view.difficulty - (1 - strength)) <= 2 / (count - 1), "no more than rounding away"
        assert min(view.timestamps_s) >= full.timestamps_s[0]
        assert max(view.timestamps_s) <= full.timestamps_s[-1]


@pytest.mark.parametrize("kind", [*KINDS, ViewKind.SPARSE])
def test_a_view_depends_on_the_seed_and_the_video_alone(kind: ViewKind) -> None:
    full, of_other = dense(video(), 32), dense(video("c"), 32)
    assert taken_from(full, kind, 0.5, 7) == taken_from(full, kind, 0.5, 7)
    views = {taken_from(full, kind, 0.5, seed) for seed in range(10)}
    assert len(views) > 5
    there = degraded(kind, of_other, video("c"), None, [OTHER], 0.5, 7)
    assert there.model_copy(update={"video_id": full.video_id}) not in views


def test_a_shuffled_view_tears_apart_exactly_the_share_of_neighbours() -> None:
    for full, strength, seed in cases():
        view = taken_from(full, ViewKind.SHUFFLED, strength, seed)
        assert sorted(view.timestamps_s) == list(full.timestamps_s)
        follower = dict(zip(full.timestamps_s, full.timestamps_s[1:], strict=False))
        kept = sum(follower.get(a) == b for a, b in zip(view.timestamps_s, view.timestamps_s[1:], strict=False))
        assert kept == pytest.approx(view.difficulty * (len(full.timestamps_s) - 1))
        assert view.timestamps_s != full.timestamps_s


def test_a_reversed_view_plays_one_run_backwards_and_at_full_strength_everything() -> None:
    for full, strength, seed in cases():
        view = taken_from(full, ViewKind.REVERSED, strength, seed)
        falls = [a > b for a, b in zip(view.timestamps_s, view.timestamps_s[1:], strict=False)]
        length = len(full.timestamps_s) - round(view.difficulty * len(full.timestamps_s))
        first = falls.index(True)
        assert all(falls[first : first + length - 1])
        assert sum(falls) == length - 1
        if strength == 1:
            assert view.timestamps_s == full.timestamps_s[::-1]


def test_a_masked_view_hides_the_share_and_leaves_the_rest_where_it_was() -> None:
    for full, strength, seed in cases():
        view = taken_from(full, ViewKind.MASKED, strength, seed)
        assert view.timestamps_s == full.timestamps_s
        assert list(view.masked) == sorted(set(view.masked))
        assert len(view.masked) == max(1, round(strength * len(full.timestamps_s)))


def test_distractors_are_one_clip_of_another_video_between_frames_of_this_one() -> None:
    for full, strength, seed in cases():
        view = taken_from(full, ViewKind.DISTRACTORS_INSERTED, strength, seed)
        positions = [one.position for one in view.distractors]
        assert positions == list(range(positions[0], positions[0] + len(positions)))
        assert positions[0] > 0, "a frame of its own comes first"
        assert {one.video_id for one in view.distractors} == {OTHER.id}
        assert list(view.timestamps_s) == sorted(view.timestamps_s)
        moments_s = [one.timestamp_s for one in view.distractors]
        assert 0 <= moments_s[0] <= moments_s[-1] <= OTHER.last_frame_s
        step_s = full.timestamps_s[1] - full.timestamps_s[0]
        assert np.diff(moments_s) == pytest.approx(step_s, abs=0.01), "as fast as the view goes"
        own = [time_s for number, time_s in enumerate(view.timestamps_s) if number not in positions]
        assert own[0] == full.timestamps_s[0]
        assert len(own) >= 1


def test_a_shorter_video_gives_a_slower_clip() -> None:
    short = video("b", duration_s=3.0)
    view = degraded(ViewKind.DISTRACTORS_INSERTED, dense(video(), 32), video(), None, [short], 0.5, 0)
    assert max(one.timestamp_s for one in view.distractors) <= short.last_frame_s


def test_without_what_it_takes_there_is_no_such_view() -> None:
    full = dense(video(), 8)
    with pytest.raises(ValueError, match="no other video gives distractors"):
        degraded(ViewKind.DISTRACTORS_INSERTED, full, video(), None, [video()], 0.5, 0)
    with pytest.raises(ValueError, match="has no segment"):
        degraded(ViewKind.WITHOUT_SEGMENT, full, video(), None, [], None, 0)
    for kind in (ViewKind.SHUFFLED, ViewKind.REVERSED, ViewKind.DISTRACTORS_INSERTED):
        with pytest.raises(ValueError, match=r"in a view of 1 frame"):
            taken_from(dense(video(), 1), kind, 0.5)


def test_a_longer_segment_is_easier_to_miss() -> None:
    def left_by(end_s: float) -> float:
        part = Segment(video_id=video().id, start_s=0, end_s=end_s)
        view = degraded(ViewKind.WITHOUT_SEGMENT, dense(video(), 8), video(), part, [], None, 0)
        assert view.difficulty is not None
        return view.difficulty

    assert (left_by(15), left_by(45)) == (0.75, 0.25)
    whole = dense(video(), 8)
    assert whole.difficulty is segment(video(), Segment(video_id="a", start_s=0, end_s=5), 8).difficulty is None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_numbered(root / "a.mp4", every(0.1, 100))
    write_numbered(root / "b.mp4", every(0.1, 255)[:200])
    return root


@pytest.fixture(scope="module")
def videos(root: Path) -> list[Video]:
    with Prober(root / ".frames") as prober:
        found = [prober.probe(root, root / name) for name in ("a.mp4", "b.mp4")]
    return [one for one in found if isinstance(one, Video)]


def shown(root: Path, videos: list[Video], kind: ViewKind, cache: FrameCache | None = None) -> tuple[View, Frames]:
    view = degraded(kind, dense(videos[0], 12), videos[0], None, videos, 0.5, 3)
    folder = VideoFolder(root, root / ".frames", cache, {one.id: one.path for one in videos})
    return view, folder.frames("a.mp4", view)


def test_frames_come_in_the_views_order_and_are_told_in_the_order_of_time(root: Path, videos: list[Video]) -> None:
    """Told their own times, a model would read off the order that was taken from it."""
    full = VideoFolder(root, root / ".frames").frames("a.mp4", dense(videos[0], 12))
    for kind in (ViewKind.SHUFFLED, ViewKind.REVERSED):
        view, frames = shown(root, videos, kind)
        numbers = [number_on(pixels) for pixels in frames.pixels]
        assert numbers == [min(99, int(time_s * 10 + 1e-6)) for time_s in view.timestamps_s]
        assert numbers != sorted(numbers)
        assert frames.timestamps_s.tolist() == full.timestamps_s.tolist()


def test_masked_frames_are_grey_and_never_read(root: Path, videos: list[Video], tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 10**9)
    view, frames = shown(root, videos, ViewKind.MASKED, cache)
    full = VideoFolder(root, root / ".frames").frames("a.mp4", dense(videos[0], 12))
    for position in range(12):
        expected = np.full_like(full.pixels[0], 128) if position in view.masked else full.pixels[position]
        assert (frames.pixels[position] == expected).all()
    assert len(cache.timestamps(videos[0].id)) == 12 - len(view.masked)
    blind = degraded(ViewKind.MASKED, dense(videos[0], 4), videos[0], None, [], 1.0, 0)
    assert (VideoFolder(root, root / ".frames").frames("a.mp4", blind).pixels == 128).all()


def test_distractors_show_the_other_video(root: Path, videos: list[Video]) -> None:
    view, frames = shown(root, videos, ViewKind.DISTRACTORS_INSERTED)
    there = {one.position: one.timestamp_s for one in view.distractors}
    for position, pixels in enumerate(frames.pixels):
        time_s = there.get(position, view.timestamps_s[position])
        assert number_on(pixels) == min(99 if position not in there else 199, int(time_s * 10 + 1e-6))
    assert (np.diff(frames.timestamps_s) >= 0).all()


def test_a_distractor_of_another_size_is_stretched_to_this_one(root: Path, videos: list[Video]) -> None:
    import av

    with av.open(str(root / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((96, 128, 3), 200, np.uint8))))
        container.mux(stream.encode())
    with Prober(root / ".frames") as prober:
        wide = prober.probe(root, root / "wide.mp4")
    assert isinstance(wide, Video)
    view, frames = shown(root, [videos[0], wide], ViewKind.DISTRACTORS_INSERTED)
    assert frames.pixels.shape == (12, 64, 64, 3)
    assert all(abs(int(frames.pixels[one.position].mean()) - 200) < 4 for one in view.distractors)


def test_frames_of_one_key_are_the_same_in_whatever_view(root: Path, videos: list[Video], tmp_path: Path) -> None:
    pixels: dict[str, np.ndarray] = {}
    for kind in KINDS:
        _, frames = shown(root, videos, kind, FrameCache(tmp_path, 10**9))
        assert len(frames.keys) == len(frames.pixels)
        for key, one in zip(frames.keys, frames.pixels, strict=True):
            assert (pixels.setdefault(key, one) == one).all()
    assert len(pixels) < 12 * len(KINDS)
