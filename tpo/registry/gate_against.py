"""The gate's rules about a candidate against one other model: the base, or the champion (`tpo.registry.gate`)."""

from collections.abc import Iterator

from tpo.evaluation.intervals import Interval, needs_what_is_hidden
from tpo.params import RegisterParams
from tpo.records import GateRule
from tpo.registry.evidence import ALL, Against, Gain

MIN_CONFIDENCE = 0.95  # of the intervals: at 50 % much that is chance lies above 0
MAX_P = 0.05  # the interval resamples videos and is too narrow where there are few; the exact test is right there too
MIN_VIDEOS = 2  # the interval resamples videos; of a single video it has no width and would "prove" anything


def rules_against(name: str, against: Against | None, params: RegisterParams) -> Iterator[GateRule]:
    yield _better(name, against, params)
    if against is not None and against.gains:
        yield _none_worse(name, against, params)
        yield _short_videos(name, against, params)
        yield _needs_video(name, against, params)
        yield _readable(name, against, params)


def _better(name: str, against: Against | None, params: RegisterParams) -> GateRule:
    gain = against.gains.get(params.primary) if against else None
    told = "" if gain is None else f"tuned minus {name} is {describe(gain)}"
    limit = f"{100 * params.min_gain:+.1f}"
    if gain is None:
        reason = f"no gain over the {name} is shown"
    elif gain.num_videos < MIN_VIDEOS:
        reason = f"{told}: too few videos"
    elif gain.low <= params.min_gain:
        reason = f"{told}: its lower end is not above {limit}"
    elif gain.p >= MAX_P:
        reason = f"{told}: so many items could have changed by chance"
    else:
        reason = f"{told}, above {limit}"
    return GateRule(
        name=f"better_than_{name}",
        passed=gain is not None and gain.num_videos >= MIN_VIDEOS and gain.low > params.min_gain and gain.p < MAX_P,
        value=None if gain is None else gain.low,
        threshold=params.min_gain,
        reason=reason,
    )


def _none_worse(name: str, against: Against, params: RegisterParams) -> GateRule:
    worst = min(against.gains, key=lambda benchmark: against.gains[benchmark].low)
    gain = against.gains[worst]
    passed = gain.low > -params.max_loss
    loss = f"a loss of {100 * params.max_loss:g} points is {'' if passed else 'not '}ruled out"
    return GateRule(
        name=f"no_benchmark_worse_than_{name}",
        passed=passed,
        value=gain.low,
        threshold=-params.max_loss,
        reason=f"on {worst} tuned minus {name} is {_points(gain)}: {loss}",
    )


def _short_videos(name: str, against: Against, params: RegisterParams) -> GateRule:
    unknown = sorted(group for group, gain in against.short.items() if gain is None)
    known = {group: gain for group, gain in against.short.items() if gain is not None}
    worse = [
        group
        for group, gain in known.items()
        if _is_loss(gain.difference, gain.high, params.max_loss, is_tested=gain.p < MAX_P)
    ]
    told = [f"{group}: {_points(known[group])}" for group in worse or sorted(known)]
    if unknown:
        reason = f"which duration group of {', '.join(unknown)} is the shortest is not known"
    elif worse:
        reason = f"worse than the {name} on short videos ({'; '.join(told)})"
    elif known:
        reason = f"no loss against the {name} is shown on short videos ({'; '.join(told)})"
    else:
        reason = "no benchmark tells short videos from long ones"
    return GateRule(
        name=f"short_videos_not_worse_than_{name}",
        passed=not unknown and not worse,
        value=min((gain.difference for gain in known.values()), default=None),
        threshold=-params.max_loss,
        reason=reason,
    )


def _is_loss(value: float, high: float, max_loss: float, *, is_tested: bool = True) -> bool:
    """A loss is shown (all of the interval is below 0, and the exact test agrees), or seen beyond the margin."""
    return (high < 0 and is_tested) or value < -max_loss


def _needs_video(name: str, against: Against, params: RegisterParams) -> GateRule:
    """As `tpo.evaluation.verdict` says it: a gain that is there without the video is language, not time."""
    gain, blind = against.gains.get(params.primary), against.blind.get(params.primary)
    passed = gain is not None and blind is not None and needs_what_is_hidden(gain.difference, blind.gain, blind.rest)
    if gain is None:
        reason = f"no gain over the {name} is shown that could need the video"
    elif blind is None:
        reason = "whether the gain needs the video was not asked: evaluate.controls lacks text_only"
    elif blind.gain.low > 0 and passed:
        reason = f"part of the gain over the {name} is there without the video, the rest is not ({_points(blind.rest)})"
    elif blind.gain.low > 0:
        reason = (
            f"the gain over the {name} is there without the video ({_points(blind.gain)}): it is language, not time"
        )
    elif blind.rest.low > 0:
        reason = (
            f"without the video no gain over the {name} is shown ({_points(blind.gain)}), and what is gone without it "
            f"is ({_points(blind.rest)})"
        )
    elif passed:
        reason = (
            f"without the video no gain over the {name} is shown, and one of {100 * gain.difference:+.1f} points is "
            f"ruled out ({_points(blind.gain)})"
        )
    else:
        reason = (
            f"it is not shown that the gain over the {name} needs the video: all of {100 * gain.difference:+.1f} "
            f"points may be there without ({_points(blind.gain)}), so ask more (evaluate.controls.items_per_group)"
        )
    return GateRule(
        name=f"video_needed_to_beat_{name}",
        passed=passed,
        value=None if blind is None else blind.gain.high,
        threshold=0.0 if gain is None else gain.difference,
        reason=reason,
    )


def _readable(name: str, against: Against, params: RegisterParams) -> GateRule:
    lost = {how: Interval(value=-one.value, low=-one.high, high=-one.low) for how, one in against.unreadable.items()}
    worse = [how for how, one in lost.items() if _is_loss(one.value, one.high, params.max_loss)]
    told = "; ".join(f"{how}: {_points(lost[how])}" for how in worse or lost)
    passed = ALL in lost and not worse
    return GateRule(
        name=f"as_readable_as_{name}",
        passed=passed,
        value=min((one.value for one in lost.values()), default=None),
        threshold=-params.max_loss,
        reason=f"answers are {'not less' if passed else 'less'} readable than the {name}'s ({told or 'not known'})",
    )


def describe(gain: Gain) -> str:
    """+11.0 points, interval [+8.0, +14.0], p 1e-09, on 600 items of 60 videos"""
    return f"{_points(gain)}, p {gain.p:.2g}, on {gain.num_items} items of {gain.num_videos} videos"


def _points(gain: Gain | Interval) -> str:
    value = gain.difference if isinstance(gain, Gain) else gain.value
    shown, low, high = (100 * share + 0.0 for share in (value, gain.low, gain.high))  # no "-0.0"
    return f"{shown:+.1f} points, interval [{low:+.1f}, {high:+.1f}]"
