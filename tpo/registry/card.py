"""The model card of a registered version, written from facts alone: what a stage did not leave behind is not in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tpo.markdown import escaped
from tpo.registry.package import DataInput

NOT_STATED = "not stated"


def model_card(
    *,
    name: str,
    base: str,
    base_revision: str | None,
    is_adapter: bool,
    candidate_id: str,
    measured_with: Mapping[str, Any],
    metrics: Mapping[str, Any],
    counts: Mapping[str, int],
    checks: Mapping[str, str],
    inputs: Sequence[DataInput],
    licences: Mapping[str, str],
    origin: Mapping[str, str],
) -> str:
    """Markdown. Whatever comes from files or settings is escaped.

    Args:
        metrics: `reports/evaluation.json` (`tpo.evaluation.metrics.metrics`).
        counts: of the training data, such as {"training pairs": 372}.
        checks: what was checked and with which outcome, such as {"validation": "passed"}.
        licences: of the inputs, see `licence_of`.
        origin: git commit, hash of dvc.lock and the like.
    """
    kind = "An adapter on" if is_adapter else "Full weights, tuned from"
    revision = f" at revision {escaped(base_revision)}" if base_revision else ""
    settings = {key: value for key, value in measured_with.items() if key != "model"} | measured_with["model"]
    return "\n".join(
        [
            f"# {escaped(name)}",
            "",
            f"{kind} {escaped(base)}{revision}, by Temporal Preference Optimization (arXiv 2501.13919): DPO and SFT on "
            "pairs of the model's own answers, with and without the evidence in view. It answers questions about a "
            "video.",
            "",
            f"Content id {escaped(candidate_id)}.",
            *_section("Data", [f"{number} {escaped(what)}" for what, number in counts.items()]),
            *[f"- {escaped(what)}: {escaped(outcome)}" for what, outcome in checks.items()],
            *[f"- {escaped(one.path)} ({one.context}), DVC {escaped(one.dvc_hash)}" for one in inputs],
            *_section("Results", []),
            f"Base and tuned on the same items; intervals{_confidence(metrics)} of differences resample whole videos.",
            "",
            *_results(metrics),
            *_section("Measured with", [f"{escaped(key)}: {escaped(str(value))}" for key, value in settings.items()]),
            *_section("Limits", _limits(metrics)),
            *_section("Licences", [f"{escaped(what)}: {escaped(licence)}" for what, licence in licences.items()]),
            *_section("Made from", [f"{escaped(what)}: {escaped(value)}" for what, value in origin.items()]),
            "",
        ]
    )


def licence_of(folder: Path) -> str:
    """What a folder says of its licence: in the head of its README.md, or in the first line of its LICENSE."""
    readme, licence = folder / "README.md", folder / "LICENSE"
    if readme.is_file():
        head = readme.read_text(encoding="utf-8").split("---\n")
        try:
            facts = yaml.safe_load(head[1]) if head[0] == "" and len(head) > 2 else None
        except yaml.YAMLError:
            facts = None
        if isinstance(facts, dict) and facts.get("license"):
            return str(facts["license"])
    if licence.is_file():
        return next((line.strip() for line in licence.open(encoding="utf-8") if line.strip()), NOT_STATED)
    return NOT_STATED


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {line}" for line in lines)]


def _results(metrics: Mapping[str, Any]) -> list[str]:
    """A table of what was decided on and its controls, and the verdict in words."""
    rows = ["| on | items | base % | tuned % | difference, points |", "|---|---|---|---|---|"]
    for name, own in metrics.items():
        if not isinstance(own, Mapping) or "accuracy_tuned" not in own:
            continue
        rows.append(_row(name, own))
        if name == "all":
            controls = own.get("conditions", {})
            rows += [_row(f"all, {control.replace('_', ' ')}", numbers) for control, numbers in controls.items()]
    verdict = metrics.get("all", {}).get("verdict", "")
    return [*rows, "", escaped(verdict)] if verdict else rows


def _confidence(metrics: Mapping[str, Any]) -> str:
    return f" ({100 * metrics['intervals']['confidence']:g} %)" if "intervals" in metrics else ""


def _row(name: str, numbers: Mapping[str, Any]) -> str:
    def percent(what: str, sign: str = "") -> str:
        value, low, high = (100 * numbers[f"{what}{end}"] for end in ("", "_low", "_high"))
        return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"

    models = f"{percent('accuracy_base')} | {percent('accuracy_tuned')}"
    return f"| {escaped(name)} | {numbers['num_items']} | {models} | {percent('difference', '+')} |"


def _limits(metrics: Mapping[str, Any]) -> list[str]:
    everything = metrics.get("all", {})
    lost = metrics.get("incomplete", {})
    limits = [
        "Measured on the benchmarks above, at this number of frames, with these prompts; elsewhere it is not known.",
        "Its pairs are the base model's own answers, so it does not know what the base does not.",
        f"{everything.get('num_items', 0)} items about {everything.get('num_videos', 0)} videos.",
    ]
    if "minimum_detectable_gain" in everything:
        seen = 100 * everything["minimum_detectable_gain"]
        limits.append(f"A difference of less than {seen:.1f} points could not have been told from none here.")
    if unanswered := lost.get("num_items", 0) + lost.get("num_bad_rows", 0):
        limits.append(f"{unanswered} planned items could not be asked.")
    if silent := lost.get("num_without_subtitles", 0):
        limits.append(f"{silent} items were asked without their subtitles, which were of no use.")
    if "text_only" not in everything.get("conditions", {}):
        limits.append("Whether a gain needs the video was not asked.")
    return limits
