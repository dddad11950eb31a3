"""A needle among sampled frames: on many views, and on decoded frames that carry their numbers."""

from pathlib import Path

import numpy as np
import pytest
from numbered_video import every, number_on, write_numbered

from tpo.records import Video, ViewKind
from tpo.video.decode import VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense, needle_inserted


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A haystack with the numbers 0 to 99 and a needle with 0 to 254, ten of each a second."""
    root = tmp_path_factory.mktemp("videos")
    write_numbered(root / "haystack.mp4", every(0.1, 100))
    write_numbered(root / "needle.mp4", every(0.1, 255))
    return root


@pytest.fixture(scope="module")
def videos(root: Path) -> list[Video]:
    with Prober(root / ".frames") as prober:
        found = [prober.probe(root, root / f"{name}.mp4") for name in ("haystack", "needle")]
    return [one for one in found if isinstance(one, Video)]


@pytest.mark.parametrize("num_frames", [5, 8, 32, 33])
@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_a_needle_takes_its_frames_at_its_depth_and_changes_nothing_else(
    videos: list[Video], num_frames: int, depth: float
) -> None:
    haystack, needle = videos
    view = needle_inserted(haystack, needle, num_frames, 4, depth)
    assert view.kind is ViewKind.NEEDLE
    assert view.timestamps_s == dense(haystack, num_frames).timestamps_s
    positions = [frame.position for frame in view.distractors]
    assert positions == list(range(positions[0], positions[0] + 4))
    assert positions[0] == pytest.approx(depth * (num_frames - 4), abs=0.5)
    assert {frame.video_id for frame in view.distractors} == {needle.id}
    moments_s = [frame.timestamp_s for frame in view.distractors]
    assert moments_s == pytest.approx(np.linspace(0, needle.last_frame_s, 4), abs=1e-3), "the whole needle, in order"


def test_exactly_the_needles_frames_are_shown_there(root: Path, videos: list[Video]) -> None:
    haystack, needle = videos
    folder = VideoFolder(root, root / ".frames", paths={needle.id: needle.path})
    without = folder.frames(haystack.path, dense(haystack, 12))
    for depth, first in ((0.0, 0), (0.5, 4), (1.0, 8)):
        frames = folder.frames(haystack.path, needle_inserted(haystack, needle, 12, 4, depth))
        numbers = [number_on(pixels) for pixels in frames.pixels]
        assert numbers[first : first + 4] == [0, 84, 169, 254]
        others = [at for at in range(12) if not first <= at < first + 4]
        assert (frames.pixels[others] == without.pixels[others]).all()
        assert (frames.timestamps_s == without.timestamps_s).all()


def test_a_needle_that_leaves_nothing_of_the_haystack_is_refused(videos: list[Video]) -> None:
    with pytest.raises(ValueError, match="a needle of 8 frames leaves nothing of 8 frames"):
        needle_inserted(*videos, 8, 8, 0.5)
