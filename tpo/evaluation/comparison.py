"""Is the tuned model better than the base, and how sure is that? A paired comparison on the same items.

    comparisons = compare(base_predictions, tuned_predictions, confidence=0.95, samples=10_000, seed=0)

Accuracy is the plain share of right answers over all items (micro; a missing or broken video counts as wrong). MLVU's
own "M-Avg" is a mean over tasks and differs by up to two points. Of free answers and spans it is the mean score: what
the judge gave, or IoU with the truth.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field

from tpo.evaluation.intervals import (
    Interval,
    clustered_error,
    design_effect,
    exact_mcnemar,
    holm,
    mean_interval,
    minimum_detectable_gain,
    share_interval,
)
from tpo.records import Condition, Method, Prediction, PredictionStatus, Record, Role, Task

ALL = "all"
BASE_TO_TUNED: tuple[Role, Role] = ("base", "tuned")
GroupBy = Literal["overall", "duration_group", "category", "granularity"]
Pair = tuple[Prediction, Prediction]
Cut = tuple[str, GroupBy, str]  # benchmark, group_by, group


class ModelScore(Record):
    """One model on one set of items. What could not be asked or read counts as wrong in `accuracy` alone."""

    accuracy: Interval = Field(description="mean score over all items")
    answered: Interval | None = Field(description="mean score over items with status ok; none = there is no such item")
    parse_rate: Interval = Field(description="share of items with status ok")
    status: dict[PredictionStatus, int] = Field(description="items of each status, all statuses")


class Comparison(Record):
    """Two models on one set of items."""

    roles: tuple[Role, Role]
    task: Task
    condition: Condition
    method: Method
    benchmark: str
    group_by: GroupBy
    group: str
    num_items: int
    num_videos: int
    before: ModelScore
    after: ModelScore
    difference: Interval = Field(description="accuracy after minus before; bootstrap over videos")
    standard_error: float | None = Field(description="of the difference, clustered by video; none = one video")
    parse_rate_difference: Interval = Field(
        description="before minus after: above 0 = the tuning made it less readable"
    )
    mcnemar_p: float = Field(description="of gained against lost, alone")
    holm_p: float = Field(description="the same, adjusted for its family; see `compare`")
    minimum_detectable_gain: float | None = Field(
        description="the smallest true gain found four times in five at this size; none = nothing changed, or one video"
    )
    confidence: float = Field(description="of the intervals")
    gained: tuple[str, ...] = Field(description="items that only the model after got right")
    lost: tuple[str, ...]


def compare(
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    *,
    roles: tuple[Role, Role] = BASE_TO_TUNED,
    confidence: float,
    samples: int,
    seed: int,
) -> list[Comparison]:
    """Over everything, per benchmark, and per duration group, category and granularity of each, in this order.

    The families of Holm's adjustment are planned, not found: the pooled comparison stands alone, the benchmarks'
    overall comparisons are one family, and each breakdown of a benchmark is one.

    Raises:
        ValueError: the two are not about the same items, each once, asked in one and the same way; comparing them
            would not be paired.
    """
    if any(one.condition is Condition.CIRCULAR for one in (*before, *after)):
        raise ValueError("rotations of an item's options are not items of their own; see tpo.evaluation.contrasts")
    cuts = _cuts(pair(before, after, roles))
    found = [
        _compare_cut(cut, pairs, roles=roles, confidence=confidence, samples=samples, seed=seed)
        for cut, pairs in cuts.items()
    ]
    families = defaultdict(list)
    for number, cut in enumerate(cuts):
        families[_family(cut)].append(number)
    for numbers in families.values():
        for number, adjusted in zip(numbers, holm([found[n].mcnemar_p for n in numbers]), strict=True):
            found[number] = found[number].model_copy(update={"holm_p": adjusted})
    return found


def score(predictions: Sequence[Prediction], *, confidence: float) -> ModelScore:
    """One model's score on a set of items. Intervals are Wilson's, at the effective number of items.

    Raises:
        ValueError: there is no prediction.
    """
    if not predictions:
        raise ValueError("there is no prediction to score")
    scores = np.array([prediction.score for prediction in predictions])
    is_ok = np.array([prediction.status is PredictionStatus.OK for prediction in predictions])
    videos = clusters(predictions)
    counts = Counter(prediction.status for prediction in predictions)
    return ModelScore(
        accuracy=share_interval(scores, videos, confidence=confidence),
        answered=share_interval(scores[is_ok], videos[is_ok], confidence=confidence) if is_ok.any() else None,
        parse_rate=share_interval(is_ok.astype(float), videos, confidence=confidence),
        status={status: counts[status] for status in PredictionStatus},
    )


def pair(
    before: Sequence[Prediction], after: Sequence[Prediction], roles: tuple[Role, Role] = BASE_TO_TUNED
) -> list[Pair]:
    """Both models' predictions of each item, and of each rotation of its options, in order.

    Raises:
        ValueError: see `compare`.
    """
    first, second = roles
    by_item = [
        {(prediction.item_id, prediction.rotation): prediction for prediction in predictions}
        for predictions in (before, after)
    ]
    for role, predictions, unique in zip(roles, (before, after), by_item, strict=True):
        if not predictions:
            raise ValueError(f"there is no prediction of the {role} model")
        if len(unique) < len(predictions):
            twice = Counter((prediction.item_id, prediction.rotation) for prediction in predictions).most_common(1)
            raise ValueError(f"the {role} model has more than one prediction of {twice[0][0][0]}")
        if wrong := next((prediction.model for prediction in predictions if prediction.model != role), None):
            raise ValueError(f"expected predictions of the {role} model, got one of the {wrong} model")
    if alone := sorted(by_item[0].keys() ^ by_item[1].keys()):
        raise ValueError(
            f"the models answered different items: {len(by_item[0])} by {first}, {len(by_item[1])} by {second}, "
            f"{len(alone)} by only one of them, such as {alone[0][0]}"
        )
    ways = sorted({(one.task, one.condition, one.method) for one in (*before, *after)})
    if len(ways) > 1:
        raise ValueError(
            f"expected predictions of one task, condition and method, got {' and '.join(map('/'.join, ways))}"
        )
    pairs = [(by_item[0][key], by_item[1][key]) for key in sorted(by_item[0])]
    for one, other in pairs:
        if _about(one) != _about(other):
            raise ValueError(f"{one.item_id} had another video or gold answer when the {second} model was asked")
    return pairs


def _about(one: Prediction) -> tuple[int | None, str, str | None, bool]:
    return one.gold, one.video, one.video_id, one.defective


def clusters(predictions: Sequence[Prediction]) -> np.ndarray:
    """The number of each prediction's video, int64 [n]. The same file in two places is one video."""
    videos: dict[str, int] = {}
    names = (one.video_id or f"{one.benchmark}/{one.video}" for one in predictions)
    return np.array([videos.setdefault(name, len(videos)) for name in names])


