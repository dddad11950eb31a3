"""The gate fails closed: every missing, stale or foreign piece of evidence refuses, and says which."""

from collections.abc import Iterator
from typing import Any

import pytest

from tpo.evaluation.intervals import Interval
from tpo.params import RegisterParams
from tpo.records import GateDecision
from tpo.registry.evidence import (
    Against,
    Blind,
    Decontamination,
    Evidence,
    Gain,
    Proof,
    Registry,
    Standing,
    gather,
)
from tpo.registry.gate import decide

NOW = "2026-11-26T12:00:00+00:00"
GAIN = Gain(difference=0.11, low=0.08, high=0.14, p=1e-9, num_items=600, num_videos=60)
NOTHING = Interval(value=0.0, low=0.0, high=0.0)
BLIND = Blind(gain=Interval(value=0.01, low=-0.02, high=0.04), rest=Interval(value=0.1, low=0.06, high=0.14))
BASE = Against(
    model_id="aa",
    gains={"all": GAIN, "mlvu": GAIN, "videomme": GAIN},
    short={"mlvu under 5min": GAIN, "videomme short": GAIN},
    unreadable={"all": NOTHING, "written": NOTHING},
    blind={"all": BLIND, "mlvu": BLIND},
)
GOOD = Evidence(
    candidate_id="bb",
    tuned_id="bb",
    base=BASE,
    trained_from="aa",
    champion=BASE.model_copy(update={"model_id": "cc"}),
    registry=Registry(champion=Standing(version="1", candidate_id="cc"), rolled_back={"dd": "bob: Latin"}),
    num_unanswered=0,
    validation_passed=True,
    validated_pairs="pairs",
    trained_pairs="pairs",
    decontamination=Decontamination(
        benchmarks=("mlvu", "videomme"), num_videos=100, num_by_bytes_alone=0, num_kept=0, num_questions=50,
        num_short_questions=50, is_validated=True,
    ),
    confidence=0.95,
    proof=Proof(version="2", candidate_id="bb", registered_digest="ff", found_digest="ff", answer="a star"),
    missing=(),
)  # fmt: skip
FIRST = GOOD.model_copy(update={"registry": Registry(champion=None, rolled_back={}), "champion": None})


def limits(**changed: Any) -> RegisterParams:
    return RegisterParams(**{"name": "demo", "experiment": "demo", "min_gain": 0.0, "needed": ("mlvu",), **changed})


def with_(evidence: Evidence, path: str, value: Any) -> Evidence:
    """`evidence` with the field at a path such as "base.gains.mlvu" set to something else."""
    content = evidence.model_dump()
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[last] = value
    return Evidence.model_validate(content)


def failed(evidence: Evidence, **changed: Any) -> set[str]:
    """The rules that refuse."""
    decision = decide(evidence, limits(**changed), NOW)
    assert decision.promote == all(rule.passed for rule in decision.rules)
    assert all(rule.passed or rule.reason in decision.summary for rule in decision.rules)
    return {rule.name for rule in decision.rules if not rule.passed}


@pytest.mark.parametrize("evidence", [GOOD, FIRST])
def test_a_candidate_with_all_evidence_and_a_clear_gain_passes(evidence: Evidence) -> None:
    decision = decide(evidence, limits(), NOW)
    assert failed(evidence) == set()
    assert decision.promote
    assert decision.summary == (
        "Passed: tuned minus base is +11.0 points, interval [+8.0, +14.0], p 1e-09, on 600 items of 60 videos."
    )
    assert (decision.candidate_id, decision.base_id, decision.decided_at) == ("bb", "aa", NOW)
    assert Evidence.model_validate(decision.evidence) == evidence


def test_a_decision_has_an_id_that_stands_for_evidence_and_rules_and_not_for_the_time() -> None:
    decision = decide(GOOD, limits(), NOW)
    assert decide(GOOD, limits(), "2027-01-01T00:00:00+00:00").id == decision.id
    assert decide(GOOD, limits(min_gain=0.01), NOW).id != decision.id
    assert decide(with_(GOOD, "champion.gains.mlvu.low", 0.07), limits(), NOW).id != decision.id
    assert GateDecision.model_validate_json(decision.model_dump_json()) == decision


