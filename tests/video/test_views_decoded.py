"""How frames of masked views and of views with distractors are read: once, and with a clear error if they cannot be."""

from pathlib import Path

import numpy as np
import pytest
from numbered_video import every, number_on, write_numbered

from tpo.records import Distractor, Video, View, ViewKind
from tpo.video.decode import DecodeError, VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober
from tpo.video.sample import backwards, dense, distractors_inserted, masked, shuffled


@pytest.fixture
def folder(tmp_path: Path) -> VideoFolder:
    for number, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_numbered(tmp_path / name, every(0.1, 100 + 50 * number))
    return VideoFolder(tmp_path, tmp_path / "index", FrameCache(tmp_path / "cache", 10**9))


@pytest.fixture
def videos(folder: VideoFolder) -> list[Video]:
    with Prober(folder.index_dir) as prober:
        found = [prober.probe(folder.root, folder.root / name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    return [one for one in found if isinstance(one, Video)]


def knowing(folder: VideoFolder, videos: list[Video]) -> VideoFolder:
    return VideoFolder(folder.root, folder.index_dir, folder.cache, {one.id: one.path for one in videos})


def test_one_pass_prepares_all_that_views_show_of_their_own_video_and_no_more(
    folder: VideoFolder, videos: list[Video]
) -> None:
    assert folder.cache is not None
    own, other, _ = videos
    full = dense(own, 12)
    hidden, inserted = masked(full, 0.5, 0), distractors_inserted(full, other, 0.5, 0)
    shown_s = [time_s for position, time_s in enumerate(hidden.timestamps_s) if position not in hidden.masked]
    borrowed = {one.position for one in inserted.distractors}
    shown_s += [time_s for position, time_s in enumerate(inserted.timestamps_s) if position not in borrowed]
    knowing(folder, videos).prepare("a.mp4", [hidden, inserted])
    assert len(folder.cache.timestamps(own.id)) == len({min(99, int(time_s * 10 + 1e-6)) for time_s in shown_s})
    assert len(list((folder.cache.folder / own.id).iterdir())) == 1
    assert not folder.cache.timestamps(other.id)


def test_a_view_that_shows_nothing_of_its_video_has_nothing_to_prepare(
    folder: VideoFolder, videos: list[Video]
) -> None:
    assert folder.cache is not None
    blind = masked(dense(videos[0], 4), 1.0, 0)
    folder.prepare("a.mp4", [blind])
    assert not folder.cache.timestamps(videos[0].id)
    assert (folder.frames("a.mp4", blind).pixels == 128).all()


def test_a_clip_of_distractors_is_read_in_one_pass(folder: VideoFolder, videos: list[Video]) -> None:
    assert folder.cache is not None
    view = distractors_inserted(dense(videos[0], 12), videos[1], 0.5, 0)
    knowing(folder, videos).frames("a.mp4", view)
    assert len(folder.cache.timestamps(videos[1].id)) == 6
    assert len(list((folder.cache.folder / videos[1].id).iterdir())) == 1


def test_distractors_may_come_from_several_videos(folder: VideoFolder, videos: list[Video]) -> None:
    own, other, third = videos
    borrowed = [(1, other, 11.0), (2, third, 18.0), (3, other, 12.0)]
    view = View(
        video_id=own.id,
        kind=ViewKind.DISTRACTORS_INSERTED,
        timestamps_s=(1.0, 2.0, 3.0, 4.0, 5.0),
        distractors=tuple(Distractor(position=at, video_id=of.id, timestamp_s=time_s) for at, of, time_s in borrowed),
    )
    frames = knowing(folder, videos).frames("a.mp4", view)
    assert [number_on(pixels) for pixels in frames.pixels] == [10, 110, 180, 120, 50]
    assert frames.timestamps_s.tolist() == pytest.approx([1, 2, 3, 4, 5])
    assert len(set(frames.keys)) == 5


def test_a_video_that_gives_distractors_and_is_not_known_is_named(folder: VideoFolder, videos: list[Video]) -> None:
    view = distractors_inserted(dense(videos[0], 8), videos[1], 0.5, 0)
    with pytest.raises(DecodeError, match=rf"a\.mp4: no file is known of video {videos[1].id[:12]}"):
        folder.frames("a.mp4", view)


def test_a_file_that_gives_distractors_and_is_gone_is_named(folder: VideoFolder, videos: list[Video]) -> None:
    view = distractors_inserted(dense(videos[0], 8), videos[1], 0.5, 0)
    (folder.root / "b.mp4").unlink()
    with pytest.raises(DecodeError, match=r"b\.mp4"):
        knowing(folder, videos).frames("a.mp4", view)


def test_two_frames_are_enough_for_every_view(folder: VideoFolder, videos: list[Video]) -> None:
    full = dense(videos[0], 2)

    def numbers(view: View) -> list[int | None]:
        frames = knowing(folder, videos).frames("a.mp4", view)
        assert (np.diff(frames.timestamps_s) >= 0).all()
        return [None if (pixels == 128).all() else number_on(pixels) for pixels in frames.pixels]

    assert numbers(full) == [0, 99]
    assert numbers(shuffled(full, 0.5, 0)) == [99, 0]
    assert numbers(backwards(full, 0.5, 0)) == [99, 0]
    assert sorted(numbers(masked(full, 0.5, 0)), key=str) in ([0, None], [99, None])
    inserted = distractors_inserted(full, videos[1], 0.5, 0)
    assert numbers(inserted) == [0, int(inserted.distractors[0].timestamp_s * 10 + 1e-6)]
