"""How the needle test came out: one cell for each depth of each length, and base against tuned, cell by cell.

    before = cells(cases, shown, base_predictions, confidence=0.95)
    after = cells(cases, shown, tuned_predictions, confidence=0.95)
    differences = difference_map(before, after, confidence=0.95)

A cell's interval says how sure its accuracy is with so few questions. It takes questions for independent, which those
in one haystack are not quite. All cells of a mode together ask about each needle many times, so that there the needles
are what varies.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tpo.evaluation.intervals import design_effect, share_interval, wilson
from tpo.evaluation.needle import Control, NeedleCase
from tpo.params import NeedleMode
from tpo.records import NOT_ASKED, NeedleShown, Prediction, Record, Role


class Cell(Record):
    """One model's answers at one depth of one length, or in one of the controls, which have no depth.

    `accuracy` is over all questions, its limits are Wilson's. Where the sampler missed the needle the model cannot know
    the answer: these questions are `not_sampled`, and `accuracy_sampled` leaves them out (none if none is left). What
    could not be asked, because a video is broken or the prompt is too long, is wrong, and `not_asked`.
    """

    mode: NeedleMode
    length: float | None
    depth: float | None
    control: Control | None
    model: Role
    items: tuple[str, ...]
    correct: tuple[str, ...]
    not_sampled: tuple[str, ...]
    not_asked: tuple[str, ...]
    accuracy: float
    low: float
    high: float
    accuracy_sampled: float | None


class CellDifference(Record):
    """Tuned minus base in one cell, with a paired interval, and which questions were gained and lost."""

    mode: NeedleMode
    length: float | None
    depth: float | None
    control: Control | None
    num_items: int
    difference: float
    low: float
    high: float
    gained: tuple[str, ...]
    lost: tuple[str, ...]


class NeedleMaps(Record):
    """Every model's cells, and those of base and tuned model compared."""

    cells: tuple[Cell, ...]
    differences: tuple[CellDifference, ...]


def needle_maps(
    cases: Sequence[NeedleCase], shown: Sequence[NeedleShown], predictions: Sequence[Prediction], *, confidence: float
) -> NeedleMaps:
    """The maps of all models that were asked; empty if there was no needle test."""
    if not cases:
        return NeedleMaps(cells=(), differences=())
    by_role: dict[Role, list[Prediction]] = {}
    for one in predictions:
        by_role.setdefault(one.model, []).append(one)
    maps = {role: cells(cases, shown, own, confidence=confidence) for role, own in by_role.items()}
    return NeedleMaps(
        cells=tuple(cell for own in maps.values() for cell in own),
        differences=tuple(difference_map(maps["base"], maps["tuned"], confidence=confidence)),
    )


def cells(
    cases: Sequence[NeedleCase], shown: Iterable[NeedleShown], predictions: Iterable[Prediction], *, confidence: float
) -> list[Cell]:
    """The cells of one model, in the order of the plan.

    A case without a `shown`, because its video is broken, counts as wrong, as its prediction does, and as sampled.

    Raises:
        ValueError: a case has no prediction, or predictions are of several models.
    """
    answers = {prediction.item_id: prediction for prediction in predictions}
    missed = {one.item_id for one in shown if not one.positions}
    groups: dict[tuple[NeedleMode, float | None, float | None, Control | None], list[str]] = {}
    for case in cases:
        if case.item.id not in answers:
            raise ValueError(f"the model was not asked {case.item.id}")
        groups.setdefault((case.mode, case.length, case.depth, case.control), []).append(case.item.id)
    models = {answers[case.item.id].model for case in cases}
    if len(models) > 1:
        raise ValueError(f"expected predictions of one model, got those of {', '.join(sorted(models))}")
    result = []
    for (mode, length, depth, control), items in groups.items():
        correct = tuple(item for item in items if answers[item].correct)
        not_sampled = tuple(item for item in items if item in missed) if control is None else ()
        share = wilson(len(correct) / len(items), len(items), confidence=confidence)
        sampled = [item for item in items if item not in not_sampled]
        result.append(
            Cell(
                mode=mode,
                length=length,
                depth=depth,
                control=control,
                model=answers[items[0]].model,
                items=tuple(items),
                correct=correct,
                not_sampled=not_sampled,
                not_asked=tuple(item for item in items if answers[item].status in NOT_ASKED),
                accuracy=share.value,
                low=share.low,
                high=share.high,
                accuracy_sampled=len(set(correct) & set(sampled)) / len(sampled) if sampled else None,
            )
        )
    return result


def difference_map(before: Sequence[Cell], after: Sequence[Cell], *, confidence: float) -> list[CellDifference]:
    """Cell by cell, `after` minus `before`.

    Raises:
        ValueError: the two do not have the same questions in the same cells; comparing them would not be paired.
    """
    if [(cell.mode, cell.items) for cell in before] != [(cell.mode, cell.items) for cell in after]:
        raise ValueError("the two models were not asked the same questions of the needle test")
    return [_difference(old, new, confidence) for old, new in zip(before, after, strict=True)]


