"""Samplers: which moments of a video a model is shown. Every one of them makes a `View` of timestamps."""

import numpy as np

from tpo.records import Segment, Video, View, ViewKind

_EDGE_S = 0.002  # a moment nearer to a cut could be rounded onto it


def _view(video_id: str, kind: ViewKind, times_s: np.ndarray) -> View:
    return View(video_id=video_id, kind=kind, timestamps_s=tuple(round(float(t), 3) for t in times_s))


def dense(video: Video, num_frames: int) -> View:
    """`num_frames` moments evenly over the whole video, first and last frame included.

    The time form of LongVA's and LLaVA-Video's `linspace(0, N - 1, num_frames)` over frame numbers.
    """
    return _view(video.id, ViewKind.DENSE, np.linspace(0, video.last_frame_s, num_frames))


def segment(video: Video, part: Segment, num_frames: int) -> View:
    """`num_frames` moments evenly inside a segment, none of them outside (paper: the zoomed-in preferred input)."""
    end = min(part.end_s, video.duration_s)
    middle = (np.arange(num_frames) + 0.5) / num_frames
    return _view(video.id, ViewKind.SEGMENT, part.start_s + middle * (end - part.start_s))


def without_segment(video: Video, part: Segment, num_frames: int) -> View:
    """`num_frames` moments evenly over the video with a segment cut out (paper: the localized dis-preferred input).

    Raises:
        ValueError: the segment is the whole video, so nothing would be left to show.
    """
    end = min(part.end_s, video.duration_s)
    left_s = video.duration_s - (end - part.start_s)
    if left_s < 1 / video.fps:
        raise ValueError(f"nothing is left of video {video.id[:12]} without {part.start_s} to {end} s")
    middle = (np.arange(num_frames) + 0.5) / num_frames * left_s
    before = np.minimum(middle, max(part.start_s - _EDGE_S, 0.0))
    after = np.maximum(middle + end - part.start_s, end + _EDGE_S)
    return _view(video.id, ViewKind.WITHOUT_SEGMENT, np.where(middle < part.start_s, before, after))


def sparse(view: View, keep: float, seed: int) -> View:
    """A random share `keep` of a view's moments, in order, at least one (paper: the comprehensive dis-preferred input).

    Figure 1 of the paper blanks 3 of 6 frames; a random subset is what its third version says. The draw depends on the
    seed and the video alone.
    """
    count = max(1, round(len(view.timestamps_s) * keep))
    rng = np.random.default_rng([seed, int(view.video_id[:8], 16)])
    chosen = np.sort(rng.choice(len(view.timestamps_s), count, replace=False))
    return _view(view.video_id, ViewKind.SPARSE, np.asarray(view.timestamps_s)[chosen])
