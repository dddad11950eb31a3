import csv
import json
import re
import time

import numpy as np
import pytest
from said import BOOTSTRAP, answers, prediction

from tpo.evaluation.analysis import analyse
from tpo.evaluation.metrics import accuracy_csv, headline, metric_name, metrics
from tpo.records import Condition, Granularity, Method, Prediction, PredictionStatus, Task
from tpo.registry.evidence import Evidence, gather
from tpo.registry.tracking import flatten_metrics

TWO = [
    prediction("a", "base", 0), prediction("b", "base", 1, "w.mp4"),
    prediction("a", "tuned", 1), prediction("b", "tuned", 1, "w.mp4"),
]  # fmt: skip


def measured(predictions: list[Prediction]) -> dict:
    return json.loads(json.dumps(metrics(analyse(predictions, **BOOTSTRAP)), allow_nan=False))


def evidence(numbers: dict) -> Evidence:
    return gather(
        metrics=numbers, metrics_digest="m", evaluation={"base_id": "a", "metrics_digest": "m"}, training={},
        validation={}, videos_report=None, questions_report=None, reports_digest=None, tuned_id=None, proof=None,
        registry=None,
    )  # fmt: skip


def also(predictions: list[Prediction], **other: object) -> list[Prediction]:
    return [*predictions, *(one.model_copy(update=other) for one in predictions)]


def test_metrics_are_json_with_names_that_trackers_take_and_count_what_is_incomplete() -> None:
    missing = {"status": PredictionStatus.VIDEO_MISSING, "predicted": None, "option_logprobs": ()}
    base = [prediction("a", "base", 0), prediction("b", "base", 0, "w.mp4", **missing)]
    tuned = [prediction("a", "tuned", 1), prediction("b", "tuned", 0, "w.mp4", **missing)]
    result = measured(base + tuned)
    assert result["all"]["accuracy_tuned"] == result["mlvu"]["accuracy_tuned"] == 0.5
    assert result["all"]["answered_tuned"] == 1
    assert result["all"]["parse_rate_base"] == 0.5
    assert result["mlvu"]["duration_group"]["under 5min"]["num_gained"] == 1
    assert result["mlvu"]["category"]["order"]["difference_low"] == 0
    assert result["mlvu"]["verdict"].startswith("not shown: +50.0 points [")
    expected = dict.fromkeys(PredictionStatus, 0) | {"ok": 1, "video_missing": 1}
    assert result["status"] == {"base": expected, "tuned": expected}
    assert result["incomplete"] == {
        "num_items": 1,
        "num_videos_missing": 1,
        "num_videos_broken": 0,
        "num_bad_rows": 0,
        "num_without_subtitles": 0,
    }
    assert result["intervals"] == {"confidence": 0.95}
    for name in flatten_metrics(result):
        assert re.fullmatch(r"[\w \-.]+", name)


def test_the_gate_finds_its_evidence() -> None:
    found = evidence(measured(TWO))
    assert found.base is not None
    gain = found.base.gains["all"]
    assert (gain.difference, gain.num_items, found.num_unanswered) == (0.5, 2, 0)
    assert list(found.base.gains) == ["all", "mlvu"]


@pytest.mark.parametrize(
    "task", [{"task": Task.OPEN, "method": Method.GENERATION}, {"task": Task.SPAN, "method": Method.GENERATION}, {}]
)
@pytest.mark.parametrize("status", ["video_missing", "video_broken", "too_long"])
def test_the_gate_is_told_of_every_item_that_one_model_could_not_be_asked(status: str, task: dict[str, object]) -> None:
    lost = {"status": PredictionStatus(status), "predicted": None, "option_logprobs": (), **task}
    more = [prediction("c", "base", 0, "x.mp4", **lost), prediction("c", "tuned", 0, "x.mp4", **task)]
    assert evidence(measured(TWO + more)).num_unanswered == 1


