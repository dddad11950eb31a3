"""An analysis as JSON for the gate, the report and MLflow, and small files that `dvc metrics` and `plots` read."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tpo.evaluation.analysis import Analysis
from tpo.evaluation.comparison import Comparison, ModelScore
from tpo.evaluation.contrasts import Contrast
from tpo.evaluation.intervals import Interval
from tpo.evaluation.verdict import verdict
from tpo.records import Condition, Task


def metrics(analysis: Analysis, num_bad_rows: int = 0, num_without_subtitles: int = 0) -> dict[str, Any]:
    """All numbers of a run as nested JSON. Shares and differences of shares, 1 = 100 %; MLflow's names take few signs.

    `{"all": {…}, "mlvu": {…}, "champion": {"all": {…}}, "status": {role: {status: n}}, "incomplete": {…},
    "intervals": {"confidence": 0.95}}`; a benchmark has the primary comparison's numbers and `verdict`, the breakdowns
    `duration_group`, `category` and `granularity` by group, and beside them, where asked: `without_defects`,
    `generation`, `free_answers`, `spans`, and `conditions` by control, `grounding`, `marks` (of free answers) and
    `compatible` by role.

    Args:
        num_bad_rows: rows of the benchmarks that no question could be made of, as it could be of those published.
        num_without_subtitles: items that were asked without their subtitles, which were of no use.
    """
    beside = {
        "without_defects": analysis.without_defects,
        "generation": analysis.generation,
        "free_answers": analysis.free_answers,
        "spans": analysis.spans,
    }
    result = _compared(analysis.primary, analysis.controls, beside)
    for name, by_role in analysis.elsewhere.items():
        for role, by_benchmark in by_role.items():
            for benchmark, numbers in by_benchmark.items():
                result.setdefault(benchmark, {}).setdefault(name, {})[role] = numbers
    if analysis.champion:
        result["champion"] = _compared(analysis.champion, analysis.champion_controls, analysis.champion_beside)
    result["status"] = {
        role: {status.value: number for status, number in counts.items()} for role, counts in analysis.status.items()
    }
    result["incomplete"] = {
        "num_items": analysis.num_unanswered,
        "num_videos_missing": analysis.num_videos_missing,
        "num_videos_broken": analysis.num_videos_broken,
        "num_bad_rows": num_bad_rows,
        "num_without_subtitles": num_without_subtitles,
    }
    result["intervals"] = {"confidence": analysis.confidence}
    return result


def headline(analysis: Analysis) -> dict[str, dict[str, float]]:
    """The few numbers that `dvc metrics show` has room for: per benchmark the accuracies and the gain.

    No p-value: DVC rounds to five digits behind the point, and shows most of them as 0.
    """
    return {
        comparison.benchmark: {
            "base": round(comparison.before.accuracy.value, 4),
            "tuned": round(comparison.after.accuracy.value, 4),
            "gain": round(comparison.difference.value, 4),
            "gain_low": round(comparison.difference.low, 4),
            "gain_high": round(comparison.difference.high, 4),
        }
        for comparison in analysis.primary
        if comparison.group_by == "overall"
    }


def accuracy_csv(analysis: Analysis) -> str:
    """Accuracy of every model in every benchmark as CSV, for `dvc plots`. Shares, 1 = 100 %."""
    found: dict[tuple[str, str], Interval] = {}
    for comparison in (*analysis.primary, *analysis.champion):
        if comparison.group_by == "overall":
            for role, model in zip(comparison.roles, (comparison.before, comparison.after), strict=True):
                found[comparison.benchmark, role] = model.accuracy
    rows = [f"{name},{role},{one.value:.4f},{one.low:.4f},{one.high:.4f}" for (name, role), one in found.items()]
    return "\n".join(["benchmark,model,accuracy,low,high", *rows]) + "\n"


def metric_name(text: str) -> str:
    """A benchmark's own name for a group, in the signs that MLflow takes: "<5min" → "under 5min"."""
    text = text.replace("<", "under ").replace(">", "over ")
    return re.sub(r"[^\w \-]", lambda sign: f"_{ord(sign[0]):x}_", text) or "none"


def _compared(
    comparisons: Sequence[Comparison], controls: Sequence[Contrast], beside: Mapping[str, Sequence[Comparison]]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for comparison in comparisons:
        place = result.setdefault(comparison.benchmark, {})
        if comparison.group_by == "overall":
            place.update(_comparison(comparison), verdict=verdict(comparison, controls))
        else:
            groups = place.setdefault(comparison.group_by, {})
            groups[metric_name(comparison.group)] = _difference(comparison)
    for control in controls:
        conditions = result.setdefault(control.benchmark, {}).setdefault("conditions", {})
        conditions[control.condition.value] = _contrast(control)
    for name, others in beside.items():
        for comparison in others:
            if comparison.group_by == "overall":
                result.setdefault(comparison.benchmark, {})[name] = _comparison(comparison)
    return result


def _comparison(comparison: Comparison) -> dict[str, Any]:
    numbers = _difference(comparison)
    for role, model in zip(comparison.roles, (comparison.before, comparison.after), strict=True):
        numbers |= _answering(role, model)
    return numbers | _flat("parse_rate_difference", comparison.parse_rate_difference)


def _difference(comparison: Comparison) -> dict[str, Any]:
    first, second = comparison.roles
    score = "accuracy" if comparison.task is Task.CHOICE else "score"  # a mean IoU is no share of right answers
    numbers: dict[str, Any] = {
        "num_items": comparison.num_items,
        "num_videos": comparison.num_videos,
        **_flat(f"{score}_{first}", comparison.before.accuracy),
        **_flat(f"{score}_{second}", comparison.after.accuracy),
        **_flat("difference", comparison.difference),
        "mcnemar_p": comparison.mcnemar_p,
        "holm_p": comparison.holm_p,
        "num_gained": len(comparison.gained),
        "num_lost": len(comparison.lost),
    }
    if comparison.minimum_detectable_gain is not None:
        numbers["minimum_detectable_gain"] = comparison.minimum_detectable_gain
    return numbers


def _answering(role: str, model: ModelScore) -> dict[str, Any]:
    numbers: dict[str, Any] = _flat(f"parse_rate_{role}", model.parse_rate)
    if model.answered is not None:
        numbers |= _flat(f"answered_{role}", model.answered)
    return numbers | {f"status_{role}": {status.value: number for status, number in model.status.items() if number}}


def _contrast(control: Contrast) -> dict[str, Any]:
    first, second = control.roles
    drop = "temporal_gain" if control.condition is Condition.SHUFFLED else "drop"
    numbers: dict[str, Any] = {
        "num_items": control.num_items,
        "num_videos": control.num_videos,
        **_flat(f"accuracy_{first}", control.before),
        **_flat(f"accuracy_{second}", control.after),
        **_flat("difference", control.difference),
        **_flat(f"{drop}_{first}", control.before_drop),
        **_flat(f"{drop}_{second}", control.after_drop),
        **_flat(f"{drop}_difference", control.drop_difference),
    }
    if control.before_strict is not None and control.after_strict is not None:
        numbers |= _flat(f"strict_{first}", control.before_strict) | _flat(f"strict_{second}", control.after_strict)
    return numbers


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
