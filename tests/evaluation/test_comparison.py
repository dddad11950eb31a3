import math
import re

import numpy as np
import pytest
from said import BOOTSTRAP, answers, prediction

from tpo.evaluation.comparison import Comparison, compare, score
from tpo.evaluation.intervals import exact_mcnemar, holm, minimum_detectable_gain, wilson
from tpo.records import Condition, Granularity, Method, Prediction, PredictionStatus, Role, Task

ROLES: tuple[Role, Role] = ("base", "tuned")


def overall(base: list[Prediction], tuned: list[Prediction]) -> Comparison:
    return compare(base, tuned, **BOOTSTRAP)[0]


def test_a_model_compared_with_itself_differs_by_nothing_for_sure() -> None:
    table = np.random.default_rng(1).random((20, 3)) < 0.5
    same = overall(answers("base", table), answers("tuned", table))
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert (same.mcnemar_p, same.holm_p, same.gained, same.lost) == (1.0, 1.0, (), ())
    assert same.minimum_detectable_gain is None, "where nothing changed nothing tells how much would have to"
    assert same.before == same.after
    assert same.before.accuracy.low < same.before.accuracy.value < same.before.accuracy.high


def test_gained_and_lost_items_are_listed_and_make_up_the_difference() -> None:
    before = np.array([[1, 0, 0], [0, 1, 0]], bool)
    after = np.array([[0, 1, 1], [0, 1, 0]], bool)
    result = overall(answers("base", before), answers("tuned", after))
    assert (result.gained, result.lost) == (("0-1", "0-2"), ("0-0",))
    assert result.before.accuracy.value == pytest.approx(2 / 6)
    assert result.after.accuracy.value == pytest.approx(3 / 6)
    assert result.difference.value == pytest.approx(1 / 6)
    assert (result.num_items, result.num_videos) == (6, 2)
    assert result.mcnemar_p == exact_mcnemar(2, 1)


def test_the_questions_of_a_video_count_as_one_where_they_go_together() -> None:
    rng = np.random.default_rng(5)
    hard = rng.random((300, 1))  # questions about one video are right or wrong together
    before = np.broadcast_to(hard < 0.5, (300, 4))
    after = np.broadcast_to(hard + rng.normal(0, 0.3, (300, 1)) < 0.6, (300, 4))
    result = overall(answers("base", before), answers("tuned", after))
    change = after.astype(float) - before
    clustered = change.mean(axis=1).std(ddof=1) / math.sqrt(300)
    half_width = (result.difference.high - result.difference.low) / 2
    assert result.standard_error == pytest.approx(clustered)
    assert half_width == pytest.approx(1.96 * clustered, rel=0.06)
    assert half_width > 1.8 * 1.96 * change.std() / math.sqrt(1200)
    share = float(before.mean())
    once = wilson(share, 300, confidence=0.95)
    assert (result.before.accuracy.low, result.before.accuracy.high) == pytest.approx((once.low, once.high), abs=2e-3)
    alone = minimum_detectable_gain(float((change**2).mean()), 1200, confidence=0.95)
    assert result.minimum_detectable_gain == pytest.approx(2 * alone, rel=0.01)


def test_the_same_file_in_two_places_is_one_video() -> None:
    rng = np.random.default_rng(7)
    base, tuned = (answers(role, rng.random((20, 3)) < 0.5, video_id="once") for role in ("base", "tuned"))
    result = overall(base, tuned)
    assert result.num_videos == 1
    assert (result.difference.low, result.difference.high) == (-1, 1)
    moved = [one.model_copy(update={"video_id": "other"}) for one in tuned]
    with pytest.raises(ValueError, match="had another video or gold answer"):
        overall(base, moved)


def test_one_video_says_nothing_about_others() -> None:
    result = overall(answers("base", np.zeros((1, 9), bool)), answers("tuned", np.ones((1, 9), bool)))
    assert (result.difference.value, result.difference.low, result.difference.high) == (1, -1, 1)
    assert (result.after.accuracy.low, result.after.accuracy.high) == (0, 1)
    assert result.standard_error is result.minimum_detectable_gain is None


