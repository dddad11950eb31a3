"""What the gate said, as Markdown for Prefect's artifacts."""

import re

from tpo.markdown import escaped
from tpo.records import GateDecision


def as_markdown(decision: GateDecision) -> str:
    """Summary and rules; nothing in them means anything in Markdown."""
    rows = [
        f"| {rule.name} | {'yes' if rule.passed else '**no**'} | {escaped(rule.reason)} "
        f"| {_shown(rule.value)} | {_shown(rule.threshold)} |"
        for rule in decision.rules
    ]
    head = ["| rule | passed | why | value | threshold |", "|---|---|---|---|---|"]
    return "\n".join([escaped(decision.summary), "", f"Decision {decision.id}", "", *head, *rows])


def _shown(value: float | str | bool | None) -> str:
    """Short enough that the reasons stay in view beside it."""
    if isinstance(value, float):
        return escaped(f"{value:.4g}")
    text = "" if value is None else str(value)
    return escaped(text[:16] if re.fullmatch("[0-9a-f]{64}", text) else text)