def test_the_gate_is_told_of_rows_and_subtitles_that_are_of_no_use() -> None:
    assert evidence(metrics(analyse(TWO, **BOOTSTRAP), num_bad_rows=3, num_without_subtitles=2)).num_unanswered == 5


def test_a_tie_is_an_answer_to_the_gate() -> None:
    tie = [one.model_copy(update={"status": PredictionStatus.AMBIGUOUS, "predicted": None}) for one in TWO]
    assert evidence(measured(tie)).num_unanswered == 0


def test_scores_stand_with_and_without_defective_items() -> None:
    broken = [prediction("c", role, role == "base", "x.mp4", defective=True) for role in ("base", "tuned")]
    mlvu = measured(TWO + broken)["mlvu"]
    assert (mlvu["num_items"], mlvu["difference"]) == (3, 0)
    assert (mlvu["without_defects"]["num_items"], mlvu["without_defects"]["difference"]) == (2, 0.5)


def test_what_the_models_wrote_stands_beside_the_log_probabilities_and_changes_nothing_of_them() -> None:
    written = also(TWO, method=Method.GENERATION)
    written[-1] = written[-1].model_copy(update={"status": PredictionStatus.NONE, "score": 0.0, "correct": False})
    mlvu = measured(written)["mlvu"]
    assert mlvu["difference"] == 0.5
    assert mlvu["generation"]["difference"] == 0
    assert mlvu["generation"]["parse_rate_difference"] == 0.5, "base minus tuned"
    assert mlvu["generation"]["status_tuned"] == {"ok": 1, "none": 1}
    assert {name: beside for name, beside in mlvu.items() if name != "generation"} == measured(TWO)["mlvu"]


def test_controls_stand_below_their_benchmark() -> None:
    shuffled = also(TWO, condition=Condition.SHUFFLED)
    rotated = [one.model_copy(update={"condition": Condition.CIRCULAR, "rotation": 1}) for one in TWO]
    conditions = measured(shuffled + rotated)["mlvu"]["conditions"]
    assert set(conditions) == {"shuffled", "circular"}
    assert (conditions["shuffled"]["accuracy_tuned"], conditions["shuffled"]["temporal_gain_difference"]) == (1, 0)
    assert (conditions["circular"]["strict_base"], conditions["circular"]["drop_tuned"]) == (0.5, 0)


def test_spans_and_free_answers_have_scores_not_accuracies() -> None:
    given = {"method": Method.GENERATION, "gold": None, "predicted": None, "option_logprobs": (), "score": 0.3}
    spans = [one.model_copy(update={"task": Task.SPAN, "benchmark": "charades_sta", **given}) for one in TWO]
    judged = [one.model_copy(update={"task": Task.OPEN, **given}) for one in TWO]
    result = measured(TWO + spans + judged)
    assert set(result["charades_sta"]) == {"spans"}
    assert result["charades_sta"]["spans"]["score_tuned"] == result["mlvu"]["free_answers"]["score_base"] == 0.3
    assert result["all"]["num_items"] == result["mlvu"]["num_items"] == 2, "only multiple choice is pooled"


def test_the_champion_is_compared_under_its_own_name() -> None:
    champion = [one.model_copy(update={"model": "champion"}) for one in TWO if one.model == "tuned"]
    result = measured(TWO + champion)
    assert result["champion"]["all"]["difference"] == 0
    assert result["champion"]["all"]["accuracy_champion"] == 1
    assert result["status"]["champion"]["ok"] == 2
    assert "champion" not in measured(TWO)


def test_the_champion_is_compared_on_all_that_the_base_is_compared_on() -> None:
    given = {"method": Method.GENERATION, "gold": None, "predicted": None, "option_logprobs": (), "score": 0.3}
    spans = [one.model_copy(update={"task": Task.SPAN, "benchmark": "charades_sta", **given}) for one in TWO]
    said = also(TWO, method=Method.GENERATION) + spans
    champion = [one.model_copy(update={"model": "champion"}) for one in said if one.model == "tuned"]
    result = measured(said + champion)
    assert result["champion"]["charades_sta"]["spans"]["score_champion"] == 0.3
    assert result["champion"]["all"]["generation"]["accuracy_champion"] == 1
    assert set(result["champion"]) == set(result) - {"champion", "status", "incomplete", "intervals"}


