"""The run on one page: `reports/index.html`, which opens from disk, loads nothing and runs nothing.

    write_html(Path())

All text in it is escaped, kept apart from text that runs the other way, and cut where it is long.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from markupsafe import Markup

from tpo.records import GateRule
from tpo.registry.tracking import redact, tracking_uri
from tpo.report.figures import accuracy_figure, data_figures, needle_figures, training_figures
from tpo.report.scores import Estimate, percent, points
from tpo.report.summary import (
    REPORT,
    Summary,
    benchmarks_text,
    collect,
    counts,
    promotion_text,
    unanswered_videos,
    validation_text,
)
from tpo.store import write_atomic

_MOST_CHARACTERS = 400
_MLFLOW_UI, _PREFECT_UI = "http://127.0.0.1:5000", "http://127.0.0.1:4200"  # where the two serve by default
_LONG_ID = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{16,}\b")
_COUNTED = {"measured": "videos", "complete": "items"}  # rules whose value is no share


def write_html(root: Path, flow_runs: Mapping[str, str] | None = None) -> None:
    """Write the page of the project in `root`. `flow_runs`: ids of Prefect's runs that no stage has noted, by what ran.

    Raises:
        UserError: no stage has run, or a file is not what its stage writes.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"counts": counts, "cut": cut}
    environment.filters |= {name: _unbroken(form) for name, form in {"percent": percent, "points": points}.items()}
    summary = collect(root)
    page = environment.get_template("index.html.jinja").render(
        summary=summary,
        style=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        tone=_tone(summary),
        verdict=_headline(summary.verdict).partition(". "),
        outcome=_outcome(summary),
        validation=validation_text(summary.validation),
        promotion=promotion_text(summary.promotion) if summary.promotion else "",
        benchmarks=benchmarks_text(summary.benchmarks_checked) if summary.benchmarks_checked else "",
        unanswered=unanswered_videos(summary),
        data=data_figures(root),
        training=training_figures(root),
        accuracy=[
            figure
            for title, scores in (("Accuracy", summary.scores), ("Accuracy by duration", summary.durations))
            if (figure := accuracy_figure(title, scores))
        ],
        needles=needle_figures(root),
        in_unit=in_unit,
        mlflow=_mlflow_links(summary.mlflow_runs),
        prefect=_prefect_links(summary.flow_runs | dict(flow_runs or {})),
    )
    write_atomic(root / REPORT, page)


def _tone(summary: Summary) -> str:
    if summary.decision is None:
        return ""
    return "good" if summary.decision.promote else "bad"


def _headline(verdict: str) -> str:
    """ "not shown: +8.3 points …" → "Not shown to be better than the base: +8.3 points …" """
    outcome, colon, numbers = verdict.partition(":")
    told = outcome.replace("not shown", "not shown to be better")
    return f"{told[:1].upper()}{told[1:]} than the base{colon}{numbers}" if verdict else ""


def _outcome(summary: Summary) -> str:
    if summary.promotion and summary.promotion.promoted:
        return "✓ Promoted."
    return "✓ May be promoted." if summary.decision and summary.decision.promote else "✗ Not promoted."


def _mlflow_links(runs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Run id and address in MLflow's pages, by stage: on the server, or where `mlflow ui` would serve."""
    uri = redact(tracking_uri())
    server = uri.rstrip("/") if uri.startswith(("http://", "https://")) else _MLFLOW_UI
    return {stage: (run_id, f"{server}/#/runs/{run_id}") for stage, run_id in runs.items()}


def _unbroken(form: Callable[[Estimate], str]) -> Callable[[Estimate], str]:
    """The same text, of which no line ends within an interval or before its unit."""
    return lambda estimate: form(estimate).replace(", ", ",\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")


def _prefect_links(runs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The same for Prefect's runs, by what ran: on the server, or where `prefect server start` would serve."""
    server = redact(os.environ.get("PREFECT_API_URL", "")).rstrip("/").removesuffix("/api") or _PREFECT_UI
    return {what: (run_id, f"{server}/runs/flow-run/{run_id}") for what, run_id in runs.items()}


def cut(text: str) -> str:
    """A long text's beginning, and that there is more."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    whole_words = text[:_MOST_CHARACTERS].rpartition(" ")[0] or text[:_MOST_CHARACTERS]
    return f"{whole_words} … (cut; {len(text):,} characters in all)"


def in_unit(rule: GateRule, value: float | str | bool | None) -> str:
    """A rule's value or limit as people write it. Numbers are shares or differences of shares, but for a few counts."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _LONG_ID.sub(r"\1…", value)
    if unit := _COUNTED.get(rule.name):
        return f"{value:g} {unit}"
    if rule.name in ("decontaminated", "confidence"):
        return f"{100 * value:.1f} %"
    return f"{round(100 * value, 1) + 0:+.1f} points"  # + 0: no "-0.0"
