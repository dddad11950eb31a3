"""What holds for any video, segment and number of frames, tried on many random ones and on the corners."""

from pathlib import Path

import numpy as np
import pytest
from numbered_video import every, number_on, write_numbered

from tpo.records import Segment, Video, View, ViewKind
from tpo.video.decode import decode
from tpo.video.measure import file_sha256
from tpo.video.probe import Prober
from tpo.video.sample import degraded, dense, distractors_inserted, segment, sparse, without_segment

VIDEO_ID = "0123456789abcdef" * 4


def video(num_frames: int = 40, fps: float = 2.0, video_id: str = VIDEO_ID) -> Video:
    fields: dict[str, object] = {
        "id": video_id, "path": "v.mp4", "size_bytes": 900, "duration_s": round(num_frames / fps, 3), "fps": fps,
        "num_frames": num_frames, "width": 64, "height": 64, "rotation_deg": 0, "codec": "h264", "is_vfr": False,
        "has_audio": False, "last_frame_s": round((num_frames - 1) / fps, 3), "longest_frame_s": 1 / fps,
        "num_restarts": 1, "brightness": 90.0, "change": 3.0,
    }  # fmt: skip
    return Video.model_validate(fields)


def part(start_s: float, end_s: float) -> Segment:
    return Segment(video_id=VIDEO_ID, start_s=start_s, end_s=end_s)


def is_increasing(view: View) -> bool:
    return bool((np.diff(view.timestamps_s) >= 0).all())


