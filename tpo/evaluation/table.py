"""Every answer as a table that a person can filter: `items_csv(predictions)` opens in any spreadsheet.

One row per item, condition, rotation and method, with what each model said. Texts come from annotations and models, so
none of them may run as a formula.
"""

import csv
import io
from collections.abc import Sequence
from string import ascii_uppercase
from typing import get_args

from tpo.records import Prediction, Role, Task

_SAME_FOR_ALL = (
    "benchmark", "item_id", "video", "task", "duration_group", "category", "granularity", "defective", "condition",
    "rotation", "method", "gold",
)  # fmt: skip
_OF_A_MODEL = ("answer", "correct", "score", "status", "detail", "logprobs", "text")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def items_csv(predictions: Sequence[Prediction]) -> str:
    """CSV with a header. `change` is what became of an item from base to tuned: gained, lost or same.

    Options are letters in the order of the file. A text that a spreadsheet would take for a formula begins with `'`.
    """
    rows: dict[tuple[str | int, ...], dict[Role, Prediction]] = {}
    for one in predictions:
        asked = (one.benchmark, one.item_id, one.task, one.method, one.condition, one.rotation)
        rows.setdefault(asked, {})[one.model] = one
    roles = [role for role in get_args(Role) if any(role in models for models in rows.values())]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*_SAME_FOR_ALL, "change", *(f"{role}_{name}" for role in roles for name in _OF_A_MODEL)])
    for _, models in sorted(rows.items(), key=lambda row: row[0]):
        said = [cell for role in roles for cell in _said(models.get(role))]
        writer.writerow([_plain(cell) for cell in (*_about(next(iter(models.values()))), _change(models), *said)])
    return table.getvalue()


def _about(one: Prediction) -> list[str]:
    return [
        one.benchmark, one.item_id, one.video, one.task, one.duration_group, one.category, one.granularity or "",
        _yes(one.defective), one.condition, str(one.rotation), one.method, _letter(one.gold),
    ]  # fmt: skip


def _said(one: Prediction | None) -> list[str]:
    if one is None:
        return [""] * len(_OF_A_MODEL)
    logprobs = ", ".join(f"{_letter(number)} {value:.3f}" for number, value in enumerate(one.option_logprobs))
    return [_answer(one), _yes(one.correct), f"{one.score:.4g}", one.status, one.detail, logprobs, one.text]


def _answer(one: Prediction) -> str:
    if one.task is Task.SPAN and one.predicted_span_s is not None:
        return "{:g} to {:g} s".format(*one.predicted_span_s)
    return _letter(one.predicted)


def _change(models: dict[Role, Prediction]) -> str:
    if "base" not in models or "tuned" not in models:
        return ""
    was, now = models["base"].correct, models["tuned"].correct
    return "same" if was == now else ("gained" if now else "lost")


def _letter(option: int | None) -> str:
    return "" if option is None else ascii_uppercase[option]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _plain(text: str) -> str:
    """Also behind spaces and line breaks, which some programs strip before they look."""
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text