def test_the_same_seed_gives_the_same_comparison_whatever_the_order() -> None:
    rng = np.random.default_rng(2)
    base, tuned = (answers(role, rng.random((10, 3)) < 0.5) for role in ("base", "tuned"))
    assert overall(base, tuned) == overall(base[::-1], tuned[7:] + tuned[:7])
    assert score(base, confidence=0.95).accuracy.value == overall(base, tuned).before.accuracy.value


def test_every_benchmark_duration_category_and_granularity_is_compared_on_its_own() -> None:
    groups = [
        ("mlvu", "<5min", "order", Granularity.COMPREHENSIVE),
        ("mlvu", ">30min", "order", Granularity.LOCALIZED),
        ("videomme", "short", "OCR Problems", None),
    ]
    base, tuned = [], []
    for number, (benchmark, duration, category, granularity) in enumerate(groups):
        other = {
            "benchmark": benchmark, "duration_group": duration, "category": category, "granularity": granularity
        }  # fmt: skip
        base.append(prediction(str(number), "base", 0, "same name.mp4", **other))
        tuned.append(prediction(str(number), "tuned", number == 1, "same name.mp4", **other))
    comparisons = compare(base, tuned, **BOOTSTRAP)
    found = {(c.benchmark, c.group_by, c.group): (c.num_items, c.after.accuracy.value) for c in comparisons}
    assert found == {
        ("all", "overall", "all"): (3, pytest.approx(1 / 3)),
        ("mlvu", "overall", "all"): (2, 0.5),
        ("mlvu", "duration_group", "<5min"): (1, 0),
        ("mlvu", "duration_group", ">30min"): (1, 1),
        ("mlvu", "category", "order"): (2, 0.5),
        ("mlvu", "granularity", "comprehensive"): (1, 0),
        ("mlvu", "granularity", "localized"): (1, 1),
        ("videomme", "overall", "all"): (1, 0),
        ("videomme", "duration_group", "short"): (1, 0),
        ("videomme", "category", "OCR Problems"): (1, 0),
    }
    assert comparisons[0].num_videos == 2, "the same file name in two benchmarks is two videos"


def test_p_values_are_adjusted_within_the_planned_families_only() -> None:
    base, tuned = [], []
    for benchmark, num_gained in (("mlvu", 12), ("videomme", 8), ("longvideobench", 3)):
        for number in range(20):
            item = {"benchmark": benchmark, "category": "order" if number % 2 else "count"}
            base.append(prediction(f"{benchmark}-{number}", "base", 0, f"{number}.mp4", **item))
            tuned.append(prediction(f"{benchmark}-{number}", "tuned", number < num_gained, f"{number}.mp4", **item))
    found = {(c.benchmark, c.group_by, c.group): c for c in compare(base, tuned, **BOOTSTRAP)}
    pooled = found["all", "overall", "all"]
    assert pooled.holm_p == pooled.mcnemar_p == exact_mcnemar(23, 0)
    benchmarks = [found[name, "overall", "all"] for name in ("mlvu", "videomme", "longvideobench")]
    assert [one.holm_p for one in benchmarks] == holm([exact_mcnemar(number, 0) for number in (12, 8, 3)])
    assert benchmarks[0].holm_p == 3 * benchmarks[0].mcnemar_p
    categories = [found["mlvu", "category", name] for name in ("count", "order")]
    assert [one.holm_p for one in categories] == [2 * exact_mcnemar(6, 0)] * 2


def test_scores_of_spans_are_compared_by_their_mean_and_by_what_became_right() -> None:
    overlaps = {"base": [[0.1], [0.4], [0.9]], "tuned": [[0.3], [0.8], [0.7]]}
    span = {"task": Task.SPAN, "method": Method.GENERATION, "gold": None, "predicted": None, "option_logprobs": ()}
    base, tuned = (answers(role, np.array(table), **span) for role, table in overlaps.items())
    result = overall(base, tuned)
    assert result.difference.value == pytest.approx((1.8 - 1.4) / 3)
    assert result.difference.low < result.difference.value < result.difference.high
    assert (result.gained, result.lost) == (("1-0",), ())
    assert result.task is Task.SPAN