def pieces(content: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every part of the evidence that could be missing."""
    for name, value in content.items():
        yield f"{path}{name}"
        if isinstance(value, dict):
            yield from pieces(value, f"{path}{name}.")


# Whose absence is no lack of evidence: a log, what is said beside it, benchmarks that nobody asked for by name.
BESIDE = {"missing", "proof.problem", "proof.version", "registry.champion.version"}
SPARE = {
    f"{who}.{what}"
    for who in ("base", "champion")
    for what in ("short.mlvu under 5min", "short.videomme short", "unreadable.written", "blind.mlvu")
}
# An answer of the registry, not a lack: nobody is champion; nobody was rolled back.
ANSWERS = {"registry.champion", "registry.rolled_back.dd"}


def test_whatever_single_piece_of_evidence_is_missing_it_refuses() -> None:
    tried = 0
    for path in pieces(GOOD.model_dump()):
        *parents, last = path.split(".")
        if path in BESIDE | SPARE | ANSWERS or ".".join(path.split(".")[:3]) in SPARE:
            continue
        content = GOOD.model_dump()
        place = content
        for parent in parents:
            place = place[parent]
        for missing in (None, "dropped"):
            place.pop(last)
            if missing is None:
                place[last] = None
            try:
                evidence = Evidence.model_validate(content)
            except ValueError:
                continue  # such evidence cannot even be stated
            assert failed(evidence), f"{path} {missing}"
            tried += 1
    assert tried > 15


def wide(rest_low: float) -> dict[str, Any]:
    """A control of so few items that without the video all of the gain, or none, may be there."""
    return {"gain": {"value": 0, "low": -0.2, "high": 0.2}, "rest": {"value": 0.11, "low": rest_low, "high": 0.3}}


@pytest.mark.parametrize(
    ("path", "value", "rules"),
    [
        ("base", None, {"measured", "needed_benchmarks", "own_evidence", "differs_from_base", "better_than_base"}),
        ("base.gains.all.num_videos", 1, {"measured", "better_than_base", "better_than_champion"}),
        ("base.gains.all.low", -0.01, {"better_than_base"}),
        ("base.gains.all.low", 0.0, {"better_than_base"}),
        ("base.gains.all.p", 0.12, {"better_than_base"}),
        ("champion.gains.all.low", 0.0, {"better_than_champion"}),
        ("champion.gains.all.p", 0.05, {"better_than_champion"}),
        ("base.gains.mlvu.low", -0.02, {"no_benchmark_worse_than_base"}),
        ("champion.gains.videomme.low", -0.03, {"no_benchmark_worse_than_champion"}),
        ("base.short.videomme short.difference", -0.03, {"short_videos_not_worse_than_base"}),
        ("base.short.mlvu under 5min.high", -0.001, {"short_videos_not_worse_than_base"}),
        ("base.short.mlvu under 5min", None, {"short_videos_not_worse_than_base"}),
        ("champion.short.mlvu under 5min", None, {"short_videos_not_worse_than_champion"}),
        ("base.blind", {}, {"video_needed_to_beat_base"}),
        ("champion.blind", {}, {"video_needed_to_beat_champion"}),
        # of a few items no gain is shown without the video, and none is ruled out
        ("base.blind.all", wide(rest_low=-0.1), {"video_needed_to_beat_base"}),
        ("champion.blind.all", wide(rest_low=0.0), {"video_needed_to_beat_champion"}),
        ("confidence", None, {"confidence"}),
        ("confidence", 0.9, {"confidence"}),
        ("base.unreadable.written", {"value": 0.1, "low": 0.05, "high": 0.15}, {"as_readable_as_base"}),
        ("base.unreadable.all", {"value": 0.03, "low": -0.02, "high": 0.08}, {"as_readable_as_base"}),
        ("validation_passed", None, {"validated"}),
        ("validation_passed", False, {"validated"}),
        ("validated_pairs", "others", {"validated"}),
        ("num_unanswered", None, {"complete"}),
        ("num_unanswered", 3, {"complete"}),
        ("candidate_id", "ee", {"own_evidence"}),
        ("tuned_id", "ee", {"own_evidence"}),
        ("proof.candidate_id", "ee", {"own_evidence"}),
        ("trained_from", "ee", {"own_evidence"}),
        ("proof.found_digest", "00", {"answers_from_registry"}),
        ("proof.answer", None, {"answers_from_registry"}),
        ("proof", None, {"answers_from_registry", "own_evidence"}),
        ("decontamination", None, {"decontaminated"}),
        ("decontamination.benchmarks", ("mlvu",), {"decontaminated"}),
        ("decontamination.num_kept", 1, {"decontaminated"}),
        ("decontamination.num_by_bytes_alone", 1, {"decontaminated"}),
        ("decontamination.is_validated", False, {"decontaminated"}),
        ("registry", None, {"better_than_champion", "not_rolled_back"}),
        ("registry.champion.candidate_id", "", {"better_than_champion"}),
        ("registry.champion.candidate_id", "bb", {"better_than_champion"}),
        ("registry.champion.candidate_id", "ee", {"better_than_champion"}),
        ("registry.rolled_back", {"bb": "bob: Latin"}, {"not_rolled_back"}),
        ("champion", None, {"better_than_champion"}),
        ("champion.gains", {"all": GAIN}, {"better_than_champion"}),
        ("champion.gains.mlvu.num_items", 20, {"better_than_champion"}),
        ("champion.gains.mlvu.num_videos", 2, {"better_than_champion"}),
        ("champion.gains.nextgqa spans", GAIN, {"better_than_champion"}),
    ],
)  # fmt: skip
def test_each_failed_stale_or_foreign_piece_of_evidence_refuses(path: str, value: Any, rules: set[str]) -> None:
    assert failed(with_(GOOD, path, value)) == rules


def test_where_nothing_or_no_benchmark_was_measured_it_refuses() -> None:
    assert failed(with_(FIRST, "base.gains", {})) >= {"measured", "needed_benchmarks", "better_than_base"}
    assert failed(with_(FIRST, "base.gains", {"all": GAIN}), needed=()) == {"needed_benchmarks"}


def test_a_loss_that_is_asked_for_in_advance_is_no_limit() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        limits(min_gain=-0.1)


def test_the_same_weights_as_the_base_are_no_candidate() -> None:
    same = with_(with_(with_(GOOD, "candidate_id", "aa"), "tuned_id", "aa"), "proof.candidate_id", "aa")
    assert failed(same) == {"differs_from_base"}


def test_a_tie_refuses() -> None:
    tie = GAIN.model_copy(update={"difference": 0.0, "low": 0.0, "high": 0.0}).model_dump()
    assert failed(with_(GOOD, "champion.gains.all", tie)) == {"better_than_champion"}


def test_a_lower_bound_exactly_at_the_required_gain_refuses() -> None:
    assert failed(GOOD, min_gain=0.08) == {"better_than_base", "better_than_champion"}
    assert not failed(GOOD, min_gain=0.079)


def test_a_gain_that_is_there_without_the_video_is_language_unless_the_rest_is_not() -> None:
    seen_blind = {"gain": {"value": 0.1, "low": 0.05, "high": 0.15}, "rest": {"value": 0.0, "low": -0.03, "high": 0.03}}
    assert failed(with_(GOOD, "base.blind.all", seen_blind)) == {"video_needed_to_beat_base"}
    partly = seen_blind | {"rest": {"value": 0.05, "low": 0.01, "high": 0.09}}
    assert not failed(with_(GOOD, "base.blind.all", partly))


def test_why_the_video_is_needed_or_not_shown_to_be_is_said() -> None:
    def said(blind: Any) -> str:
        rules = {rule.name: rule for rule in decide(with_(GOOD, "base.blind.all", blind), limits(), NOW).rules}
        return rules["video_needed_to_beat_base"].reason

    assert "and one of +11.0 points is ruled out (+1.0 points, interval [-2.0, +4.0])" in said(
        {"gain": BLIND.gain, "rest": {"value": 0.1, "low": -0.01, "high": 0.2}}
    )
    assert "what is gone without it is (+11.0 points, interval [+1.0, +30.0])" in said(wide(rest_low=0.01))
    assert "all of +11.0 points may be there without (+0.0 points, interval [-20.0, +20.0])" in said(wide(rest_low=0))


def test_a_small_group_of_short_videos_does_not_refuse_by_its_wide_interval_alone() -> None:
    wide = GAIN.model_copy(update={"difference": 0.0, "low": -0.3, "high": 0.3, "num_items": 6}).model_dump()
    assert not failed(with_(GOOD, "base.short.mlvu under 5min", wide))


def test_another_primary_is_what_must_be_better() -> None:
    worse = with_(GOOD, "base.gains.mlvu.low", -0.01)
    assert not failed(worse)
    assert failed(worse, primary="mlvu") == {"better_than_base"}
    assert failed(GOOD, primary="nextgqa") >= {"measured", "better_than_base"}


def test_what_is_needed_must_have_been_measured_and_spans_are_no_multiple_choice() -> None:
    assert failed(GOOD, needed=("mlvu", "longvideobench")) == {"needed_benchmarks"}
    spans = with_(FIRST, "base.gains.mlvu spans", GAIN.model_dump())
    assert not failed(spans, needed=("mlvu", "mlvu spans"))
    alone = with_(spans, "base.gains", {"all": GAIN, "mlvu spans": GAIN})
    assert failed(alone, needed=("mlvu",)) == {"needed_benchmarks"}
    summary = decide(alone, limits(), NOW).summary
    assert "register.needed asks for mlvu; measured: mlvu spans" in summary


def test_a_proof_without_an_answer_cannot_say_that_there_was_one() -> None:
    for blank in ("", " \n"):
        with pytest.raises(ValueError, match="should match pattern"):
            with_(GOOD, "proof.answer", blank)


def test_videos_compared_by_bytes_alone_pass_where_a_share_of_them_is_allowed() -> None:
    some = with_(GOOD, "decontamination.num_by_bytes_alone", 5)
    assert failed(some, max_unchecked_share=0.04) == {"decontaminated"}
    assert not failed(some, max_unchecked_share=0.05)


def figures(**more: Any) -> dict[str, Any]:
    def interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
        return {name: value, f"{name}_low": low, f"{name}_high": high}

    return (
        interval("difference", 0.11, 0.08, 0.14)
        | interval("parse_rate_difference", 0.0, 0.0, 0.0)
        | interval("drop_difference", 0.1, 0.06, 0.14)
        | {"holm_p": 1e-9, "num_items": 600, "num_videos": 60}
        | more
    )


CONTROL = {"text_only": figures(difference=0.01, difference_low=-0.02, difference_high=0.04)}
COMPARED = {
    "all": figures(conditions=CONTROL, generation=figures()),
    "mlvu": figures(conditions=CONTROL, duration_group={"over 30min": figures(), "under 5min": figures()}),
    "videomme": figures(duration_group={"long": figures(), "short": figures()}),
}
METRICS = COMPARED | {
    "champion": COMPARED,
    "status": {"base": {"ok": 600}, "champion": {"ok": 600}},
    "incomplete": {
        "num_items": 0,
        "num_videos_missing": 0,
        "num_videos_broken": 0,
        "num_bad_rows": 0,
        "num_without_subtitles": 0,
    },
    "intervals": {"confidence": 0.95},
    "needle": {},
    "prompts": {},
}
REPORTS = {
    "videos_report": {
        "videos": 80, "not_comparable": [], "found": [{}], "limits": {"score_only": False},
        "benchmarks": [
            {"name": name, "status": "checked", "videos": 10, "unusable": [], "not_comparable": []}
            for name in ("mlvu", "videomme")
        ],
    },
    "questions_report": {"queries": 50, "too_short": 50, "benchmark_questions": {"mlvu": 5, "videomme": 5}},
}  # fmt: skip


def gathered(metrics: dict[str, Any] | None = METRICS, **changed: Any) -> Evidence:
    sources = {
        "metrics_digest": "metrics",
        "evaluation": {
            "base_id": "aa",
            "tuned_id": "bb",
            "champion": {"version": "1", "candidate_id": "cc"},
            "metrics_digest": "metrics",
        },
        "training": {"base_id": "aa", "pairs_digest": "pairs"},
        "validation": {"success": True, "pairs_digest": "pairs", "decontamination": "reports"},
        **REPORTS,
        "reports_digest": "reports",
        "tuned_id": "bb",
        "proof": GOOD.proof,
        "registry": GOOD.registry,
    }
    return gather(metrics=metrics, **(sources | changed))


def test_evidence_is_gathered_from_what_the_stages_published() -> None:
    found = gathered()
    assert found.missing == ()
    assert found.base is not None
    assert found.base.gains == {"all": GAIN, "mlvu": GAIN, "videomme": GAIN}
    assert set(found.base.short) == {"mlvu under 5min", "videomme short"}
    assert set(found.base.blind) == {"all", "mlvu"}
    assert not failed(found)


def test_whatever_source_is_missing_it_refuses_and_says_what() -> None:
    for name in ("evaluation", "training", "validation"):
        assert failed(gathered(**{name: {}})), name
    for name in ("videos_report", "questions_report", "reports_digest", "tuned_id", "proof", "registry"):
        assert failed(gathered(**{name: None})), name
    assert "there is no report on benchmarks in the training data" in gathered(videos_report=None).missing
    assert failed(gathered(None))
    for key in ("all", "champion", "status", "incomplete"):
        assert failed(gathered({name: part for name, part in METRICS.items() if name != key})), key


def test_numbers_that_are_not_those_of_the_evaluation_refuse_and_say_so() -> None:
    """Edited since, or of another run: `dvc checkout` brings back data/evaluation alone."""
    for digest in (None, "edited"):
        found = gathered(metrics_digest=digest)
        assert failed(found) >= {"measured", "complete", "better_than_base", "better_than_champion"}
        assert any("is not what the evaluation wrote" in told for told in found.missing)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "many", None, -1])
def test_numbers_that_are_none_refuse_and_are_named(number: Any) -> None:
    found = gathered(METRICS | {"all": METRICS["all"] | {"num_items": number, "holm_p": number}})
    assert failed(found) >= {"measured", "better_than_base"}
    assert any(told.startswith("evaluation of base and tuned: ") for told in found.missing), found.missing
    assert failed(gathered(METRICS | {"incomplete": METRICS["incomplete"] | {"num_bad_rows": number}})) == {"complete"}
    assert failed(gathered(METRICS | {"mlvu": METRICS["mlvu"] | {"duration_group": {"under 5min": number}}}))


@pytest.mark.parametrize("said", [{}, {"confidence": None}, {"confidence": 95}, {"confidence": True}, [], None])
def test_intervals_of_a_confidence_that_is_not_known_refuse(said: Any) -> None:
    found = gathered(METRICS | {"intervals": said})
    assert failed(found) == {"confidence"}
    assert "confidence of the evaluation's intervals" in found.missing[0]


def test_parts_of_the_metrics_that_are_missing_refuse() -> None:
    for part in ("difference_low", "holm_p", "parse_rate_difference", "conditions"):
        lacking = {name: number for name, number in METRICS["all"].items() if name != part}
        assert failed(gathered(METRICS | {"all": lacking})), part
    unsorted = METRICS["mlvu"] | {"duration_group": {"very long": figures()}}
    assert failed(gathered(METRICS | {"mlvu": unsorted})) == {"short_videos_not_worse_than_base"}


@pytest.mark.parametrize("lost", [{"num_items": 3}, {"num_bad_rows": 1}, {"num_without_subtitles": 2}])
def test_items_without_an_answer_are_evidence_that_is_missing(lost: dict[str, int]) -> None:
    assert failed(gathered(METRICS | {"incomplete": METRICS["incomplete"] | lost})) == {"complete"}


def test_items_that_the_champion_could_not_be_asked_are_missing_too() -> None:
    statuses = {"base": {"ok": 600}, "champion": {"ok": 599, "video_broken": 1}}
    assert failed(gathered(METRICS | {"status": statuses})) == {"complete"}


def test_benchmark_videos_that_were_only_counted_and_trained_on_refuse() -> None:
    counted = REPORTS["videos_report"] | {"limits": {"score_only": True}}
    assert failed(gathered(videos_report=counted)) == {"decontaminated"}
    unusable = [check | {"unusable": [{}]} for check in REPORTS["videos_report"]["benchmarks"]]
    assert failed(gathered(videos_report=REPORTS["videos_report"] | {"benchmarks": unusable})) == {"decontaminated"}
