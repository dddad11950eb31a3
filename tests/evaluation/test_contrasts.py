import re

import numpy as np
import pytest
from said import BOOTSTRAP, answers, prediction

from tpo.evaluation.contrasts import Contrast, contrasts
from tpo.records import Condition, Method, Prediction, Role

FULL, SHUFFLED, CIRCULAR = Condition.FULL, Condition.SHUFFLED, Condition.CIRCULAR
RNG = np.random.default_rng(3)
TABLES = {(role, condition): RNG.random((40, 3)) < share for role, condition, share in [
    ("base", FULL, 0.5), ("base", SHUFFLED, 0.45), ("tuned", FULL, 0.8), ("tuned", SHUFFLED, 0.5),
]}  # fmt: skip


def asked(tables: dict[tuple[Role, Condition], np.ndarray]) -> list[Prediction]:
    return [one for (role, condition), table in tables.items() for one in answers(role, table, condition=condition)]


def pooled(predictions: list[Prediction]) -> Contrast:
    found = contrasts(predictions, **BOOTSTRAP)
    assert [one.benchmark for one in found] == ["all", "mlvu"]
    assert found[1] == found[0].model_copy(update={"benchmark": "mlvu"})
    return found[0]


def test_temporal_gain_is_full_minus_shuffled_and_its_growth_is_a_difference_of_differences() -> None:
    found = pooled(asked(TABLES))
    mean = {key: table.mean() for key, table in TABLES.items()}
    assert (found.condition, found.num_items, found.num_videos) == (SHUFFLED, 120, 40)
    assert (found.before.value, found.after.value) == (mean["base", SHUFFLED], mean["tuned", SHUFFLED])
    assert found.difference.value == pytest.approx(mean["tuned", SHUFFLED] - mean["base", SHUFFLED])
    assert found.before_drop.value == pytest.approx(mean["base", FULL] - mean["base", SHUFFLED])
    assert found.after_drop.value == pytest.approx(mean["tuned", FULL] - mean["tuned", SHUFFLED])
    assert found.drop_difference.value == pytest.approx(found.after_drop.value - found.before_drop.value)
    per_video = sum(
        sign * TABLES[key].mean(axis=1)
        for key, sign in {
            ("tuned", FULL): 1,
            ("tuned", SHUFFLED): -1,
            ("base", FULL): -1,
            ("base", SHUFFLED): 1,
        }.items()
    )
    half_width = (found.drop_difference.high - found.drop_difference.low) / 2
    assert half_width == pytest.approx(1.96 * per_video.std(ddof=1) / np.sqrt(40), rel=0.08)


def test_only_items_asked_both_ways_count() -> None:
    everything = asked(TABLES)
    kept = [one for one in everything if one.condition is FULL or int(one.item_id.split("-")[0]) < 10]
    found = pooled(kept)
    assert (found.num_items, found.num_videos) == (30, 10)
    first_ten = {key: table[:10] for key, table in TABLES.items()}
    assert found == pooled(asked(first_ten))


def test_controls_of_each_benchmark_stand_for_themselves() -> None:
    other = [one.model_copy(update={"benchmark": "videomme", "item_id": f"v{one.item_id}"}) for one in asked(TABLES)]
    found = contrasts(asked(TABLES) + other, **BOOTSTRAP)
    assert [(one.benchmark, one.num_videos) for one in found] == [("all", 80), ("mlvu", 40), ("videomme", 40)]


def test_what_was_not_asked_is_not_contrasted() -> None:
    full = [one for one in asked(TABLES) if one.condition is FULL]
    written = [one.model_copy(update={"method": Method.GENERATION}) for one in asked(TABLES)]
    assert contrasts(full + written, **BOOTSTRAP) == contrasts([], **BOOTSTRAP) == []


def rotated(role: Role, item: str, rights: list[int], first: int) -> list[Prediction]:
    return [
        prediction(item, role, right, f"{item}.mp4", condition=CIRCULAR, rotation=rotation)
        for rotation, right in enumerate(rights, start=first)
    ]


@pytest.mark.parametrize("first", [0, 1], ids=["the unrotated options asked again", "asked in full alone"])
def test_circular_is_the_mean_over_rotations_and_strict_wants_all_of_them(first: int) -> None:
    rights = {"base": {"a": [1, 1, 0], "b": [0, 1, 0]}, "tuned": {"a": [1, 1, 1], "b": [1, 0, 1]}}
    said = []
    for role, items in rights.items():
        for item, each in items.items():
            said += [prediction(item, role, each[0], f"{item}.mp4"), *rotated(role, item, each[first:], first)]
    found = pooled(said)
    assert (found.condition, found.num_items) == (CIRCULAR, 2)
    assert (found.before.value, found.after.value) == (pytest.approx(3 / 6), pytest.approx(5 / 6))
    assert found.before_strict is not None
    assert found.after_strict is not None
    assert (found.before_strict.value, found.after_strict.value) == (0, 0.5)
    assert found.after_drop.value == pytest.approx(1 - 5 / 6)


def test_a_rotation_that_only_one_model_was_asked_is_refused() -> None:
    said = [prediction("a", role, 1) for role in ("base", "tuned")]
    said += rotated("base", "a", [1, 1], 1) + rotated("tuned", "a", [1], 1)
    with pytest.raises(ValueError, match="1 by only one of them, such as a"):
        contrasts(said, **BOOTSTRAP)


@pytest.mark.parametrize("left_out", [FULL, SHUFFLED])
def test_a_model_that_was_not_asked_under_one_condition_is_refused(left_out: Condition) -> None:
    kept = [one for one in asked(TABLES) if (one.model, one.condition) != ("tuned", left_out)]
    with pytest.raises(ValueError, match=re.escape("there is no prediction of the tuned model")):
        contrasts(kept, **BOOTSTRAP)
