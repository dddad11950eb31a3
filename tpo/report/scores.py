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
    """Base and tuned model, and the champion where it is a third one and was asked, on the same questions."""

    name: str
    asked: str = Field(description="how many questions, about how many videos")
    base: Estimate
    tuned: Estimate
    difference: Estimate = Field(description="tuned minus base")
    champion: Estimate | None = None
    over_champion: Estimate | None = Field(None, description="tuned minus champion")


class Drop(Record):
    """How much accuracy is lost when a model is shown less than everything."""

    name: str
    asked: str
    base: Estimate
    tuned: Estimate
    difference: Estimate


class NeedleControl(Record):
    """The needle test's questions with the needle absent, or alone, by model."""

    mode: str
    name: str
    num_items: int
    shares: dict[str, Estimate]


def needle_controls(metrics: Mapping[str, Any]) -> tuple[NeedleControl, ...]:
    """What is answered without the needle is language; what is not answered with the needle alone cannot be read."""
    return tuple(
        NeedleControl(
            mode=mode.replace("_", " "),
            name=control.replace("_", " "),
            num_items=numbers["base"][control]["num_items"],
            shares={role: _share(numbers[role][control]) for role in ("base", "tuned", "champion") if role in numbers},
        )
        for mode, numbers in metrics.get("needle", {}).items()
        for control in ("needle_absent", "needle_alone")
        if control in numbers["base"]
    )


def benchmark_scores(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """What is decided on: all benchmarks together, then each, by log-probability with everything to see."""
    champion = metrics.get("champion", {})
    return tuple(
        _score(name, numbers, champion.get(name)) for name, numbers in metrics.items() if "accuracy_tuned" in numbers
    )


def scores_beside(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """The same questions asked in other ways, over all benchmarks, and the needle test."""
    everything, champion = _ways(metrics), _ways(metrics.get("champion", {}))
    rows = [
        _score(name, numbers, champion.get(name))
        for name, numbers in everything.items()
        if numbers and _says_more(numbers, metrics["all"])
    ]
    return (*rows, *(_needle(mode, numbers) for mode, numbers in metrics.get("needle", {}).items()))


def _ways(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked of all benchmarks together, by how it was asked."""
    everything = metrics.get("all", {})
    named = {"as written": everything.get("generation"), "without defects": everything.get("without_defects")}
    return named | {name.replace("_", " "): numbers for name, numbers in everything.get("conditions", {}).items()}


def duration_scores(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """Each benchmark's groups of video durations, as the benchmark names them."""
    champion = metrics.get("champion", {})
    return tuple(
        _score(f"{name}, {group}", numbers, champion.get(name, {}).get("duration_group", {}).get(group))
        for name, found in metrics.items()
        for group, numbers in found.get("duration_group", {}).items()
        if "accuracy_tuned" in numbers
    )


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


def _score(name: str, numbers: Mapping[str, Any], champion: Mapping[str, Any] | None = None) -> Score:
    """`champion`: its numbers against the tuned model's on the same questions."""
    return Score(
        name=name,
        asked=_asked(numbers),
        base=_estimate(numbers, "accuracy_base"),
        tuned=_estimate(numbers, "accuracy_tuned"),
        difference=_estimate(numbers, "difference"),
        champion=_estimate(champion, "accuracy_champion") if champion else None,
        over_champion=_estimate(champion, "difference") if champion else None,
    )


def _asked(numbers: Mapping[str, Any]) -> str:
    return f"{numbers['num_items']} items, {numbers['num_videos']} videos"


def _estimate(numbers: Mapping[str, Any], what: str) -> Estimate:
    return Estimate(value=numbers[what], low=numbers[f"{what}_low"], high=numbers[f"{what}_high"])


def _share(part: Mapping[str, float]) -> Estimate:
    return Estimate(value=part["value"], low=part["low"], high=part["high"])


def _needle(mode: str, numbers: Mapping[str, Any]) -> Score:
    apart = {"not sampled": numbers["num_not_sampled"], "not asked": numbers["num_not_asked"]}
    return Score(
        name=f"needle {mode.replace('_', ' ')}",
        asked=", ".join(
            [f"{numbers['difference']['num_items']} items", *(f"{n} {what}" for what, n in apart.items() if n)]
        ),
        base=_share(numbers["base"]["accuracy"]),
        tuned=_share(numbers["tuned"]["accuracy"]),
        difference=_share(numbers["difference"]),
        champion=_share(numbers["champion"]["accuracy"]) if "champion" in numbers else None,
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


def champion_lines(scores: tuple[Score, ...]) -> list[str]:
    """The champion over all benchmarks, where another model than the tuned one is."""
    return [
        f"  Champion {percent(score.champion)}, tuned minus champion {points(score.over_champion)}"
        for score in scores[:1]
        if score.champion and score.over_champion
    ]