def _cuts(pairs: list[Pair]) -> dict[Cut, list[Pair]]:
    """The planned sets of items. Items that have no granularity are in none of its groups."""
    cuts: dict[Cut, list[Pair]] = {(ALL, "overall", ALL): pairs}
    keys: dict[GroupBy, Callable[[Prediction], str | None]] = {
        "overall": lambda _: ALL,
        "duration_group": lambda prediction: prediction.duration_group,
        "category": lambda prediction: prediction.category,
        "granularity": lambda prediction: prediction.granularity,
    }
    assert tuple(keys) == get_args(GroupBy)
    by_benchmark = grouped(pairs, lambda prediction: prediction.benchmark)
    for benchmark, own in sorted(by_benchmark.items()):
        for group_by, key in keys.items():
            for group, members in sorted(grouped(own, key).items()):
                cuts[benchmark, group_by, group] = members
    return cuts


def _family(cut: Cut) -> tuple[str, str]:
    benchmark, group_by, _ = cut
    if group_by != "overall":
        return benchmark, group_by
    return ("pooled", group_by) if benchmark == ALL else ("benchmarks", group_by)


def grouped(pairs: Sequence[Pair], key: Callable[[Prediction], str | None]) -> dict[str, list[Pair]]:
    """Pairs by a property of their item; those without it are left out."""
    found = defaultdict(list)
    for one in pairs:
        if (name := key(one[0])) is not None:
            found[name].append(one)
    return found


def _compare_cut(
    cut: Cut, pairs: list[Pair], *, roles: tuple[Role, Role], confidence: float, samples: int, seed: int
) -> Comparison:
    sides = [list(side) for side in zip(*pairs, strict=True)]
    scores = np.array([[one.score for one in side] for side in sides])
    is_ok = np.array([[one.status is PredictionStatus.OK for one in side] for side in sides], float)
    videos, change = clusters(sides[0]), scores[1] - scores[0]
    resampled: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
    gained = tuple(before.item_id for before, after in pairs if after.correct and not before.correct)
    lost = tuple(before.item_id for before, after in pairs if before.correct and not after.correct)
    p = exact_mcnemar(len(gained), len(lost))
    benchmark, group_by, group = cut
    return Comparison(
        roles=roles,
        task=sides[0][0].task,
        condition=sides[0][0].condition,
        method=sides[0][0].method,
        benchmark=benchmark,
        group_by=group_by,
        group=group,
        num_items=len(pairs),
        num_videos=int(videos.max()) + 1,
        before=score(sides[0], confidence=confidence),
        after=score(sides[1], confidence=confidence),
        difference=mean_interval(change, videos, **resampled),
        standard_error=clustered_error(change, videos),
        parse_rate_difference=mean_interval(is_ok[0] - is_ok[1], videos, **resampled),
        mcnemar_p=p,
        holm_p=p,
        minimum_detectable_gain=_detectable(change, videos, confidence),
        confidence=confidence,
        gained=gained,
        lost=lost,
    )


def _detectable(change: np.ndarray, videos: np.ndarray, confidence: float) -> float | None:
    effect = design_effect(change, videos)
    if effect is None or not change.any():
        return None
    mean_square = float(np.mean(change**2))
    return minimum_detectable_gain(mean_square, len(change), confidence=confidence, design_effect=effect)