def _difference(before: Cell, after: Cell, confidence: float) -> CellDifference:
    gained = tuple(item for item in after.correct if item not in before.correct)
    lost = tuple(item for item in before.correct if item not in after.correct)
    both = len(after.correct) - len(gained)
    low, high = _newcombe(both, len(gained), len(lost), len(after.items), confidence)
    return CellDifference(
        mode=after.mode,
        length=after.length,
        depth=after.depth,
        control=after.control,
        num_items=len(after.items),
        difference=(len(gained) - len(lost)) / len(after.items),
        low=low,
        high=high,
        gained=gained,
        lost=lost,
    )


def _newcombe(both: float, gained: float, lost: float, num_items: float, confidence: float) -> tuple[float, float]:
    """Limits of a difference of paired shares from the Wilson limits of each (Newcombe 1998, Stat. Med. 17:2635-50,
    method 10). Unlike a bootstrap it also has a width where a handful of questions happened to agree.
    """
    neither = num_items - both - gained - lost
    p, q = (both + gained) / num_items, (both + lost) / num_items
    own, other = (wilson((both + n) / num_items, num_items, confidence=confidence) for n in (gained, lost))
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    excess = both * neither - gained * lost
    correlation = (max(excess - num_items / 2, 0) if excess > 0 else excess) / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))

    return p - q - reach(p - own.low, other.high - q), p - q + reach(own.high - p, q - other.low)


def needle_metrics(cases: Sequence[NeedleCase], maps: NeedleMaps, *, confidence: float) -> dict[str, Any]:
    """Per mode over all cells: each model's accuracy and its controls', how often the sampler missed the needle or the
    tuned model could not be asked, and tuned minus base; shares from 0 to 1. Empty if there was no needle test.

    Each needle is asked about in every cell, so questions about one needle count for what they are worth together
    (`design_effect`).
    """
    needles = {case.item.id: case.needle.item.id for case in cases}
    result: dict[str, Any] = {}
    for mode in dict.fromkeys(cell.mode for cell in maps.cells):
        own = [cell for cell in maps.cells if cell.mode == mode]
        of_tuned = [cell for cell in own if cell.model == "tuned" and cell.control is None]
        right: dict[Role, dict[str, dict[str, float]]] = {}
        for cell in own:
            what = "accuracy" if cell.control is None else cell.control.value
            scores = {item: float(item in cell.correct) for item in cell.items}
            right.setdefault(cell.model, {}).setdefault(what, {}).update(scores)
        place: dict[str, Any] = {
            role: {what: _share(scores, needles, confidence) for what, scores in parts.items()}
            for role, parts in right.items()
        }
        place["num_not_sampled"] = sum(len(cell.not_sampled) for cell in of_tuned)
        place["num_not_asked"] = sum(len(cell.not_asked) for cell in of_tuned)
        place["difference"] = _paired(right["base"]["accuracy"], right["tuned"]["accuracy"], needles, confidence)
        result[mode] = place
    return result


def _share(right: Mapping[str, float], needles: Mapping[str, str], confidence: float) -> dict[str, float]:
    share = share_interval(np.array(list(right.values())), _clusters(right, needles), confidence=confidence)
    return {**share.model_dump(), "num_items": len(right)}


def _paired(
    before: Mapping[str, float], after: Mapping[str, float], needles: Mapping[str, str], confidence: float
) -> dict[str, float]:
    """Newcombe's limits at the effective number of questions; of one needle, all that is possible."""
    change = np.array([after[item] - right for item, right in before.items()])
    both = sum(after[item] * right for item, right in before.items())
    effect = design_effect(change, _clusters(before, needles))
    low, high = -1.0, 1.0
    if effect is not None:
        gained, lost = float((change > 0).sum()), float((change < 0).sum())
        low, high = _newcombe(both / effect, gained / effect, lost / effect, len(change) / effect, confidence)
    return {"value": float(change.mean()), "low": low, "high": high, "num_items": len(change)}


def _clusters(items: Iterable[str], needles: Mapping[str, str]) -> np.ndarray:
    """The number of each item's needle, int64 [n]."""
    return np.unique([needles[item] for item in items], return_inverse=True)[1]


def map_csv(cells: Iterable[Cell]) -> str:
    """The cells with a depth, of any models, for a heat map by `dvc plots`. `length` is in frames or in minutes."""
    columns = ("mode", "length", "depth", "model", "accuracy", "low", "high", "n", "not_sampled")
    rows = [
        (c.mode, c.length, c.depth, c.model, *_rounded(c.accuracy, c.low, c.high), len(c.items), len(c.not_sampled))
        for c in cells
        if c.control is None
    ]
    return _csv(columns, rows)


def difference_csv(differences: Iterable[CellDifference]) -> str:
    """The same for tuned minus base."""
    columns = ("mode", "length", "depth", "difference", "low", "high", "n", "gained", "lost")
    rows = [
        (d.mode, d.length, d.depth, *_rounded(d.difference, d.low, d.high), d.num_items, len(d.gained), len(d.lost))
        for d in differences
        if d.control is None
    ]
    return _csv(columns, rows)


def _rounded(*values: float) -> list[float]:
    return [round(value, 4) for value in values]


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
