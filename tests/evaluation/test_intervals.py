"""Every number is checked against a closed form, scipy, or the published table it has to reproduce."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from tpo.evaluation.intervals import (
    clustered_error,
    design_effect,
    exact_mcnemar,
    holm,
    mean_interval,
    minimum_detectable_gain,
    share_interval,
    wilson,
)

BOOTSTRAP = {"confidence": 0.95, "samples": 10_000, "seed": 0}
BENCHMARKS = {"longvideobench": 1337, "mlvu": 2175, "videomme": 2700, "pooled": 6212}


def together(num_videos: int, questions: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences of -1, 0 and 1, alike within a video, and the videos' numbers, [num_videos * questions] each."""
    rng = np.random.default_rng(seed)
    lean = rng.normal(0.1, spread, (num_videos, 1))
    values = np.clip(np.round(lean + rng.normal(0, 0.5, (num_videos, questions))), -1, 1)
    return values.ravel(), np.repeat(np.arange(num_videos), questions)


@pytest.mark.parametrize(("right", "asked"), [(0, 8), (1, 8), (5, 8), (8, 8), (199, 200), (3106, 6212)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_the_interval_of_scipy(right: int, asked: int, confidence: float) -> None:
    expected = binomtest(right, asked).proportion_ci(confidence, method="wilson")
    found = wilson(right / asked, asked, confidence=confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_a_share_of_nothing_may_be_anything() -> None:
    found = wilson(0.0, 0, confidence=0.95)
    assert (found.low, found.high) == (0, 1)


def test_exact_mcnemar_is_the_two_sided_sign_test() -> None:
    assert exact_mcnemar(0, 0) == 1.0
    assert exact_mcnemar(10, 0) == pytest.approx(2 * 0.5**10)
    assert exact_mcnemar(9, 2) == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    for gained, lost in [(30, 14), (14, 30), (7, 7), (7, 8), (1, 0), (130, 90), (500, 300), (4000, 1000)]:
        assert exact_mcnemar(gained, lost) == pytest.approx(binomtest(gained, gained + lost).pvalue)


def test_the_sign_test_of_the_scale_seen_on_real_letters_is_about_two_in_a_thousand() -> None:
    """One 7B model, 1,425 items, +3 points, one answer in eight changed."""
    changed, gain = round(0.125 * 1425), round(0.03 * 1425)
    gained = (changed + gain) // 2
    assert 0.001 < exact_mcnemar(gained, changed - gained) < 0.003


def test_clusters_of_one_size_have_the_error_of_their_means() -> None:
    values, clusters = together(300, 4, 0.4, seed=5)
    means = values.reshape(300, 4).mean(axis=1)
    assert clustered_error(values, clusters) == pytest.approx(means.std(ddof=1) / math.sqrt(300))


def test_clusters_of_one_item_have_the_ordinary_error() -> None:
    values = np.random.default_rng(3).normal(size=50)
    assert clustered_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert design_effect(values, np.arange(50)) == pytest.approx(1)


def test_questions_that_copy_each_other_count_once() -> None:
    values = np.repeat(np.random.default_rng(3).integers(-1, 2, 400), 3).astype(float)
    assert design_effect(values, np.repeat(np.arange(400), 3)) == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_the_interval_is_that_of_the_clustered_error_also_where_videos_differ_in_size(spread: float) -> None:
    values, clusters = together(400, 4, spread, seed=7)
    kept = np.random.default_rng(8).random(len(values)) < 0.7
    values, clusters = values[kept], clusters[kept]
    found = mean_interval(values, clusters, **BOOTSTRAP)
    error = clustered_error(values, clusters)
    assert error is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.03)
    assert found.value == values.mean()
    assert (found.low + found.high) / 2 == pytest.approx(found.value, abs=0.1 * error)


def test_drawing_kinds_of_videos_is_drawing_videos() -> None:
    values, clusters = together(60, 3, 0.4, seed=9)
    rng = np.random.default_rng(10)
    drawn = values.reshape(60, 3)[rng.integers(60, size=(40_000, 60))].mean(axis=(1, 2))
    found = mean_interval(values, clusters, confidence=0.95, samples=40_000, seed=0)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.012)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    hit = 0
    for seed in range(200):
        rng = np.random.default_rng([4, seed])
        values = (rng.random((80, 1)) + rng.random((80, 3)) < 0.8).astype(float)  # true share: 0.32
        clusters = np.repeat(np.arange(80), 3)
        found = share_interval(values.ravel(), clusters, confidence=0.95)
        gap = mean_interval(values.ravel() - 0.32, clusters, confidence=0.95, samples=1000, seed=seed)
        hit += (found.low <= 0.32 <= found.high) + (gap.low <= 0 <= gap.high)
    assert 0.92 <= hit / 400 <= 0.98


def test_a_share_has_the_clustered_error_and_never_more_items_than_there_are() -> None:
    values = np.repeat(np.random.default_rng(3).integers(0, 2, 200), 4).astype(float)
    copies = share_interval(values, np.repeat(np.arange(200), 4), confidence=0.95)
    once = wilson(float(values.mean()), 200, confidence=0.95)
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high), abs=5e-4)
    opposite = np.tile([0.0, 1.0], 50)  # each video has one right and one wrong: no video differs from another
    found = share_interval(opposite, np.repeat(np.arange(50), 2), confidence=0.95)
    assert found == wilson(0.5, 100, confidence=0.95)
    single = np.repeat([1.0, 0.0], [3, 7])
    assert share_interval(single, np.arange(10), confidence=0.95).low == pytest.approx(
        wilson(0.3, 10, confidence=0.95).low
    )


