"""Base against tuned as rows of a table, out of `reports/evaluation.json` (`tpo.evaluation.metrics`)."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tpo.records import Record


class Estimate(Record):
    """A share or a difference of shares (1 = 100 %) with its interval."""

    value: float
    low: float
    high: float


class Score(Record):
    """Two models on the same questions."""

    name: str
    asked: str = Field(description="how many questions, about how many videos")
    base: Estimate
    tuned: Estimate
    difference: Estimate


class Drop(Record):
    """How much accuracy is lost when a model is shown less than everything."""

    name: str
    asked: str
    base: Estimate
    tuned: Estimate
    difference: Estimate


def benchmark_scores(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """What is decided on: all benchmarks together, then each, by log-probability with everything to see."""
    return tuple(_score(name, numbers) for name, numbers in metrics.items() if "accuracy_tuned" in numbers)


def scores_beside(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """The same questions asked in other ways, over all benchmarks, and the needle test."""
    everything = metrics.get("all", {})
    named = {"as written": everything.get("generation"), "without defects": everything.get("without_defects")}
    named |= {name.replace("_", " "): numbers for name, numbers in everything.get("conditions", {}).items()}
    rows = [_score(name, numbers) for name, numbers in named.items() if numbers and _says_more(numbers, everything)]
    return (*rows, *(_needle(mode, numbers) for mode, numbers in metrics.get("needle", {}).items()))


def duration_scores(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """Each benchmark's groups of video durations, as the benchmark names them."""
    return tuple(
        _score(f"{name}, {group}", numbers)
        for name, found in metrics.items()
        for group, numbers in found.get("duration_group", {}).items()
        if "accuracy_tuned" in numbers
    )


def champion_score(metrics: Mapping[str, Any]) -> Score | None:
    """The champion, in `base`'s place, against the tuned model over all benchmarks; none = it was not asked."""
    numbers = metrics.get("champion", {}).get("all", {})
    return _score("champion", numbers, before="champion") if "accuracy_tuned" in numbers else None


def control_drops(metrics: Mapping[str, Any]) -> tuple[Drop, ...]:
    """What base and tuned model lose over all benchmarks when the video, its frames' order or most frames are gone."""
    return tuple(
        Drop(
            name=condition.replace("_", " "),
            asked=_asked(numbers),
            base=_estimate(numbers, f"{what}_base"),
            tuned=_estimate(numbers, f"{what}_tuned"),
            difference=_estimate(numbers, f"{what}_difference"),
        )
        for condition, numbers in metrics.get("all", {}).get("conditions", {}).items()
        for what in ("drop", "temporal_gain")
        if f"{what}_tuned" in numbers
    )


def _says_more(numbers: Mapping[str, Any], everything: Mapping[str, Any]) -> bool:
    """Where no item is defective, the scores without defective items are the same."""
    return any(numbers[name] != everything[name] for name in ("num_items", "accuracy_base", "accuracy_tuned"))


def _score(name: str, numbers: Mapping[str, Any], before: str = "base") -> Score:
    return Score(
        name=name,
        asked=_asked(numbers),
        base=_estimate(numbers, f"accuracy_{before}"),
        tuned=_estimate(numbers, "accuracy_tuned"),
        difference=_estimate(numbers, "difference"),
    )


def _asked(numbers: Mapping[str, Any]) -> str:
    return f"{numbers['num_items']} items, {numbers['num_videos']} videos"


def _estimate(numbers: Mapping[str, Any], what: str) -> Estimate:
    return Estimate(value=numbers[what], low=numbers[f"{what}_low"], high=numbers[f"{what}_high"])


def _needle(mode: str, numbers: Mapping[str, Any]) -> Score:
    def estimate(part: Mapping[str, float]) -> Estimate:
        return Estimate(value=part["value"], low=part["low"], high=part["high"])

    apart = {"not sampled": numbers["num_not_sampled"], "not asked": numbers["num_not_asked"]}
    return Score(
        name=f"needle {mode.replace('_', ' ')}",
        asked=", ".join(
            [f"{numbers['difference']['num_items']} items", *(f"{n} {what}" for what, n in apart.items() if n)]
        ),
        base=estimate(numbers["base"]["accuracy"]),
        tuned=estimate(numbers["tuned"]["accuracy"]),
        difference=estimate(numbers["difference"]),
    )


def percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def to_lines(scores: tuple[Score, ...], width: int) -> list[str]:
    """One line a row, for the terminal."""
    return [
        f"  {score.name:<{width}}  {percent(score.base)} → {percent(score.tuned)}, difference "
        f"{points(score.difference)}; {score.asked}"
        for score in scores
    ]
