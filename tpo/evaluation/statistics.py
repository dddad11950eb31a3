"""Is the tuned model better than the base, and how sure is that? A paired comparison on the same items.

    comparisons = compare(base_predictions, tuned_predictions, confidence=0.95, samples=10_000, seed=0)

Accuracy is the plain share of right answers over all items (micro; a missing or broken video counts as wrong). MLVU's
own "M-Avg" is a mean over tasks and differs by up to two points. Questions about one video are not independent, so
intervals resample whole videos.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from tpo.records import Prediction, PredictionStatus, Record, Role

ALL = "all"
_DRAWS_AT_ONCE = 500
GroupBy = Literal["overall", "duration_group", "category"]
Cut = tuple[str, GroupBy, str]  # benchmark, group_by, group


class Interval(Record):
    """A share or a difference of shares (1 = 100 %), and its percentile bootstrap interval over videos."""

    value: float
    low: float
    high: float


class Comparison(Record):
    """Base against tuned on one set of items."""

    benchmark: str
    group_by: GroupBy
    group: str
    num_items: int
    num_videos: int
    base: Interval
    tuned: Interval
    difference: Interval
    mcnemar_p: float
    gained: tuple[str, ...]
    lost: tuple[str, ...]


def compare(
    base: Sequence[Prediction], tuned: Sequence[Prediction], *, confidence: float, samples: int, seed: int
) -> list[Comparison]:
    """Over everything, per benchmark, and per duration group and category of each benchmark, in this order.

    Raises:
        ValueError: the two are not about the same items, each once; comparing them would not be paired.
    """
    pairs = _pair(base, tuned)
    cuts: dict[Cut, list[tuple[Prediction, Prediction]]] = {(ALL, "overall", ALL): pairs}
    keys: list[tuple[GroupBy, Callable[[Prediction], str]]] = [
        ("overall", lambda _: ALL),
        ("duration_group", lambda prediction: prediction.duration_group),
        ("category", lambda prediction: prediction.category),
    ]
    for benchmark in sorted({before.benchmark for before, _ in pairs}):
        own = [pair for pair in pairs if pair[0].benchmark == benchmark]
        for group_by, key in keys:
            for group in sorted({key(before) for before, _ in own}):
                cuts[benchmark, group_by, group] = [pair for pair in own if key(pair[0]) == group]
    return [_compare_cut(cut, pairs, confidence=confidence, samples=samples, seed=seed) for cut, pairs in cuts.items()]


def accuracy(predictions: Sequence[Prediction], *, confidence: float, samples: int, seed: int) -> Interval:
    """One model's accuracy with its interval over videos."""
    correct = np.array([[prediction.correct for prediction in predictions]], float)
    return _bootstrap(correct, [0.0], _clusters(predictions), confidence, samples, seed)[0]


def _pair(base: Sequence[Prediction], tuned: Sequence[Prediction]) -> list[tuple[Prediction, Prediction]]:
    before = {prediction.item_id: prediction for prediction in base}
    after = {prediction.item_id: prediction for prediction in tuned}
    for role, predictions, by_item in (("base", base, before), ("tuned", tuned, after)):
        if not predictions:
            raise ValueError(f"there is no prediction of the {role} model")
        if len(by_item) < len(predictions):
            twice = Counter(prediction.item_id for prediction in predictions).most_common(1)[0][0]
            raise ValueError(f"the {role} model has more than one prediction of {twice}")
        if wrong := next((prediction.model for prediction in predictions if prediction.model != role), None):
            raise ValueError(f"expected predictions of the {role} model, got one of the {wrong} model")
    if alone := sorted(before.keys() ^ after.keys()):
        raise ValueError(
            f"the models answered different items: {len(before)} by base, {len(after)} by tuned, "
            f"{len(alone)} by only one of them, such as {alone[0]}"
        )
    for item, prediction in before.items():
        if (prediction.gold, prediction.video) != (after[item].gold, after[item].video):
            raise ValueError(f"{item} had another video or gold answer when the tuned model was asked")
    return [(before[item], after[item]) for item in sorted(before)]


def _compare_cut(
    cut: Cut, pairs: list[tuple[Prediction, Prediction]], *, confidence: float, samples: int, seed: int
) -> Comparison:
    benchmark, group_by, group = cut
    base, tuned = (np.array([pair[i].correct for pair in pairs], float) for i in (0, 1))
    clusters = _clusters([before for before, _ in pairs])
    intervals = _bootstrap(np.stack([base, tuned, tuned - base]), [0.0, 0.0, -1.0], clusters, confidence, samples, seed)
    gained = tuple(before.item_id for before, after in pairs if after.correct and not before.correct)
    lost = tuple(before.item_id for before, after in pairs if before.correct and not after.correct)
    return Comparison(
        benchmark=benchmark,
        group_by=group_by,
        group=group,
        num_items=len(pairs),
        num_videos=int(clusters.max()) + 1,
        base=intervals[0],
        tuned=intervals[1],
        difference=intervals[2],
        mcnemar_p=exact_mcnemar(len(gained), len(lost)),
        gained=gained,
        lost=lost,
    )


