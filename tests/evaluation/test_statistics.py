import csv
import json
import math
import re

import numpy as np
import pytest
from scipy.stats import binomtest

from tpo.evaluation.scoring import Role
from tpo.evaluation.statistics import (
    Comparison,
    accuracy,
    accuracy_csv,
    compare,
    exact_mcnemar,
    headline,
    metric_name,
    metrics,
)
from tpo.records import Prediction, PredictionStatus

OPTIONS = {"confidence": 0.95, "samples": 2000, "seed": 0}


def prediction(item: str, role: Role, correct: int, video: str = "v.mp4", **other: object) -> Prediction:
    fields = {
        "item_id": item,
        "benchmark": "mlvu",
        "video": video,
        "duration_group": "<5min",
        "category": "order",
        "model": role,
        "status": PredictionStatus.OK,
        "option_logprobs": (-1.0, -2.0),
        "predicted": 0 if correct else 1,
        "gold": 0,
        "correct": bool(correct),
    }
    return Prediction.model_validate(fields | other)


def answers(role: Role, table: np.ndarray) -> list[Prediction]:
    """`table` is bool [videos, questions]."""
    return [
        prediction(f"{video}-{question}", role, correct, f"{video}.mp4")
        for video, row in enumerate(table)
        for question, correct in enumerate(row)
    ]


def overall(base: list[Prediction], tuned: list[Prediction]) -> Comparison:
    return compare(base, tuned, **OPTIONS)[0]


def test_a_model_compared_with_itself_differs_by_nothing_for_sure() -> None:
    table = np.random.default_rng(1).random((20, 3)) < 0.5
    same = overall(answers("base", table), answers("tuned", table))
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert (same.mcnemar_p, same.gained, same.lost) == (1.0, (), ())
    assert same.base == same.tuned
    assert same.base.low < same.base.value < same.base.high


def test_gained_and_lost_items_are_listed_and_make_up_the_difference() -> None:
    before = np.array([[1, 0, 0], [0, 1, 0]], bool)
    after = np.array([[0, 1, 1], [0, 1, 0]], bool)
    result = overall(answers("base", before), answers("tuned", after))
    assert (result.gained, result.lost) == (("0-1", "0-2"), ("0-0",))
    assert result.base.value == pytest.approx(2 / 6)
    assert result.tuned.value == pytest.approx(3 / 6)
    assert result.difference.value == pytest.approx(1 / 6)
    assert (result.num_items, result.num_videos) == (6, 2)


def test_exact_mcnemar_is_the_two_sided_sign_test() -> None:
    assert exact_mcnemar(0, 0) == 1.0
    assert exact_mcnemar(10, 0) == pytest.approx(2 * 0.5**10)
    assert exact_mcnemar(9, 2) == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    assert exact_mcnemar(30, 14) == binomtest(30, 44, 0.5).pvalue


def test_the_interval_is_that_of_the_clustered_standard_error() -> None:
    rng = np.random.default_rng(5)
    hard = rng.random((300, 1))  # questions about one video are right or wrong together
    before = np.broadcast_to(hard < 0.5, (300, 4))
    after = np.broadcast_to(hard + rng.normal(0, 0.3, (300, 1)) < 0.6, (300, 4))
    result = overall(answers("base", before), answers("tuned", after))
    per_video = (after.astype(float) - before).mean(axis=1)
    clustered_se = per_video.std(ddof=1) / math.sqrt(300)
    half_width = (result.difference.high - result.difference.low) / 2
    assert half_width == pytest.approx(1.96 * clustered_se, rel=0.06)
    naive_se = (after.astype(float) - before).std() / math.sqrt(1200)
    assert half_width > 1.8 * 1.96 * naive_se, "the four questions of a video count as one"


def test_one_video_says_nothing_about_others() -> None:
    result = overall(answers("base", np.zeros((1, 9), bool)), answers("tuned", np.ones((1, 9), bool)))
    assert (result.difference.value, result.difference.low, result.difference.high) == (1, -1, 1)
    assert (result.tuned.low, result.tuned.high) == (0, 1)


def test_the_same_seed_gives_the_same_interval_whatever_the_order() -> None:
    rng = np.random.default_rng(2)
    base, tuned = (answers(role, rng.random((10, 3)) < 0.5) for role in ("base", "tuned"))
    assert overall(base, tuned) == overall(base[::-1], tuned[7:] + tuned[:7])
    assert accuracy(base, **OPTIONS).value == overall(base, tuned).base.value