def test_a_mean_of_scores_between_right_and_wrong_is_surer_than_a_share() -> None:
    scores = np.random.default_rng(2).uniform(0.2, 0.6, 400)
    found = share_interval(scores, np.arange(400), confidence=0.95)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * scores.std() / 20, rel=0.01)


def test_a_perfect_score_is_not_a_certain_one() -> None:
    found = share_interval(np.ones(30), np.repeat(np.arange(10), 3), confidence=0.95)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / 30))


def test_one_video_says_nothing_about_others() -> None:
    gain = mean_interval(np.ones(9), np.zeros(9, int), limit=2.0, **BOOTSTRAP)
    assert (gain.value, gain.low, gain.high) == (1, -2, 2)
    share = share_interval(np.ones(9), np.zeros(9, int), confidence=0.95)
    assert (share.low, share.high) == (0, 1)
    assert clustered_error(np.ones(9), np.zeros(9, int)) is design_effect(np.ones(9), np.zeros(9, int)) is None


def test_holm_steps_down_and_never_turns_the_order_round() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = list(rng.beta(0.3, 3, size=rng.integers(1, 9)))
        rejected = set()
        for rank, at in enumerate(np.argsort(p_values)):
            if p_values[at] > 0.05 / (len(p_values) - rank):
                break
            rejected.add(int(at))
        assert {at for at, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


@pytest.mark.parametrize(
    ("changed", "points"), [(0.125, (2.7, 2.1, 1.9, 1.3)), (0.05, (1.7, 1.3, 1.2, 0.8))], ids=["seen", "light LoRA"]
)
def test_what_can_be_seen_at_the_benchmarks_sizes(changed: float, points: tuple[float, ...]) -> None:
    found = [100 * minimum_detectable_gain(changed, size, confidence=0.95) for size in BENCHMARKS.values()]
    assert [round(one, 1) for one in found] == list(points)


def test_a_gain_of_the_detectable_size_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(6)
    gain = minimum_detectable_gain(0.125, 2700, confidence=0.95)
    changes = rng.multinomial(2700, [(0.125 + gain) / 2, (0.125 - gain) / 2, 1 - 0.125], 600)
    found = np.mean([exact_mcnemar(gained, lost) < 0.05 and gained > lost for gained, lost, _ in changes])
    assert 0.74 < found < 0.85


def test_a_design_effect_of_four_doubles_what_can_be_seen() -> None:
    plain = minimum_detectable_gain(0.1, 1000, confidence=0.95)
    assert minimum_detectable_gain(0.1, 1000, confidence=0.95, design_effect=4.0) == pytest.approx(2 * plain)