def test_a_champion_is_compared_like_a_base() -> None:
    roles = ("champion", "tuned")
    champion, tuned = (answers(role, np.array([[right], [0]])) for role, right in zip(roles, (1, 0), strict=True))
    result = compare(champion, tuned, roles=roles, **BOOTSTRAP)[0]
    assert (result.roles, result.lost, result.difference.value) == (roles, ("0-0",), -0.5)


def test_what_was_not_answered_is_wrong_over_all_and_absent_over_answered() -> None:
    unread = {"status": PredictionStatus.NONE, "predicted": None}
    said = [prediction(str(n), "base", n < 6, f"{n}.mp4", **(unread if n >= 8 else {})) for n in range(10)]
    result = score(said, confidence=0.95)
    assert result.accuracy.low == pytest.approx(wilson(0.6, 10, confidence=0.95).low)
    assert result.answered is not None
    assert (result.answered.value, result.parse_rate.value) == (0.75, 0.8)
    assert result.parse_rate.low < 0.8 < result.parse_rate.high
    assert {status: number for status, number in result.status.items() if number} == {"ok": 8, "none": 2}
    assert set(result.status) == set(PredictionStatus)


def test_a_model_that_answered_nothing_has_no_accuracy_over_answered() -> None:
    result = score([prediction("a", "base", 0, status=PredictionStatus.ILLEGAL)], confidence=0.95)
    assert (result.answered, result.accuracy.value, result.parse_rate.value) == (None, 0, 0)
    with pytest.raises(ValueError, match="no prediction to score"):
        score([], confidence=0.95)


def test_a_tuned_model_that_became_less_readable_is_seen() -> None:
    base = answers("base", np.ones((20, 1)))
    tuned = [
        prediction(one.item_id, "tuned", 0, one.video, status=PredictionStatus.NONE) if number < 8
        else prediction(one.item_id, "tuned", 1, one.video)
        for number, one in enumerate(base)
    ]  # fmt: skip
    unread = overall(base, tuned).parse_rate_difference
    assert unread.value == pytest.approx(0.4)
    assert 0.1 < unread.low < 0.4 < unread.high < 0.7


@pytest.mark.parametrize(
    ("base", "tuned", "expected"),
    [
        (["a", "b"], ["a"], "1 by only one of them, such as b"),
        (["a"], ["b"], "2 by only one of them, such as a"),
        (["a"], [], "no prediction of the tuned model"),
        ([], ["a"], "no prediction of the base model"),
        (["a", "a"], ["a"], "base model has more than one prediction of a"),
    ],
)
def test_unpaired_predictions_are_refused(base: list[str], tuned: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        overall([prediction(i, "base", 1) for i in base], [prediction(i, "tuned", 1) for i in tuned])


def test_swapped_models_and_changed_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected predictions of the base model, got one of the tuned model"):
        overall([prediction("a", "tuned", 1)], [prediction("a", "base", 1)])
    for other in ({"gold": 1}, {"video": "w.mp4"}, {"defective": True}):
        with pytest.raises(ValueError, match=r"a had another video or gold answer when the tuned model"):
            overall([prediction("a", "base", 1)], [prediction("a", "tuned", 1).model_copy(update=other)])


@pytest.mark.parametrize(
    "other", [{"condition": Condition.TEXT_ONLY}, {"method": Method.GENERATION}, {"task": Task.OPEN}]
)
def test_what_was_asked_in_two_ways_is_not_compared(other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"one task, condition and method, got .*choice/full/logprob"):
        overall([prediction("a", "base", 1)], [prediction("a", "tuned", 1, **other)])


def test_rotations_of_one_item_are_not_compared_as_items() -> None:
    said = [[prediction("a", role, 1, condition=Condition.CIRCULAR, rotation=n) for n in (1, 2)] for role in ROLES]
    with pytest.raises(ValueError, match="rotations of an item's options are not items of their own"):
        overall(*said)