def test_every_benchmark_duration_and_category_is_compared_on_its_own() -> None:
    groups = [("mlvu", "<5min", "order"), ("mlvu", ">30min", "order"), ("videomme", "short", "OCR Problems")]
    base, tuned = [], []
    for number, (benchmark, duration, category) in enumerate(groups):
        other = {"benchmark": benchmark, "duration_group": duration, "category": category}
        base.append(prediction(str(number), "base", 0, "same name.mp4", **other))
        tuned.append(prediction(str(number), "tuned", number == 1, "same name.mp4", **other))
    comparisons = compare(base, tuned, **OPTIONS)
    found = {(c.benchmark, c.group_by, c.group): (c.num_items, c.tuned.value) for c in comparisons}
    assert found == {
        ("all", "overall", "all"): (3, pytest.approx(1 / 3)),
        ("mlvu", "overall", "all"): (2, 0.5),
        ("mlvu", "duration_group", "<5min"): (1, 0),
        ("mlvu", "duration_group", ">30min"): (1, 1),
        ("mlvu", "category", "order"): (2, 0.5),
        ("videomme", "overall", "all"): (1, 0),
        ("videomme", "duration_group", "short"): (1, 0),
        ("videomme", "category", "OCR Problems"): (1, 0),
    }
    assert comparisons[0].num_videos == 2, "the same file name in two benchmarks is two videos"


@pytest.mark.parametrize(
    ("base", "tuned", "expected"),
    [
        (["a", "b"], ["a"], "1 by only one of them, such as b"),
        (["a"], ["b"], "2 by only one of them, such as a"),
        (["a"], [], "no prediction of the tuned model"),
        (["a", "a"], ["a"], "base model has more than one prediction of a"),
    ],
)
def test_unpaired_predictions_are_refused(base: list[str], tuned: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        overall([prediction(i, "base", 1) for i in base], [prediction(i, "tuned", 1) for i in tuned])


def test_swapped_models_and_changed_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected predictions of the base model, got one of the tuned model"):
        overall([prediction("a", "tuned", 1)], [prediction("a", "base", 1)])
    with pytest.raises(ValueError, match=r"another video or gold answer"):
        overall([prediction("a", "base", 1)], [prediction("a", "tuned", 1, gold=1)])


def test_metrics_are_json_with_names_that_trackers_take_and_count_what_is_incomplete() -> None:
    missing = {"status": PredictionStatus.VIDEO_MISSING, "predicted": None, "option_logprobs": ()}
    base = [prediction("a", "base", 0), prediction("b", "base", 0, "w.mp4", **missing)]
    tuned = [prediction("a", "tuned", 1), prediction("b", "tuned", 0, "w.mp4", **missing)]
    result = json.loads(json.dumps(metrics(compare(base, tuned, **OPTIONS), base + tuned), allow_nan=False))
    assert result["all"]["accuracy_tuned"] == result["mlvu"]["accuracy_tuned"] == 0.5
    assert result["mlvu"]["duration_group"]["under 5min"]["num_gained"] == 1
    assert result["mlvu"]["category"]["order"]["difference_low"] == 0
    assert result["status"]["base"] == {"ok": 1, "video_missing": 1, "video_broken": 0}
    assert result["incomplete"] == {"num_videos_missing": 1, "num_videos_broken": 0}


@pytest.mark.parametrize("name", ["<5min", ">30min", "OCR Problems", "a.b/c", "", "x%{y}"])
def test_metric_names_have_only_signs_that_mlflow_takes_and_no_separators(name: str) -> None:
    assert re.fullmatch(r"[\w \-]+", metric_name(name))


def test_the_plotted_table_has_both_models_of_every_benchmark() -> None:
    base = [prediction("a", "base", 0), prediction("b", "base", 1, "w.mp4")]
    tuned = [prediction("a", "tuned", 1), prediction("b", "tuned", 1, "w.mp4")]
    rows = list(csv.DictReader(accuracy_csv(compare(base, tuned, **OPTIONS)).splitlines()))
    assert {row["model"]: float(row["accuracy"]) for row in rows} == {
        "all base": 0.5,
        "all tuned": 1.0,
        "mlvu base": 0.5,
        "mlvu tuned": 1.0,
    }


def test_the_headline_has_the_gain_and_its_interval_for_every_benchmark() -> None:
    base = [prediction("a", "base", 0), prediction("b", "base", 1, "w.mp4")]
    tuned = [prediction("a", "tuned", 1), prediction("b", "tuned", 1, "w.mp4")]
    found = headline(compare(base, tuned, **OPTIONS))
    assert set(found) == {"all", "mlvu"}
    assert (found["all"]["base"], found["all"]["tuned"], found["all"]["gain"]) == (0.5, 1.0, 0.5)
    assert found["all"]["gain_low"] <= 0.5 <= found["all"]["gain_high"]
