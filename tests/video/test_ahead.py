import numpy as np
import pytest

from tpo.demo.world import plan_events, write_video
from tpo.records import Video, View
from tpo.video.ahead import decoded_ahead
from tpo.video.decode import DecodeError, Frames, VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> VideoFolder:
    root = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(root / f"{number}.mp4", plan_events(np.random.default_rng(number), 4), phase=0.0)
    return VideoFolder(root, root / ".frames")


@pytest.fixture(scope="module")
def wanted(folder: VideoFolder) -> list[tuple[str, View]]:
    with Prober(folder.index_dir) as prober:
        videos = [prober.probe(folder.root, folder.root / f"{number}.mp4") for number in range(4)]
    return [(video.path, dense(video, 3)) for video in videos if isinstance(video, Video)]


def test_views_come_in_the_order_they_are_wanted_with_the_frames_they_have_anyway(
    folder: VideoFolder, wanted: list[tuple[str, View]]
) -> None:
    for (path, view), frames in zip(wanted, decoded_ahead(folder, wanted), strict=True):
        assert isinstance(frames, Frames)
        np.testing.assert_array_equal(frames.pixels, folder.frames(path, view).pixels)


def test_a_view_that_cannot_be_had_is_said_in_its_place_and_the_others_come(
    folder: VideoFolder, wanted: list[tuple[str, View]]
) -> None:
    found = list(decoded_ahead(folder, [wanted[0], ("gone.mp4", wanted[1][1]), wanted[2]]))
    assert [type(one) for one in found] == [Frames, DecodeError, Frames]
    assert "gone.mp4" in str(found[1])


def test_no_more_is_decoded_than_is_needed_soon(
    folder: VideoFolder, wanted: list[tuple[str, View]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = VideoFolder.frames
    monkeypatch.setattr(VideoFolder, "frames", lambda self, path, view: asked.append(path) or real(self, path, view))
    coming = decoded_ahead(folder, wanted * 10)
    next(coming)
    coming.close()
    assert 1 <= len(asked) <= 3


def test_nothing_wanted_is_nothing_decoded(folder: VideoFolder) -> None:
    assert list(decoded_ahead(folder, [])) == []