def exact_mcnemar(gained: int, lost: int) -> float:
    """Two-sided p: how likely a split at least this uneven is if gaining and losing were equally likely."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _clusters(predictions: Sequence[Prediction]) -> np.ndarray:
    """The number of each prediction's video, int64 [n]."""
    videos: dict[tuple[str, str], int] = {}
    return np.array([videos.setdefault((p.benchmark, p.video), len(videos)) for p in predictions])


def _bootstrap(
    scores: np.ndarray, lowest: Sequence[float], clusters: np.ndarray, confidence: float, samples: int, seed: int
) -> list[Interval]:
    """Means of the rows of `scores`, float [k, n], with percentile intervals from resampling clusters, int [n].

    One video says nothing about other videos: the interval then goes from `lowest` to 1, all that is possible. With
    few videos (under twenty or so) a percentile interval is somewhat too narrow.
    """
    sizes = np.bincount(clusters)
    totals = np.stack([np.bincount(clusters, weights=row) for row in scores])
    values = scores.mean(axis=1)
    if len(sizes) < 2:
        return [Interval(value=float(value), low=low, high=1.0) for value, low in zip(values, lowest, strict=True)]
    rng = np.random.default_rng(seed)
    draws = []
    for first in range(0, samples, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, samples - first)
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), count)
        draws.append((times @ totals.T) / (times @ sizes)[:, None])
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail], axis=0)
    return [Interval(value=float(v), low=float(a), high=float(b)) for v, a, b in zip(values, low, high, strict=True)]


def metrics(comparisons: Sequence[Comparison], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """All numbers of a run as nested JSON, for the gate, the report and MLflow (whose metric names allow few signs).

    `{"all": {…}, "mlvu": {…, "duration_group": {"under 5min": {…}}, "category": {…}}, "status": …, "incomplete": …}`.
    """
    result: dict[str, Any] = {}
    for comparison in comparisons:
        numbers = {
            "num_items": comparison.num_items,
            "num_videos": comparison.num_videos,
            **_flat("accuracy_base", comparison.base),
            **_flat("accuracy_tuned", comparison.tuned),
            **_flat("difference", comparison.difference),
            "mcnemar_p": comparison.mcnemar_p,
            "num_gained": len(comparison.gained),
            "num_lost": len(comparison.lost),
        }
        place = result.setdefault(comparison.benchmark, {})
        if comparison.group_by != "overall":
            place = place.setdefault(comparison.group_by, {}).setdefault(metric_name(comparison.group), {})
        place.update(numbers)
    roles: tuple[Role, ...] = ("base", "tuned")
    counts = Counter((prediction.model, prediction.status) for prediction in predictions)
    result["status"] = {role: {status.value: counts[role, status] for status in PredictionStatus} for role in roles}
    result["incomplete"] = {
        f"num_videos_{state}": len({(p.benchmark, p.video) for p in predictions if p.status == f"video_{state}"})
        for state in ("missing", "broken")
    }
    return result


def accuracy_csv(comparisons: Sequence[Comparison]) -> str:
    """Accuracy per benchmark and model as CSV, for `dvc plots`."""
    rows = ["model,accuracy,low,high"]
    for comparison in comparisons:
        if comparison.group_by == "overall":
            for role, interval in (("base", comparison.base), ("tuned", comparison.tuned)):
                figures = ",".join(f"{value:.4f}" for value in (interval.value, interval.low, interval.high))
                rows.append(f"{comparison.benchmark} {role},{figures}")
    return "\n".join(rows) + "\n"


def headline(comparisons: Sequence[Comparison]) -> dict[str, dict[str, float]]:
    """The few numbers that `dvc metrics show` has room for: per benchmark the accuracies and the gain."""
    return {
        comparison.benchmark: {
            "base": round(comparison.base.value, 4),
            "tuned": round(comparison.tuned.value, 4),
            "gain": round(comparison.difference.value, 4),
            "gain_low": round(comparison.difference.low, 4),
            "gain_high": round(comparison.difference.high, 4),
        }
        for comparison in comparisons
        if comparison.group_by == "overall"
    }


def metric_name(text: str) -> str:
    """A benchmark's own name for a group, in the signs that MLflow takes: "<5min" → "under 5min"."""
    text = text.replace("<", "under ").replace(">", "over ")
    return re.sub(r"[^\w \-]", lambda sign: f"_{ord(sign[0]):x}_", text) or "none"


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
