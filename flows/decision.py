"""What the gate said, as Markdown for Prefect's artifacts."""

from tpo.markdown import escaped
from tpo.records import GateDecision


def as_markdown(decision: GateDecision) -> str:
    """Summary and rules; nothing in them means anything in Markdown."""
    rows = [
        f"| {rule.name} | {'yes' if rule.passed else '**no**'} | {_shown(rule.value)} | {_shown(rule.threshold)} "
        f"| {escaped(rule.reason)} |"
        for rule in decision.rules
    ]
    head = ["| rule | passed | value | threshold | why |", "|---|---|---|---|---|"]
    return "\n".join([escaped(decision.summary), "", f"Decision {decision.id}", "", *head, *rows])


def _shown(value: float | str | bool | None) -> str:
    return escaped("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value))
