"""How an answer counts: by log-probability of the options first, by what the model writes second, never by a guess.

Log-probabilities of option texts are sums over tokens, so they favour shorter options; they do so for all models alike.
"""

import math
from collections.abc import Sequence
from typing import Any

from tpo.evaluation.parsing import parse_choice
from tpo.records import Condition, Item, Method, Prediction, PredictionStatus, Role


def predict(
    item: Item,
    role: Role,
    logprobs: Sequence[float],
    condition: Condition = Condition.FULL,
    rotation: int = 0,
) -> Prediction:
    """The option with the highest log-probability. A tie is no answer and counts as wrong.

    Args:
        logprobs: of the options in the order of the item, whatever place they were shown at.
    """
    if len(logprobs) != len(item.options):
        raise ValueError(f"{item.id} has {len(item.options)} options but {len(logprobs)} log-probabilities")
    if not all(math.isfinite(value) for value in logprobs):
        raise ValueError(f"{item.id}: log-probabilities must be finite, got {list(logprobs)}")
    best = [i for i, value in enumerate(logprobs) if value == max(logprobs)]
    tie = len(best) > 1
    return _choice(
        item,
        role,
        best[0] if not tie else None,
        condition=condition,
        rotation=rotation,
        method=Method.LOGPROB,
        status=PredictionStatus.AMBIGUOUS if tie else PredictionStatus.OK,
        detail=f"options {best} are equally probable" if tie else "",
        option_logprobs=tuple(logprobs),
    )


def predict_from_text(item: Item, role: Role, text: str, condition: Condition = Condition.FULL) -> Prediction:
    """The option that the model's own words name."""
    parsed = parse_choice(text, item.options)
    return _choice(
        item,
        role,
        parsed.option,
        condition=condition,
        method=Method.GENERATION,
        status=parsed.status,
        detail=parsed.detail,
        text=text,
    )


def predict_failure(
    item: Item,
    role: Role,
    status: PredictionStatus,
    detail: str,
    condition: Condition = Condition.FULL,
    method: Method = Method.LOGPROB,
    rotation: int = 0,
) -> Prediction:
    """An item that could not be asked: wrong, and counted under its status."""
    asked = {"condition": condition, "method": method, "rotation": rotation}
    return prediction(item, role, score=0, correct=False, status=status, detail=detail, **asked)


def _choice(item: Item, role: Role, predicted: int | None, **more: Any) -> Prediction:
    right = predicted is not None and predicted == item.gold
    return prediction(item, role, score=float(right), correct=right, predicted=predicted, **more)


def prediction(item: Item, role: Role, **more: Any) -> Prediction:
    """A prediction that carries what reports group `item` by."""
    return Prediction(
        item_id=item.id,
        benchmark=item.benchmark,
        video=item.video,
        duration_group=item.duration_group,
        category=item.category,
        granularity=item.granularity,
        defective=bool(item.defects),
        task=item.task,
        model=role,
        gold=item.gold,
        **more,
    )
