"""A comparison in plain sentences: better, worse or not shown, never without its interval; and whether it is time.

verdict(comparison, controls)
# "better: +3.1 points [+1.0, +5.2], p 0.002 (Holm). The gain shows without the video as well (+2.9 points
#  [+0.8, +5.0]): it is language, not time."
"""

from collections.abc import Sequence

from tpo.evaluation.comparison import Comparison
from tpo.evaluation.contrasts import Contrast
from tpo.evaluation.intervals import Interval, needs_what_is_hidden
from tpo.records import Condition


def verdict(comparison: Comparison, controls: Sequence[Contrast] = ()) -> str:
    """What may be said of a comparison.

    A difference is shown if its interval, clustered by video, is on one side of 0 *and* the adjusted exact test, which
    is right for few videos too, is below 1 − confidence.

    Args:
        comparison: of two models on one set of items.
        controls: any; those of the comparison's benchmark and models are used.
    """
    own = {
        one.condition: one for one in controls if (one.roles, one.benchmark) == (comparison.roles, comparison.benchmark)
    }
    sentences = [_outcome(comparison)]
    if is_better(comparison):
        language = _language(comparison.difference.value, own.get(Condition.TEXT_ONLY))
        sentences += [language, _time(own.get(Condition.SHUFFLED))]
    return " ".join(sentences)


def is_better(comparison: Comparison) -> bool:
    """The model after is shown to be better than the one before."""
    return comparison.difference.low > 0 and _is_tested(comparison)


def _is_tested(comparison: Comparison) -> bool:
    return comparison.holm_p < 1 - comparison.confidence


def _outcome(comparison: Comparison) -> str:
    difference, seen = comparison.difference, comparison.minimum_detectable_gain
    figures = f"{_points(difference)}, p {comparison.holm_p:.2g} (Holm)"
    if is_better(comparison):
        return f"better: {figures}."
    if difference.high < 0 and _is_tested(comparison):
        return f"worse: {figures}."
    if comparison.num_videos == 1:
        return f"not shown: {figures}; one video says nothing about others."
    if seen is None:
        return f"not shown: {figures}; no answer changed."
    if abs(difference.value) < seen:
        return f"not shown: {figures}; smaller than what could be seen here ({100 * seen:.1f} points)."
    return f"not shown: {figures}."


def _language(gain: float, control: Contrast | None) -> str:
    if control is None:
        return "Whether it needs the video was not asked (text_only)."
    blind, rest = _points(control.difference), _points(control.drop_difference)
    needs_video = needs_what_is_hidden(gain, control.difference, control.drop_difference)
    if control.difference.low > 0 and needs_video:
        return f"Part of the gain shows without the video as well ({blind}) and is language; the rest is not ({rest})."
    if control.difference.low > 0:
        return f"The gain shows without the video as well ({blind}): it is language, not time."
    if needs_video:
        return f"Without the video no gain is shown ({blind})."
    return f"Whether it needs the video is not shown: all of it may be there without ({blind})."


def _time(control: Contrast | None) -> str:
    if control is None:
        return "Whether it needs the order of frames was not asked (shuffled)."
    change = _points(control.drop_difference)
    if control.drop_difference.low > 0:
        return f"What the order of frames is worth rose by {change}."
    if control.drop_difference.high < 0:
        return f"What the order of frames is worth fell: {change}."
    return f"That the order of frames became worth more is not shown ({change})."


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
