"""The gate fails closed: every missing or failed piece of evidence refuses, and says which."""

import pytest

from tpo.records import GateDecision
from tpo.registry.gate import Evidence, Gain, decide, gather

GAIN = Gain(difference=0.11, low=0.08, high=0.14, p=1e-9, num_items=600, num_videos=60)
GOOD = Evidence(
    gain=GAIN, validation_passed=True, num_unanswered=0, base_id="aa", candidate_id="bb", why="all benchmarks"
)


def failed(decision: GateDecision) -> set[str]:
    return {rule.name for rule in decision.rules if not rule.passed}


def test_a_candidate_with_all_evidence_and_a_clear_gain_is_promoted():
    decision = decide(GOOD, 0.0)
    assert decision.promote
    assert all(rule.passed for rule in decision.rules)
    assert decision.summary == (
        "Promoted: tuned minus base is +11.0 points, interval [+8.0, +14.0], p 1e-09, on 600 items of 60 videos."
    )


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"gain": None}, {"measured", "better_than_base"}),
        ({"gain": GAIN.model_copy(update={"num_items": 0, "num_videos": 0})}, {"measured"}),
        ({"gain": GAIN.model_copy(update={"num_videos": 1})}, {"measured"}),
        ({"gain": GAIN.model_copy(update={"low": -0.01})}, {"better_than_base"}),
        ({"gain": GAIN.model_copy(update={"p": 0.12})}, {"better_than_base"}),
        ({"validation_passed": None}, {"validated"}),
        ({"validation_passed": False}, {"validated"}),
        ({"num_unanswered": None}, {"complete"}),
        ({"num_unanswered": 3}, {"complete"}),
        ({"candidate_id": None}, {"differs_from_base"}),
        ({"base_id": None}, {"differs_from_base"}),
        ({"base_id": "", "candidate_id": ""}, {"differs_from_base"}),
        ({"candidate_id": "aa"}, {"differs_from_base"}),
    ],
)
def test_each_missing_or_failed_piece_of_evidence_refuses(change, rules):
    decision = decide(GOOD.model_copy(update=change), 0.0)
    assert not decision.promote
    assert failed(decision) == rules
    for rule in decision.rules:
        assert rule.passed or rule.reason in decision.summary


def test_a_tie_refuses():
    tie = GAIN.model_copy(update={"difference": 0.0, "low": 0.0, "high": 0.0})
    assert failed(decide(GOOD.model_copy(update={"gain": tie}), 0.0)) == {"better_than_base"}


def test_a_lower_bound_exactly_at_the_required_gain_refuses():
    assert failed(decide(GOOD, 0.08)) == {"better_than_base"}
    assert decide(GOOD, 0.079).promote


METRICS = {
    "all": {
        "difference": 0.11,
        "difference_low": 0.08,
        "difference_high": 0.14,
        "holm_p": 1e-9,
        "num_items": 600,
        "num_videos": 60,
    },
    "incomplete": {"num_items": 0, "num_videos_missing": 0, "num_videos_broken": 0, "num_bad_rows": 0},
}


def test_evidence_is_gathered_from_the_evaluations_metrics():
    evidence = gather(METRICS, validation_passed=True, base_id="aa", candidate_id="bb")
    assert evidence.gain == GAIN
    assert decide(evidence, 0.0).promote


@pytest.mark.parametrize("metrics", [None, {}, {"all": {"difference": 0.5}}, {"all": METRICS["all"]}])
def test_metrics_that_lack_something_refuse_and_say_what(metrics):
    evidence = gather(metrics, validation_passed=True, base_id="aa", candidate_id="bb")
    assert not decide(evidence, 0.0).promote
    assert "lack" in evidence.why


def test_items_without_an_answer_are_evidence_that_is_missing():
    incomplete = METRICS["incomplete"] | {"num_items": 3}
    evidence = gather(METRICS | {"incomplete": incomplete}, validation_passed=True, base_id="aa", candidate_id="bb")
    assert evidence.num_unanswered == 3
    assert failed(decide(evidence, 0.0)) == {"complete"}


def test_a_row_that_could_not_be_asked_is_evidence_that_is_missing():
    rows = METRICS["incomplete"] | {"num_bad_rows": 1}
    evidence = gather(METRICS | {"incomplete": rows}, validation_passed=True, base_id="aa", candidate_id="bb")
    assert evidence.num_unanswered == 1
    assert failed(decide(evidence, 0.0)) == {"complete"}
