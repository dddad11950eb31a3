"""Which videos are worth training on. Every rule names its reason; every measure is a fact in the `Video` record.

| measure      | what it is                                       | below          | above           |
|--------------|--------------------------------------------------|----------------|-----------------|
| `duration_s` | seconds                                          | too_short      | too_long        |
| `side_px`    | the shorter side, upright                        | too_small      | too_large       |
| `num_frames` | frames that are really there                     | too_few_frames | too_many_frames |
| `brightness` | mean grey level, 0 (black) to 255                | too_dark       | too_bright      |
| `change`     | grey levels from one sampled picture to the next | static         | too_restless    |
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tpo.params import FilterParams, Limits
from tpo.records import Reason, Rejection, Video

STAGE = "ingest"


class _Rule(NamedTuple):
    measure: str
    value: Callable[[Video], float]
    below: Reason
    above: Reason


_RULES = (
    _Rule("duration_s", lambda video: video.duration_s, Reason.TOO_SHORT, Reason.TOO_LONG),
    _Rule("side_px", lambda video: min(video.width, video.height), Reason.TOO_SMALL, Reason.TOO_LARGE),
    _Rule("num_frames", lambda video: video.num_frames, Reason.TOO_FEW_FRAMES, Reason.TOO_MANY_FRAMES),
    _Rule("brightness", lambda video: video.brightness, Reason.TOO_DARK, Reason.TOO_BRIGHT),
    _Rule("change", lambda video: video.change, Reason.STATIC, Reason.TOO_RESTLESS),
)


class Filtered(NamedTuple):
    """Videos kept, those set aside, and what rules with `score_only` would have set aside of the kept ones."""

    kept: list[Video]
    set_aside: list[Rejection]
    flagged: list[Rejection]


def filter_videos(videos: Sequence[Video], params: FilterParams) -> Filtered:
    """A video is set aside for the first rule that it breaks, in the order of the table above."""
    found = Filtered([], [], [])
    for video in videos:
        broken: dict[bool, list[Rejection]] = {True: [], False: []}
        for rule in _RULES:
            limits: Limits = getattr(params, rule.measure)
            if rejection := _check(video, rule, limits):
                broken[limits.score_only].append(rejection)
        if broken[False]:
            found.set_aside.append(broken[False][0])
        else:
            found.kept.append(video)
            found.flagged.extend(broken[True])
    return found


def _check(video: Video, rule: _Rule, limits: Limits) -> Rejection | None:
    value = rule.value(video)
    if limits.min is not None and value < limits.min:
        reason, bound = rule.below, f"at least {limits.min:g}"
    elif limits.max is not None and value > limits.max:
        reason, bound = rule.above, f"at most {limits.max:g}"
    else:
        return None
    return Rejection(stage=STAGE, item=video.path, reason=reason, detail=f"{rule.measure} is {value:g}, {bound} wanted")