def test_half_of_an_evaluation_is_refused() -> None:
    with pytest.raises(ValueError, match="no prediction of the tuned model"):
        analyse(TWO[:2], **BOOTSTRAP)


def test_without_predictions_there_is_no_evidence() -> None:
    result = measured([])
    assert set(result) == {"status", "incomplete", "intervals"}
    assert evidence(result).base is None


@pytest.mark.parametrize("name", ["<5min", ">30min", "OCR Problems", "a.b/c", "", "x%{y}"])
def test_metric_names_have_only_signs_that_mlflow_takes_and_no_separators(name: str) -> None:
    assert re.fullmatch(r"[\w \-]+", metric_name(name))


def test_the_plotted_table_has_every_model_of_every_benchmark_once() -> None:
    three = [*TWO, *(one.model_copy(update={"model": "champion"}) for one in TWO if one.model == "base")]
    rows = list(csv.DictReader(accuracy_csv(analyse(three, **BOOTSTRAP)).splitlines()))
    assert [(row["benchmark"], row["model"], float(row["accuracy"])) for row in rows] == [
        (benchmark, model, 1.0 if model == "tuned" else 0.5)
        for model_names in (("base", "tuned"), ("champion",))
        for benchmark in ("all", "mlvu")
        for model in model_names
    ]


def test_the_headline_has_the_gain_and_its_interval_for_every_benchmark() -> None:
    found = headline(analyse(TWO, **BOOTSTRAP))
    assert set(found) == {"all", "mlvu"}
    assert (found["all"]["base"], found["all"]["tuned"], found["all"]["gain"]) == (0.5, 1, 0.5)
    assert found["all"]["gain_low"] <= 0.5 <= found["all"]["gain_high"]


def test_the_three_benchmarks_with_every_breakdown_and_control_take_seconds() -> None:
    """6,212 items in their real numbers of groups, five controls, two methods, 10,000 draws."""
    rng = np.random.default_rng(0)
    said: list[Prediction] = []
    for benchmark, num_videos, questions, durations, categories in (
        ("longvideobench", 668, 2, 4, 17), ("mlvu", 1087, 2, 4, 7), ("videomme", 900, 3, 3, 12),
    ):  # fmt: skip
        base = answers("base", rng.random((num_videos, questions)) < 0.55, benchmark=benchmark)
        for number, one in enumerate(base):
            groups = {
                "item_id": f"{benchmark}-{number}",
                "duration_group": f"d{number % durations}",
                "category": f"c{rng.integers(categories)}",
                "granularity": list(Granularity)[number % 2],
            }
            for role in ("base", "tuned"):
                right = one.correct != (role == "tuned" and rng.random() < 0.125)
                facts = groups | {"model": role, "score": float(right), "correct": bool(right)}
                said.append(one.model_copy(update=facts))
    everything = [
        one.model_copy(update={"condition": condition, "method": method})
        for condition in Condition
        for method in Method
        if condition is not Condition.CIRCULAR
        for one in said
    ]
    begin = time.perf_counter()
    analysis = analyse(everything, confidence=0.95, samples=10_000, seed=0)
    seconds = time.perf_counter() - begin
    print(f"{len(analysis.primary)} cuts in all families, {seconds:.1f} s")
    assert len(analysis.primary) == 1 + 3 + 11 + 36 + 6
    detectable = {one.benchmark: one.minimum_detectable_gain for one in analysis.primary if one.group_by == "overall"}
    assert detectable["all"] == pytest.approx(0.0125, abs=0.001)
    assert seconds < 60
