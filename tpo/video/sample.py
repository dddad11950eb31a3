"""Samplers: which moments of a video a model is shown. Every one of them makes a `View` of timestamps."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tpo.records import Distractor, Segment, Video, View, ViewKind

_EDGE_S = 0.002  # a moment nearer to a cut could be rounded onto it


def _view(video_id: str, kind: ViewKind, times_s: np.ndarray, **more: Any) -> View:
    return View(video_id=video_id, kind=kind, timestamps_s=tuple(round(float(t), 3) for t in times_s), **more)


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
    times_s = np.where(middle < part.start_s, before, after)
    difficulty = min(1.0, max(0.0, left_s / video.duration_s))
    return _view(video.id, ViewKind.WITHOUT_SEGMENT, times_s, difficulty=difficulty)


def sparse(view: View, strength: float, seed: int) -> View:
    """A random subset of a view's moments, in order, at least one (paper: the comprehensive dis-preferred input).

    Figure 1 of the paper blanks 3 of 6 frames; a random subset is what its third version says.
    """
    count = len(view.timestamps_s)
    kept = max(1, round(count * (1 - strength)))
    chosen = np.sort(_chance(view, seed).choice(count, kept, replace=False))
    times_s = np.asarray(view.timestamps_s)[chosen]
    return _view(view.video_id, ViewKind.SPARSE, times_s, difficulty=kept / count)


def shuffled(view: View, strength: float, seed: int) -> View:
    """Runs of a view's moments in another order, in which no two runs follow each other that did before.

    `strength` is the share of neighbours that are torn apart (TEMPLE, arXiv 2503.16929, shuffles clips at several
    magnitudes).
    """
    neighbours = _needs(view, 2, "shuffle") - 1
    cuts = max(1, round(neighbours * strength))
    rng = _chance(view, seed)
    places = np.sort(rng.choice(neighbours, cuts, replace=False)) + 1
    runs = np.split(np.asarray(view.timestamps_s), places)
    order = _order_without_neighbours(len(runs), rng)
    times_s = np.concatenate([runs[number] for number in order])
    return _view(view.video_id, ViewKind.SHUFFLED, times_s, difficulty=1 - cuts / neighbours)


def backwards(view: View, strength: float, seed: int) -> View:
    """A run of a view's moments in reverse, at `strength` 1 all of them (Tarsier2, arXiv 2501.07888; TEMPLE)."""
    count = _needs(view, 2, "reverse")
    length = max(2, round(count * strength))
    first = int(_chance(view, seed).integers(count - length + 1))
    times_s = np.asarray(view.timestamps_s)
    times_s[first : first + length] = times_s[first : first + length][::-1]
    return _view(view.video_id, ViewKind.REVERSED, times_s, difficulty=1 - length / count)


def masked(view: View, strength: float, seed: int) -> View:
    """A random share of a view's frames in plain grey, at least one (RRPO, arXiv 2504.12083, masks 25 to 50 %)."""
    count = len(view.timestamps_s)
    hidden = max(1, round(count * strength))
    chosen = np.sort(_chance(view, seed).choice(count, hidden, replace=False))
    times_s = np.asarray(view.timestamps_s)
    difficulty = 1 - hidden / count
    return _view(view.video_id, ViewKind.MASKED, times_s, masked=tuple(chosen.tolist()), difficulty=difficulty)


def distractors_inserted(view: View, other: Video, strength: float, seed: int) -> View:
    """A view with a clip of another video put in at a random place, a share `strength` of the frames.

    There are as many frames as before, so that their number tells nothing: the video's own are spread over its length
    anew. The clip is played at the speed of the view where the other video is long enough. (LongVPO, arXiv 2602.02341,
    puts clips among distractors; Tarsier2 switches clips.)
    """
    count = _needs(view, 2, "insert distractors into")
    inserted = min(count - 1, max(1, round(count * strength)))
    rng = _chance(view, seed)
    first, last = view.timestamps_s[0], view.timestamps_s[-1]
    own = np.linspace(first, last, count - inserted)
    at = int(rng.integers(1, max(2, len(own))))  # behind one of its own frames, and before one if there are two
    between = np.linspace(own[at - 1], own[at] if at < len(own) else last, inserted + 2)[1:-1]
    length_s = min(other.last_frame_s, (last - first) / (count - 1) * (inserted - 1))
    start_s = rng.uniform(0, other.last_frame_s - length_s)
    clip = np.linspace(start_s, start_s + length_s, inserted).round(3)
    distractors = tuple(
        Distractor(position=at + number, video_id=other.id, timestamp_s=float(time_s))
        for number, time_s in enumerate(clip)
    )
    return _view(
        view.video_id,
        ViewKind.DISTRACTORS_INSERTED,
        np.concatenate([own[:at], between, own[at:]]),
        distractors=distractors,
        difficulty=1 - inserted / count,
    )