def random_cases(count: int) -> list[tuple[Video, Segment, int]]:
    """Videos of 1 s to 10 min, a segment of each (some to its very ends), numbers of frames from 1 to 200."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(count):
        clip = video(int(rng.integers(30, 18000)), float(rng.choice([2, 12.5, 23.976, 29.97, 30])))
        start, end = np.sort(rng.uniform(0, clip.duration_s, 2)).round(3).tolist()
        start, end = (0.0 if number % 5 == 0 else start), (clip.duration_s + 1 if number % 5 == 1 else end)
        if end - start > 0.01 and clip.duration_s - (min(end, clip.duration_s) - start) > 1:
            cases.append((clip, part(start, end), int(rng.integers(1, 200))))
    assert len(cases) > count * 0.7
    return cases


def test_a_dense_view_goes_from_the_first_to_the_last_frame_in_equal_steps() -> None:
    view = dense(video(num_frames=40, fps=2), 14)
    assert view == View(video_id=VIDEO_ID, kind=ViewKind.DENSE, timestamps_s=tuple(1.5 * n for n in range(14)))


def test_a_dense_view_really_shows_the_first_and_the_last_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with Prober(tmp_path) as prober:
        for fps in (10, 25, 30):
            count = int(rng.integers(50, 200))
            write_numbered(tmp_path / f"{fps}.mkv", [n / fps for n in range(count)], rate=fps)
            clip = prober.probe(tmp_path, tmp_path / f"{fps}.mkv")
            assert isinstance(clip, Video)
            for num_frames in (2, 3, 16):
                shown = decode(tmp_path / f"{fps}.mkv", dense(clip, num_frames), tmp_path)
                numbers = [number_on(pixels) for pixels in shown.pixels]
                assert (numbers[0], numbers[-1]) == (0, count - 1)
                assert np.abs(np.linspace(0, count - 1, num_frames) - numbers).max() <= 1


def test_a_dense_view_of_a_variable_rate_ends_at_the_last_frame_however_short_it_is(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mkv", [0, 0.1, 0.2, 2.2, 4.2, 9.9, 9.95])
    with Prober(tmp_path) as prober:
        clip = prober.probe(tmp_path, tmp_path / "a.mkv")
    assert isinstance(clip, Video)
    shown = decode(tmp_path / "a.mkv", dense(clip, 5), tmp_path)  # at 0, 2.49, 4.98, 7.46 and 9.95 s
    assert [number_on(pixels) for pixels in shown.pixels] == [0, 3, 4, 4, 6]


def test_a_segment_view_stays_inside_its_segment_and_spreads_over_it() -> None:
    for clip, of, num_frames in random_cases(400):
        view = segment(clip, of, num_frames)
        end_s = min(of.end_s, clip.duration_s)
        assert len(view.timestamps_s) == num_frames
        assert is_increasing(view)
        assert of.start_s <= view.timestamps_s[0]
        assert view.timestamps_s[-1] <= end_s
        assert np.mean(view.timestamps_s) == pytest.approx((of.start_s + end_s) / 2, abs=2e-3)
    assert segment(video(), part(4, 8), 4).timestamps_s == (4.5, 5.5, 6.5, 7.5)
    assert segment(video(), part(4, 8), 4).kind is ViewKind.SEGMENT


def test_a_view_without_a_segment_never_enters_it_and_covers_the_rest_evenly() -> None:
    for clip, cut, num_frames in random_cases(400):
        view = without_segment(clip, cut, num_frames)
        times_s = np.asarray(view.timestamps_s)
        assert len(times_s) == num_frames
        assert is_increasing(view)
        assert not ((times_s >= cut.start_s) & (times_s < cut.end_s)).any()
        assert times_s[0] >= 0
        assert times_s[-1] <= clip.duration_s
        removed_s = min(cut.end_s, clip.duration_s) - cut.start_s
        glued_s = np.where(times_s < cut.start_s, times_s, times_s - removed_s)
        steps_s = np.diff(glued_s)
        assert num_frames == 1 or steps_s.max() - steps_s.min() < 5e-3


@pytest.mark.parametrize("cut", [part(3, 17.0006), part(2.9993, 17.0004)])
def test_a_moment_next_to_the_cut_is_not_rounded_into_it(cut: Segment) -> None:
    # The only moment is the middle of what is left: 2.9997 s, and the first after the cut. Both would be rounded to it.
    (time_s,) = without_segment(video(), cut, 1).timestamps_s
    assert not cut.start_s <= time_s < cut.end_s


def test_a_segment_at_either_end_leaves_the_other_end() -> None:
    assert without_segment(video(), part(0, 16), 4).timestamps_s == (16.5, 17.5, 18.5, 19.5)
    assert without_segment(video(), part(16, 20), 4).timestamps_s == (2, 6, 10, 14)
    assert without_segment(video(), part(16, 99), 4) == without_segment(video(), part(16, 20), 4)
    assert segment(video(), part(0, 4), 2).timestamps_s == (1, 3)
    assert segment(video(), part(16, 99), 2).timestamps_s == (17, 19)


def test_no_frame_of_the_segment_is_seen_without_it(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.1, 200))
    cut = part(5, 15)
    clip = video(200, 10).model_copy(update={"id": file_sha256(tmp_path / "a.mp4")})
    inside = decode(tmp_path / "a.mp4", segment(clip, cut, 32), tmp_path)
    outside = decode(tmp_path / "a.mp4", without_segment(clip, cut, 32), tmp_path)
    assert all(50 <= number_on(pixels) < 150 for pixels in inside.pixels)
    assert not any(50 <= number_on(pixels) < 150 for pixels in outside.pixels)


@pytest.mark.parametrize("cut", [(0, 20), (0, 25), (0.2, 20), (0, 19.7)])
def test_a_segment_that_is_the_whole_video_cannot_be_left_out(cut: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"nothing is left of video {VIDEO_ID[:12]} without"):
        without_segment(video(), part(*cut), 8)
    assert len(segment(video(), part(*cut), 8).timestamps_s) == 8


def test_more_frames_than_there_are_repeat_some_and_miss_none(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", every(0.5, 6))
    clip = video(6, 2).model_copy(update={"id": file_sha256(tmp_path / "a.mp4")})
    shown = decode(tmp_path / "a.mp4", dense(clip, 16), tmp_path)
    numbers = [number_on(pixels) for pixels in shown.pixels]
    assert len(numbers) == 16
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(6))


def test_a_single_frame_video_is_shown_by_its_only_moment() -> None:
    one = video(num_frames=1, fps=10)
    assert dense(one, 3).timestamps_s == (0, 0, 0)
    assert sparse(dense(one, 1), 0.5, seed=0).timestamps_s == (0,)
    assert dense(video(), 1).timestamps_s == (0,)


@pytest.mark.parametrize(
    ("num_frames", "strength", "count"), [(32, 0.5, 16), (32, 0.75, 8), (6, 0.5, 3), (3, 0.99, 1), (3, 1, 1)]
)
def test_a_sparse_view_is_a_sorted_subset_of_the_wanted_size(num_frames: int, strength: float, count: int) -> None:
    full = dense(video(), num_frames)
    for seed in range(50):
        view = sparse(full, strength, seed)
        assert view.difficulty == count / num_frames
        assert view.kind is ViewKind.SPARSE
        assert len(view.timestamps_s) == count
        assert len(set(view.timestamps_s)) == count
        assert set(view.timestamps_s) <= set(full.timestamps_s)
        assert is_increasing(view)


def test_a_sparse_view_depends_on_the_seed_and_the_video_alone() -> None:
    full, other = dense(video(), 32), dense(video(video_id="f" * 64), 32)
    assert sparse(full, 0.5, 7) == sparse(full, 0.5, 7)
    assert sparse(full, 0.5, 7) != sparse(full, 0.5, 8)
    assert sparse(full, 0.5, 7).timestamps_s != sparse(other, 0.5, 7).timestamps_s


def test_over_many_seeds_a_sparse_view_shows_every_moment_equally_often() -> None:
    full = dense(video(), 8)
    counts = dict.fromkeys(full.timestamps_s, 0)
    for seed in range(1000):
        for time_s in sparse(full, 0.5, seed).timestamps_s:
            counts[time_s] += 1
    assert all(abs(count - 500) < 80 for count in counts.values())  # five standard deviations


@pytest.mark.parametrize(
    ("video_id", "num_frames", "strength", "seed", "times_s"),
    [
        (VIDEO_ID, 8, 0.5, 0, (0, 1, 2, 7)),
        (VIDEO_ID, 8, 0.5, 1, (1, 2, 5, 7)),
        (VIDEO_ID, 32, 0.75, 0, (3, 4, 9, 10, 16, 17, 27, 29)),
        ("f" * 64, 8, 0.5, 0, (0, 2, 3, 6)),
        ("f" * 64, 12, 0.75, 7, (1, 5, 7)),
    ],
)
def test_a_sparse_view_is_drawn_as_it_was_before_other_views_were_there(
    video_id: str, num_frames: int, strength: float, seed: int, times_s: tuple[float, ...]
) -> None:
    """Pairs that were made with these draws can be made again."""
    assert sparse(dense(video(num_frames, 1, video_id), num_frames), strength, seed).timestamps_s == times_s


def touched(full: View, view: View) -> int:
    """How many frames of a view whose moments all differ, or neighbours if it was shuffled, are not as they were."""
    if view.kind is ViewKind.SHUFFLED:
        follower = dict(zip(full.timestamps_s, full.timestamps_s[1:], strict=False))
        pairs = zip(view.timestamps_s, view.timestamps_s[1:], strict=False)
        return sum(follower.get(one) != two for one, two in pairs)
    if view.kind is ViewKind.REVERSED:
        falls = np.diff(view.timestamps_s) < 0
        return int(falls.sum()) + 1
    return len(full.timestamps_s) - len(view.timestamps_s) + len(view.masked) + len(view.distractors)


@pytest.mark.parametrize(
    ("kind", "least", "spared"),  # frames, for a shuffled view neighbours: touched and left at any strength
    [
        (ViewKind.SPARSE, 0, 1),
        (ViewKind.SHUFFLED, 1, 0),
        (ViewKind.REVERSED, 2, 0),
        (ViewKind.MASKED, 1, 0),
        (ViewKind.DISTRACTORS_INSERTED, 1, 1),
    ],
)
def test_exactly_the_share_is_touched_and_the_difficulty_is_the_rest(kind: ViewKind, least: int, spared: int) -> None:
    other = video(20000, 30, "f" * 64)
    rng = np.random.default_rng(0)
    for count in [2, 2, 2, *rng.integers(2, 65, 100).tolist()]:
        clip, strength = video(int(rng.integers(100, 18000)), 30), float(rng.choice([0.01, 0.25, 0.4, 0.77, 1]))
        full = dense(clip, count)
        view = degraded(kind, full, clip, None, [other], strength, int(rng.integers(1000)))
        of = count - 1 if kind is ViewKind.SHUFFLED else count
        share = of - round(of * (1 - strength)) if kind is ViewKind.SPARSE else round(of * strength)
        assert touched(full, view) == min(of - spared, max(least, share))
        assert view.difficulty == pytest.approx(1 - touched(full, view) / of)


def test_which_video_gives_distractors_says_nothing_about_where_they_are_put() -> None:
    full, others = dense(video(), 32), [video(video_id=digit * 64) for digit in "abcd"]
    places: dict[str, list[int]] = {other.id: [] for other in others}
    for seed in range(400):
        view = degraded(ViewKind.DISTRACTORS_INSERTED, full, video(), None, others, 0.5, seed)
        places[view.distractors[0].video_id].append(view.distractors[0].position)
    for at in places.values():  # 1 to 15: a mean of 8 with a standard deviation of 4.3
        assert 60 < len(at) < 140
        assert abs(np.mean(at) - 8) < 5 * 4.3 / np.sqrt(len(at))


def test_which_video_gives_distractors_does_not_depend_on_the_order_in_which_they_are_named() -> None:
    full, others = dense(video(), 32), [video(video_id=digit * 64) for digit in "abcd"]
    for seed in range(20):
        view = degraded(ViewKind.DISTRACTORS_INSERTED, full, video(), None, others, 0.5, seed)
        assert view == degraded(ViewKind.DISTRACTORS_INSERTED, full, video(), None, others[::-1], 0.5, seed)


def test_times_of_distractors_lie_evenly_between_their_neighbours() -> None:
    full, other = dense(video(200, 1), 10), video(400, 1, "f" * 64)
    for seed in range(20):
        view = distractors_inserted(full, other, 0.4, seed)
        first, last = view.distractors[0].position, view.distractors[-1].position
        steps_s = np.diff(view.timestamps_s)
        # Six frames of its own leave five gaps, and four distractors cut one of them in five.
        assert steps_s[first - 1 : last + 1] == pytest.approx(199 / 5 / 5, abs=2e-3)
        assert np.delete(steps_s, range(first - 1, last + 1)) == pytest.approx(199 / 5, abs=2e-3)
