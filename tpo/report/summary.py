"""What a run of the pipeline did, on one screen.

    print(to_text(collect(Path())))     # ends `make demo`; also `tpo summary`; `tpo.report.page` makes a page of it

Everything is read from the stages' published folders and `reports/*.json`; a stage that has not run is shown as such.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from tpo.curation.mix import Lengths, MixReport
from tpo.errors import UserError
from tpo.records import GateDecision, PreferencePair, Record
from tpo.registry.promotion import Promotion
from tpo.registry.tracking import redact, tracking_uri
from tpo.report.scores import (
    Drop,
    NeedleControl,
    Score,
    benchmark_scores,
    champion_lines,
    control_drops,
    duration_scores,
    needle_controls,
    scores_beside,
    to_lines,
)
from tpo.store import MANIFEST, Manifest, read_manifest, read_stage
from tpo.validation.checkpoint import ValidationVerdict

STAGES = {
    "Videos": "data/catalog",
    "Captions": "data/captions",
    "Queries": "data/queries",
    "Answers": "data/answers",
    "Judging": "data/judged",
    "Pairs": "data/pairs",
    "Checks": "data/validation",
    "Training": "models/tuned",
    "Evaluation": "data/evaluation",
}
REPORT, DATA_DOCS = Path("reports/index.html"), Path("reports/data_docs/index.html")
_NUM_SAMPLES = 6
UNKNOWN = "of unknown granularity"
T = TypeVar("T")


class Stage(Record):
    """How many items came in and what became of them."""

    name: str
    item: str
    items_in: int
    items_out: int
    set_aside: dict[str, int]
    counts: dict[str, int]
    seconds: float
    cost: str = Field(description="what else it took, as far as its manifest says; empty = nothing else is known")


class Sample(Record):
    granularity: str
    question: str
    chosen: str
    rejected: str


class Place(Record):
    """Something to look at, and how to open it."""

    name: str
    where: str
    command: str


class Summary(Record):
    stages: tuple[Stage, ...]
    not_run: tuple[str, ...]
    pairs_by_granularity: dict[str, int]
    lengths: str
    shortfalls: tuple[str, ...]
    samples: tuple[Sample, ...]
    validation: ValidationVerdict | None
    benchmarks_checked: dict[str, str]
    scores: tuple[Score, ...]
    beside: tuple[Score, ...]
    durations: tuple[Score, ...]
    drops: tuple[Drop, ...]
    needle_controls: tuple[NeedleControl, ...]
    verdict: str
    confidence: float | None = Field(description="of all intervals of the evaluation, as it noted")
    unanswered: dict[str, int]
    decision: GateDecision | None
    promotion: Promotion | None
    places: tuple[Place, ...]
    mlflow_runs: dict[str, str] = Field(description="run ids by stage")
    flow_runs: dict[str, str] = Field(description="Prefect's, likewise")


def collect(root: Path) -> Summary:
    """Read what the stages below `root` published.

    Raises:
        UserError: no stage has run, or a file is not what its stage writes.
    """
    manifests = {name: read_manifest(root / at) for name, at in STAGES.items() if (root / at / MANIFEST).is_file()}
    if not manifests:
        raise UserError(f"No stage has run in {root.absolute()}. Run `make demo`, or `dvc repro` in the project.")
    pairs = read_stage(root / STAGES["Pairs"] / "pairs.jsonl", PreferencePair)
    mix = _read(root / STAGES["Pairs"] / "mix.json", MixReport)
    return Summary(
        stages=tuple(_stage(name, manifest) for name, manifest in manifests.items()),
        not_run=tuple(name for name in STAGES if name not in manifests),
        pairs_by_granularity=dict(sorted(Counter(pair.granularity or UNKNOWN for pair in pairs).items())),
        lengths=lengths_text(mix.lengths) if mix else "",
        shortfalls=tuple(mix.shortfalls) if mix else (),
        samples=_samples(pairs),
        validation=_read(root / "data/validation/verdict.json", ValidationVerdict),
        benchmarks_checked={
            what: manifests[stage].facts["benchmarks"]
            for what, stage in {"videos": "Videos", "questions": "Queries"}.items()
            if stage in manifests and "benchmarks" in manifests[stage].facts
        },
        decision=_read(root / "reports/gate.json", GateDecision),
        promotion=_read(root / "reports/registry.json", Promotion),
        places=_places(root),
        mlflow_runs=_noted("mlflow_run_id", manifests),
        flow_runs=_noted("flow_run_id", manifests),
        **_compared(root / "reports/evaluation.json"),
    )


def _noted(fact: str, manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """What stages noted under this name; a stage that ran outside of Prefect noted nothing."""
    return {name: str(found) for name, manifest in manifests.items() if (found := manifest.facts.get(fact))}


def _compared(path: Path) -> dict[str, Any]:
    """What the evaluation measured, as fields of `Summary`."""
    metrics = _read(path, dict[str, Any]) or {}
    try:
        return {
            "scores": benchmark_scores(metrics),
            "beside": scores_beside(metrics),
            "durations": duration_scores(metrics),
            "drops": control_drops(metrics),
            "needle_controls": needle_controls(metrics),
            "verdict": metrics.get("all", {}).get("verdict", ""),
            "confidence": metrics.get("intervals", {}).get("confidence"),
            "unanswered": metrics.get("incomplete", {}),
        }
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise UserError(
            f"{path} was edited, or is of another version of this project ({type(error).__name__}: {error}). "
            "`dvc repro -f evaluate` writes it again."
        ) from error


def _read(path: Path, kind: type[T]) -> T | None:
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is not what its stage writes: {error.errors()[0]['msg']}. Was it edited by hand? "
            "`dvc repro` writes it again."
        ) from error


def _stage(name: str, manifest: Manifest) -> Stage:
    return Stage(
        name=name,
        item=manifest.item,
        items_in=manifest.items_in,
        items_out=manifest.items_out,
        set_aside=manifest.set_aside,
        counts=manifest.counts,
        seconds=manifest.seconds,
        cost=_cost(manifest),
    )


def _cost(manifest: Manifest) -> str:
    """What a stage read, asked and paid; a stage that asked no model by a server has no usage."""
    parts = []
    if "hours" in manifest.facts:
        parts.append(f"{manifest.facts['hours']:g} hours of video")
    if usage := manifest.facts.get("usage"):
        parts.append(f"{usage['calls']:,} calls, {usage['remembered']:,} replies remembered")
        parts.append(f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out")
        parts.append(f"{usage['usd']:.2f} US dollars")
    if "steps" in manifest.facts:
        parts.append(f"{manifest.facts['steps']:,} steps; processes: {manifest.facts['processes']}")
    return "; ".join(parts)


def _samples(pairs: list[PreferencePair]) -> tuple[Sample, ...]:
    """A few pairs, spread evenly over the file, so that they come from different videos."""
    step = max(1, len(pairs) // _NUM_SAMPLES)
    return tuple(
        Sample(
            granularity=pair.granularity or UNKNOWN,
            question=pair.question,
            chosen=pair.chosen,
            rejected=pair.rejected,
        )
        for pair in pairs[::step][:_NUM_SAMPLES]
    )


def _places(root: Path) -> tuple[Place, ...]:
    uri = redact(tracking_uri())
    return (
        *(
            Place(name=name, where=str(page), command=f"python -m webbrowser {page}")
            for name, page in (("Report", REPORT), ("Data Docs", DATA_DOCS))
            if (root / page).is_file()
        ),
        Place(name="MLflow", where="http://127.0.0.1:5000", command=f"mlflow ui --backend-store-uri {uri}"),
        Place(name="Prefect", where="http://127.0.0.1:4200", command="prefect server start"),
    )


def counts(numbers: Mapping[str, int]) -> str:
    """{"too_short": 2} → "2 too short"."""
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in numbers.items() if number)


def to_text(summary: Summary) -> str:
    """A screenful for the terminal."""
    lines = []
    for stage in summary.stages:
        line = f"{stage.name:<12} {stage.items_out} of {stage.items_in} {stage.item}"
        if stage.name == "Pairs" and summary.pairs_by_granularity:
            line += f": {counts(summary.pairs_by_granularity)}"
        if any(stage.set_aside.values()):
            line += f"; set aside: {counts(stage.set_aside)}"
        lines.append(line)
    if summary.lengths:
        lines.append(f"{'Lengths':<12} {summary.lengths}")
    lines += [f"{'Short of':<12} {shortfall}" for shortfall in summary.shortfalls]
    lines += [f"{name:<12} has not run" for name in summary.not_run]
    lines.append(f"{'Validation':<12} {validation_text(summary.validation)}")
    if summary.benchmarks_checked:
        lines.append(f"{'Benchmarks':<12} {benchmarks_text(summary.benchmarks_checked)}")
    if scores := (*summary.scores, *summary.beside):  # spans alone, or needles, leave no verdict
        width = max(len(score.name) for score in scores)
        lines += ["", "Accuracy, base → tuned, with intervals", *to_lines(summary.scores, width)]
        lines += [*([f"  {summary.verdict}"] if summary.verdict else []), *to_lines(summary.beside, width)]
        lines += champion_lines(summary.scores)
    if any(summary.unanswered.values()):
        lines.append(f"  Not asked as planned: {counts(unanswered_videos(summary))}")
    lines += ["", summary.decision.summary if summary.decision else "The gate has not decided yet."]
    if summary.promotion:
        lines.append(promotion_text(summary.promotion))
    lines.append("")
    lines += [f"{place.name:<12} {place.where:<32} {place.command}" for place in summary.places]
    return "\n".join(lines)


def lengths_text(lengths: Lengths) -> str:
    """How much longer the chosen answers are than the rejected ones."""
    if not lengths.pairs:
        return "of the answers are not known"
    return (
        f"chosen answers {lengths.chosen_mean:.1f} tokens, rejected {lengths.rejected_mean:.1f}; "
        f"the chosen one is longer in {lengths.share_chosen_longer:.0%} of {lengths.pairs} pairs"
    )


def validation_text(verdict: ValidationVerdict | None) -> str:
    if verdict is None:
        return "has not run"
    state = "passed" if verdict.success else "failed"
    broken = {"not met": verdict.broken("critical"), "warned of": [*verdict.broken("warning"), *verdict.broken("info")]}
    told = [f"{what}: {', '.join(outcome.name for outcome in found)}" for what, found in broken.items() if found]
    return "; ".join([f"{state}, {len(verdict.outcomes)} expectations", *told])


def promotion_text(promotion: Promotion) -> str:
    """Who is champion, as the register stage left it."""
    if promotion.promoted:
        return f"Version {promotion.version} is champion, previous is {promotion.previous or 'none'}."
    return f"Version {promotion.version} is challenger, champion is {promotion.champion or 'none'}."


def benchmarks_text(checked: Mapping[str, str]) -> str:
    """{"videos": "checked"} → "training videos checked against the benchmarks'"."""
    return "training " + ", ".join(f"{what} {status}" for what, status in checked.items()) + " against the benchmarks'"


def unanswered_videos(summary: Summary) -> dict[str, int]:
    """{"num_videos_missing": 2} → {"videos missing": 2}"""
    return {name.removeprefix("num_"): number for name, number in summary.unanswered.items()}
