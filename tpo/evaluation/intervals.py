"""How sure a number is. Questions about one video are not independent, so whole videos are what varies.

clusters = number of each item's video, int [n]
share_interval(correct, clusters, confidence=0.95)                       # one model's accuracy
mean_interval(after - before, clusters, confidence=0.95, samples=10_000, seed=0)     # a paired difference
exact_mcnemar(gained, lost); holm(p_values); minimum_detectable_gain(0.125, 2_700, confidence=0.95)   # 0.019
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from tpo.records import Record

POWER = 0.8  # of finding a difference as large as `minimum_detectable_gain`; the usual choice
_DRAWS_AT_ONCE = 500


class Interval(Record):
    """A share or a difference of shares (1 = 100 %), and the interval around it."""

    value: float
    low: float
    high: float


def wilson(share: float, num_items: float, *, confidence: float) -> Interval:
    """Wilson's score interval (Wilson 1927) of a share of `num_items` independent trials; of no trial, 0 to 1.

    It stays within 0 and 1, and has a width where all or none are right. `num_items` may be an effective number.
    """
    if not num_items:
        return Interval(value=share, low=0.0, high=1.0)
    z2 = _z(confidence) ** 2
    middle = (share + z2 / (2 * num_items)) / (1 + z2 / num_items)
    half = math.sqrt(z2 * (share * (1 - share) / num_items + z2 / (4 * num_items**2))) / (1 + z2 / num_items)
    return Interval(value=share, low=max(0.0, min(share, middle - half)), high=min(1.0, max(share, middle + half)))


def share_interval(values: np.ndarray, clusters: np.ndarray, *, confidence: float) -> Interval:
    """Mean of `values`, float [n] between 0 and 1, with Wilson's interval at the effective number of items.

    That number is the one at which independent rights and wrongs would vary as the mean does (Korn and Graubard 1998):
    fewer than there are where a video's questions go together, more where values are in between, such as IoU. Where all
    values are the same nothing tells how alike a video's questions are; they then count as independent. One video says
    nothing about other videos: the interval is 0 to 1.
    """
    value, effect, variance = float(values.mean()), design_effect(values, clusters), float(values.var())
    if effect is None:
        return Interval(value=value, low=0.0, high=1.0)
    binary = value * (1 - value) / variance if variance else 1.0
    return wilson(value, len(values) / effect * binary, confidence=confidence)


def mean_interval(
    values: np.ndarray, clusters: np.ndarray, *, confidence: float, samples: int, seed: int, limit: float = 1.0
) -> Interval:
    """Mean of `values`, float [n] between -limit and limit, with a percentile interval from resampling clusters.

    One video says nothing about other videos: the interval then is all that is possible. With few videos (under twenty
    or so) a percentile interval is somewhat too narrow.

    Videos with as many items and the same sum are alike to the bootstrap, so what is drawn is how often each kind
    comes, not each video: the same distribution, and many times faster.
    """
    value = float(values.mean())
    sizes, totals = _per_cluster(values, clusters)
    if len(sizes) < 2:
        return Interval(value=value, low=-limit, high=limit)
    kinds, alike = np.unique(np.stack([totals, sizes], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    draws = []
    for first in range(0, samples, _DRAWS_AT_ONCE):
        times = rng.multinomial(len(sizes), alike / len(sizes), min(_DRAWS_AT_ONCE, samples - first))
        total, size = (times @ kinds).T
        draws.append(total / size)
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail])
    return Interval(value=value, low=float(low), high=float(high))


def needs_what_is_hidden(gain: float, blind: Interval, rest: Interval) -> bool:
    """Whether a gain that was found with everything to see needs what a control hides.

    It does if the part that is gone with it is shown, or if no gain is shown without it and the whole gain is ruled
    out there. That no gain is shown is not enough: of a few items it never is.

    Args:
        blind: the gain without what is hidden.
        rest: the part of the gain that is gone then.
    """
    return rest.low > 0 or (blind.low <= 0 and blind.high < gain)


def clustered_error(values: np.ndarray, clusters: np.ndarray) -> float | None:
    """Standard error of the mean of `values`, float [n], when whole clusters are drawn; of one cluster it is not known.

    The linearised error of a ratio of totals (Cochran 1977, 6.4 and 11.2): with clusters of one size, that of their
    means.
    """
    sizes, totals = _per_cluster(values, clusters)
    if len(sizes) < 2:
        return None
    residuals = totals - values.mean() * sizes
    return math.sqrt(len(sizes) / (len(sizes) - 1) * float(residuals @ residuals)) / len(values)


def design_effect(values: np.ndarray, clusters: np.ndarray) -> float | None:
    """How many times larger the variance of the mean is for whole clusters than for independent items, at least 1.

    Below 1 it would say that questions about one video help to tell apart others; a few videos show that by chance.
    None: one cluster.
    """
    error = clustered_error(values, clusters)
    if error is None:
        return None
    independent = float(values.var(ddof=1)) / len(values)
    return max(1.0, error**2 / independent) if independent else 1.0


def minimum_detectable_gain(
    mean_square: float, num_items: int, *, confidence: float, power: float = POWER, design_effect: float = 1.0
) -> float:
    """The smallest true gain (1 = 100 points) that a paired comparison of this size finds with probability `power`.

    (z_confidence + z_power) times the paired standard error sqrt(mean_square / num_items), Connor (1987) for McNemar's
    test. `mean_square` is that of the items' differences: of right and wrong answers the share that changed.
    """
    z = _z(confidence) + NormalDist().inv_cdf(power)
    return z * math.sqrt(mean_square / num_items * design_effect)


def exact_mcnemar(gained: int, lost: int) -> float:
    """Two-sided p: how likely a split at least this uneven is if gaining and losing were equally likely."""
    changed, fewer = int(gained + lost), int(min(gained, lost))  # numpy's integers would overflow
    ways = tail = 1  # to choose which of the changed items are the fewer ones: none of them, then one more each time
    for number in range(fewer):
        ways = ways * (changed - number) // (number + 1)
        tail += ways
    probability: float = 2 * tail / 2**changed
    return min(1.0, probability)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for being one family (Holm 1979), in the order given: step-down, never below the raw ones."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def _per_cluster(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items and sum of values of each cluster that has any, [k] each."""
    _, numbers, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    return sizes, np.bincount(numbers, weights=values)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
