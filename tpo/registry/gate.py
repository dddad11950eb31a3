"""The promotion gate: may this model become champion? Fails closed: what is not shown is refused.

    evidence = gather(metrics, validation_passed=True, base_id=base.id, candidate_id=tuned.id)
    decision = decide(evidence, min_gain=0.0)

Pure: evidence in, decision out. `tpo.registry.package.promote` acts on it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tpo.records import GateDecision, GateRule, Record

MAX_P = 0.05  # the interval resamples videos and is too narrow where there are few; the exact test is right there too
MIN_VIDEOS = 2  # the interval resamples videos; of a single video it has no width and would "prove" anything


class Gain(Record):
    """Tuned minus base on the same items, as a fraction of items, with an interval clustered by video."""

    difference: float
    low: float
    high: float
    p: float = Field(ge=0, le=1, description="exact McNemar test of gained against lost items, two-sided")
    num_items: int = Field(ge=0)
    num_videos: int = Field(ge=0)


class Evidence(Record):
    """What is known about a candidate. `None` means not known, and refuses."""

    gain: Gain | None
    validation_passed: bool | None = Field(description="the verdict on the training pairs")
    num_unanswered: int | None = Field(
        ge=0, description="planned items without an answer: bad row, video missing or broken, prompt too long"
    )
    base_id: str | None = Field(description="content id of the base model's weights")
    candidate_id: str | None
    why: str = Field(description="what was compared on what, or why something is not known")


def gather(
    metrics: Mapping[str, Any] | None,
    *,
    validation_passed: bool | None,
    base_id: str | None,
    candidate_id: str | None,
) -> Evidence:
    """Evidence from `reports/evaluation.json` (`tpo.evaluation.metrics.metrics`); what is not in it is not known."""
    gain = unanswered = None
    why = "base and tuned on all benchmarks' items, interval resampled by video"
    try:
        overall, incomplete = ((metrics or {})[key] for key in ("all", "incomplete"))
        gain = Gain(
            difference=overall["difference"],
            low=overall["difference_low"],
            high=overall["difference_high"],
            p=overall["holm_p"],
            num_items=overall["num_items"],
            num_videos=overall["num_videos"],
        )
        unanswered = incomplete["num_bad_rows"] + incomplete["num_items"]
    except KeyError as error:
        why = f"the evaluation's metrics lack {error}"
    return Evidence(
        gain=gain,
        validation_passed=validation_passed,
        num_unanswered=unanswered,
        base_id=base_id,
        candidate_id=candidate_id,
        why=why,
    )


def decide(evidence: Evidence, min_gain: float) -> GateDecision:
    """Promote only if every rule passes.

    Args:
        evidence: what was measured.
        min_gain: the interval's lower bound must lie strictly above this; 0 = better than base, so a tie refuses.
    """
    rules = (
        _measured(evidence),
        _valid(evidence),
        _complete(evidence),
        _differs(evidence),
        _better(evidence, min_gain),
    )
    failed = [rule for rule in rules if not rule.passed]
    if failed:
        reasons = "; ".join(rule.reason for rule in failed)
        return GateDecision(promote=False, rules=rules, summary=f"Refused: {reasons}.")
    assert evidence.gain is not None
    return GateDecision(promote=True, rules=rules, summary=f"Promoted: {_describe(evidence.gain)}.")


def _describe(gain: Gain) -> str:
    return (
        f"tuned minus base is {100 * gain.difference:+.1f} points, interval "
        f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}], p {gain.p:.2g}, on {gain.num_items} items of "
        f"{gain.num_videos} videos"
    )


def _measured(evidence: Evidence) -> GateRule:
    gain = evidence.gain
    if gain is None:
        reason = f"base and tuned were not compared ({evidence.why})"
    elif gain.num_items < 1 or gain.num_videos < MIN_VIDEOS:
        reason = f"{gain.num_items} items of {gain.num_videos} videos are too few to compare on"
    else:
        reason = f"compared on {gain.num_items} items of {gain.num_videos} videos"
    return GateRule(
        name="measured",
        passed=gain is not None and gain.num_items >= 1 and gain.num_videos >= MIN_VIDEOS,
        value=None if gain is None else gain.num_videos,
        threshold=MIN_VIDEOS,
        reason=reason,
    )


def _valid(evidence: Evidence) -> GateRule:
    reason = {
        None: "there is no verdict on the training pairs",
        False: "the training pairs failed validation",
        True: "the training pairs passed validation",
    }[evidence.validation_passed]
    passed = evidence.validation_passed is True
    return GateRule(name="validated", passed=passed, value=evidence.validation_passed, threshold=True, reason=reason)


def _complete(evidence: Evidence) -> GateRule:
    missing = evidence.num_unanswered
    if missing is None:
        reason = "it is not known whether every planned item was answered"
    elif missing:
        reason = f"{missing} planned items have no answer: bad row, video missing or broken, or prompt too long"
    else:
        reason = "every planned item was answered"
    return GateRule(name="complete", passed=missing == 0, value=missing, threshold=0, reason=reason)


def _differs(evidence: Evidence) -> GateRule:
    base, candidate = evidence.base_id, evidence.candidate_id
    if not base or not candidate:
        reason = "it is not known which weights were measured"
    elif base == candidate:
        reason = "the candidate has the same weights as the base model"
    else:
        reason = "the candidate's weights differ from the base model's"
    passed = bool(base) and bool(candidate) and base != candidate
    return GateRule(name="differs_from_base", passed=passed, value=candidate, threshold=f"not {base}", reason=reason)


def _better(evidence: Evidence, min_gain: float) -> GateRule:
    gain = evidence.gain
    if gain is None:
        reason = "no gain over the base model is shown"
    elif gain.low > min_gain and gain.p < MAX_P:
        reason = f"{_describe(gain)}, above {100 * min_gain:+.1f}"
    elif gain.low > min_gain:
        reason = f"{_describe(gain)}: so many items could have changed by chance"
    else:
        reason = f"{_describe(gain)}: its lower end is not above {100 * min_gain:+.1f}"
    return GateRule(
        name="better_than_base",
        passed=gain is not None and gain.low > min_gain and gain.p < MAX_P,
        value=None if gain is None else gain.low,
        threshold=min_gain,
        reason=reason,
    )