def needle_inserted(haystack: Video, needle: Video, num_frames: int, needle_frames: int, depth: float) -> View:
    """`dense` of a haystack in which a whole needle takes the place of `needle_frames` neighbours.

    Every other frame is the one that `dense` shows without a needle, at the same place and time.

    Args:
        depth: 0 = the needle's frames are the first ones, 1 = the last ones.

    Raises:
        ValueError: no frame of the haystack would be left.
    """
    if needle_frames >= num_frames:
        raise ValueError(f"a needle of {needle_frames} frames leaves nothing of {num_frames} frames")
    first = round(depth * (num_frames - needle_frames))
    moments_s = np.linspace(0, needle.last_frame_s, needle_frames).round(3)
    frames = tuple(
        Distractor(position=first + number, video_id=needle.id, timestamp_s=float(time_s))
        for number, time_s in enumerate(moments_s)
    )
    times_s = np.linspace(0, haystack.last_frame_s, num_frames)
    return _view(haystack.id, ViewKind.NEEDLE, times_s, distractors=frames)


# Views of a full view, by the share of it that they touch. A new one is a function and a row here.
_BY_STRENGTH: dict[ViewKind, Callable[[View, float, int], View]] = {
    ViewKind.SPARSE: sparse,
    ViewKind.SHUFFLED: shuffled,
    ViewKind.REVERSED: backwards,
    ViewKind.MASKED: masked,
}


def degraded(
    kind: ViewKind,
    full: View,
    video: Video,
    part: Segment | None,
    others: Sequence[Video],
    strength: float | None,
    seed: int,
) -> View:
    """What is left of the full view when something is taken from it: see the function of each kind.

    Draws depend on the seed and the video alone, so that all questions about a video share their views.

    Args:
        others: one of them gives distractors; the video itself is none.
        strength: share of the full view's frames that is touched; none for `without_segment`.

    Raises:
        ValueError: there is no such view: no segment, nothing left without it, no other video, too few frames.
    """
    if kind is ViewKind.WITHOUT_SEGMENT:
        if part is None:
            raise ValueError(f"the question has no segment, so video {video.id[:12]} has no view without one")
        return without_segment(video, part, len(full.timestamps_s))
    assert strength is not None
    if kind is ViewKind.DISTRACTORS_INSERTED:
        choices = sorted((other for other in others if other.id != video.id), key=lambda other: other.id)
        if not choices:
            raise ValueError(f"no other video gives distractors for video {video.id[:12]}")
        # A draw of its own: from the start of the same numbers, which video it is would say where its clip is put.
        other = choices[int(_chance(full, seed, 1).integers(len(choices)))]
        return distractors_inserted(full, other, strength, seed)
    return _BY_STRENGTH[kind](full, strength, seed)


def _chance(view: View, seed: int, *draw: int) -> np.random.Generator:
    """Random numbers that depend on the seed and the video alone. Each `draw` has its own."""
    return np.random.default_rng([seed, int(view.video_id[:8], 16), *draw])


def _needs(view: View, least: int, what: str) -> int:
    count = len(view.timestamps_s)
    if count < least:
        raise ValueError(f"there is nothing to {what} in a view of {count} frame(s)")
    return count


def _order_without_neighbours(count: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of 0 … count - 1 in which no number is followed by the next one.

    More than a third of all orders are such, whatever the count, so drawing until one comes ends soon.
    """
    while True:
        order: np.ndarray = rng.permutation(count)
        if not (np.diff(order) == 1).any():
            return order
