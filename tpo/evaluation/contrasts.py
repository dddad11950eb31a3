"""What a gain comes from: two models with everything to see against the same two with less.

    contrasts(predictions, confidence=0.95, samples=10_000, seed=0)

Of shuffled frames the drop, full minus shuffled, is the *temporal gain*: what the order of frames is worth to a model.
A gain that is there without the video is language, not time. Circular: the options in every rotation (CircularEval);
the mean over rotations, and the strict share of items that are right in all of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from tpo.evaluation.comparison import ALL, BASE_TO_TUNED, Pair, clusters, grouped, pair
from tpo.evaluation.intervals import Interval, mean_interval, share_interval
from tpo.records import Condition, Method, Prediction, Record, Role, Task


class Contrast(Record):
    """One control, on the items that both models were asked with and without it. Intervals are over videos."""

    roles: tuple[Role, Role]
    benchmark: str
    condition: Condition
    num_items: int
    num_videos: int
    before: Interval = Field(description="accuracy under the control")
    after: Interval
    difference: Interval = Field(description="after minus before under the control")
    before_drop: Interval = Field(description="accuracy in full minus under the control")
    after_drop: Interval
    drop_difference: Interval = Field(
        description="after_drop minus before_drop: the part of the gain that the control takes away"
    )
    before_strict: Interval | None = Field(None, description="circular: share of items right in every rotation")
    after_strict: Interval | None = None


def contrasts(
    predictions: Sequence[Prediction],
    *,
    roles: tuple[Role, Role] = BASE_TO_TUNED,
    confidence: float,
    samples: int,
    seed: int,
) -> list[Contrast]:
    """Every control that the two models were asked choice items under, pooled and per benchmark, by log-probability.

    Raises:
        ValueError: the models were asked different items, see `compare`.
    """
    asked: dict[Condition, tuple[list[Prediction], list[Prediction]]] = {}
    for one in predictions:
        if one.task is Task.CHOICE and one.method is Method.LOGPROB and one.model in roles:
            asked.setdefault(one.condition, ([], []))[roles.index(one.model)].append(one)
    controls = [condition for condition in Condition if condition in asked and condition is not Condition.FULL]
    if not controls:
        return []
    full = {one[0].item_id: one for one in pair(*asked.get(Condition.FULL, ([], [])), roles)}
    resampled: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}
    found = []
    for condition in controls:
        by_item = grouped(pair(*asked[condition], roles), lambda prediction: prediction.item_id)
        both = {item: pairs for item, pairs in sorted(by_item.items()) if item in full}
        benchmarks = sorted({full[item][0].benchmark for item in both})
        for benchmark in (ALL, *benchmarks) if both else ():
            own = [item for item in both if benchmark in (ALL, full[item][0].benchmark)]
            rows = [(full[item], both[item]) for item in own]
            found.append(_contrast(benchmark, condition, rows, roles, resampled))
    return found


def _contrast(
    benchmark: str,
    condition: Condition,
    rows: list[tuple[Pair, list[Pair]]],
    roles: tuple[Role, Role],
    resampled: dict[str, Any],
) -> Contrast:
    is_circular = condition is Condition.CIRCULAR
    tried = [_with_unrotated(full, control) if is_circular else control for full, control in rows]
    # float [items, models]
    seen = np.array([[one.score for one in full] for full, _ in rows])
    less = np.array([[sum(one[model].score for one in pairs) / len(pairs) for model in (0, 1)] for pairs in tried])
    strict = np.array([[min(one[model].score for one in pairs) for model in (0, 1)] for pairs in tried])
    videos = clusters([full[0] for full, _ in rows])
    drop = seen - less
    confidence = resampled["confidence"]
    before, after = (share_interval(less[:, model], videos, confidence=confidence) for model in (0, 1))
    sure = [share_interval(strict[:, model], videos, confidence=confidence) for model in (0, 1)]
    return Contrast(
        roles=roles,
        benchmark=benchmark,
        condition=condition,
        num_items=len(rows),
        num_videos=int(videos.max()) + 1,
        before=before,
        after=after,
        difference=mean_interval(less[:, 1] - less[:, 0], videos, **resampled),
        before_drop=mean_interval(drop[:, 0], videos, **resampled),
        after_drop=mean_interval(drop[:, 1], videos, **resampled),
        drop_difference=mean_interval(drop[:, 1] - drop[:, 0], videos, limit=2.0, **resampled),
        before_strict=sure[0] if is_circular else None,
        after_strict=sure[1] if is_circular else None,
    )


def _with_unrotated(full: Pair, rotations: list[Pair]) -> list[Pair]:
    """All rotations; the options as they are were asked in full, unless they were asked again."""
    return rotations if any(one[0].rotation == 0 for one in rotations) else [full, *rotations]
