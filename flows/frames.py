"""What the stages that look at videos share on this machine: what was measured about them, and decoded frames."""

import functools
from collections.abc import Sequence
from pathlib import Path

from flows.stage import JOURNALS
from tpo.params import ProbeParams, RuntimeParams
from tpo.records import Video
from tpo.video.decode import VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober

INDEXES = JOURNALS / "frames"
FRAME_CACHE = JOURNALS / "frame_cache"


def video_folder(root: Path, params: RuntimeParams, videos: Sequence[Video] = ()) -> VideoFolder:
    """The videos below `root`, with the index and the cache of their frames; views may borrow frames of `videos`."""
    paths = {video.id: video.path for video in videos}
    return VideoFolder(root, INDEXES, FrameCache(FRAME_CACHE, int(params.frame_cache_gb * 1e9)), paths)


@functools.cache
def prober(params: ProbeParams) -> Prober:
    """One for all tasks of this process, so that files do not wait for new children; they end with the process."""
    return Prober(INDEXES, params)
