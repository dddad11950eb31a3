"""Cells and difference maps: counted by hand, intervals against closed forms and published figures."""

import csv
import io
import math
from itertools import product

import numpy as np
import pytest

from tpo.evaluation.intervals import wilson
from tpo.evaluation.needle import Control, Needle, NeedleCase
from tpo.evaluation.needle_map import (
    Cell,
    _newcombe,
    cells,
    difference_csv,
    difference_map,
    map_csv,
    needle_maps,
    needle_metrics,
)
from tpo.evaluation.scoring import predict, predict_failure
from tpo.params import NeedleMode
from tpo.records import Item, NeedleShown, Prediction, PredictionStatus, Role, Video, View, ViewKind

VIDEO = Video(
    id="a" * 64, path="clips/a.mp4", size_bytes=1, duration_s=60, fps=10, num_frames=600, width=64, height=64,
    rotation_deg=0, codec="h264", is_vfr=False, has_audio=False, last_frame_s=59.9, longest_frame_s=0.1,
    num_restarts=1, brightness=90.0, change=3.0,
)  # fmt: skip


def case(name: str, mode: NeedleMode, length: float, depth: float | None) -> NeedleCase:
    item = Item(
        id=name, benchmark="needle", video="haystacks/h.mp4", question="?", options=("a", "b"), gold=0,
        duration_group=f"{length}", category=mode,
    )  # fmt: skip
    return NeedleCase(
        item=item, mode=mode, num_frames=8, needle_frames=2, length=length, depth=depth,
        control=Control.ABSENT if depth is None else None, needle=Needle(item=item, clip=VIDEO), haystack=VIDEO,
    )  # fmt: skip


CASES = [
    *(case(f"near-{n}", "after_sampling", 16, 0.0) for n in range(4)),
    *(case(f"far-{n}", "in_video", 10, 1.0) for n in range(4)),
    *(case(f"absent-{n}", "in_video", 10, None) for n in range(4)),
]


def shown(missed: set[str]) -> list[NeedleShown]:
    view = View(video_id="a" * 64, kind=ViewKind.NEEDLE, timestamps_s=(0.0, 1.0))
    return [
        NeedleShown(
            item_id=one.item.id,
            path="hay.mp4",
            view=view,
            positions=() if one.item.id in missed or one.depth is None else (1,),
            needle_s=() if one.item.id in missed or one.depth is None else (0.5,),
        )
        for one in CASES
    ]


def answers(right: set[str], role: Role = "base") -> list[Prediction]:
    return [predict(one.item, role, (-1.0, -2.0) if one.item.id in right else (-2.0, -1.0)) for one in CASES]


BASE = {"near-0", "near-1", "near-2", "far-0", "absent-3"}
TUNED = {"near-0", "near-1", "far-0", "far-1", "far-2", "absent-3"}


def by_name(found: list[Cell]) -> dict[str, Cell]:
    return {one.items[0].split("-")[0]: one for one in found}


def test_a_cell_counts_its_own_questions_and_a_control_has_a_cell_of_its_own() -> None:
    found = by_name(cells(CASES, shown(set()), answers(BASE), confidence=0.95))
    assert {name: (one.accuracy, len(one.items)) for name, one in found.items()} == {
        "near": (0.75, 4), "far": (0.25, 4), "absent": (0.25, 4),
    }  # fmt: skip
    assert found["near"].correct == ("near-0", "near-1", "near-2")
    assert (found["far"].mode, found["far"].length, found["far"].depth) == ("in_video", 10, 1.0)
    assert found["absent"].control is Control.ABSENT
    assert found["absent"].depth is None


def test_questions_whose_needle_was_not_sampled_are_counted_apart() -> None:
    found = by_name(cells(CASES, shown({"far-2", "far-3"}), answers(BASE), confidence=0.95))
    far = found["far"]
    assert far.not_sampled == ("far-2", "far-3")
    assert (far.accuracy, far.accuracy_sampled) == (0.25, 0.5)
    assert found["absent"].not_sampled == (), "no needle was there to be sampled"
    none = by_name(cells(CASES, shown({f"far-{n}" for n in range(4)}), answers(BASE), confidence=0.95))["far"]
    assert none.accuracy_sampled is None


def test_a_question_that_was_not_asked_or_was_asked_of_another_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="the model was not asked near-0"):
        cells(CASES, shown(set()), answers(BASE)[1:], confidence=0.95)
    mixed = [*answers(BASE)[:5], *answers(BASE, "tuned")[5:]]
    with pytest.raises(ValueError, match="expected predictions of one model, got those of base, tuned"):
        cells(CASES, shown(set()), mixed, confidence=0.95)


def test_the_difference_is_of_the_same_questions_cell_by_cell() -> None:
    before, after = (
        cells(CASES, shown(set()), answers(right, role), confidence=0.95)
        for right, role in ((BASE, "base"), (TUNED, "tuned"))
    )
    found = {
        one.mode if one.control is None else "absent": one for one in difference_map(before, after, confidence=0.95)
    }
    assert {name: one.difference for name, one in found.items()} == {
        "after_sampling": -0.25, "in_video": 0.5, "absent": 0.0,
    }  # fmt: skip
    assert (found["in_video"].gained, found["in_video"].lost) == (("far-1", "far-2"), ())
    assert (found["after_sampling"].gained, found["after_sampling"].lost) == ((), ("near-2",))
    assert all(one.low < one.difference < one.high for one in found.values()), "four questions leave much open"
    with pytest.raises(ValueError, match="not asked the same questions"):
        difference_map(before, after[:2], confidence=0.95)


def test_the_paired_limits_are_the_published_ones() -> None:
    """Newcombe 1998, method 10: 36, 12, 2, 0 of 50; Fagerland et al. 2014, airway data: 1, 1, 7, 12 of 21."""
    assert _newcombe(36, 12, 2, 50, 0.95) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert _newcombe(1, 1, 7, 21, 0.95) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_paired_limits_turn_round_with_the_models_and_have_a_width_without_any_change() -> None:
    low, high = _newcombe(3, 4, 1, 10, 0.95)
    assert _newcombe(3, 1, 4, 10, 0.95) == pytest.approx((-high, -low))
    for both in (0, 5, 10):
        low, high = _newcombe(both, 0, 0, 10, 0.95)
        assert low < -0.05 < 0.05 < high
        assert low >= -1
        assert high <= 1


@pytest.mark.parametrize("shares", [(0.3, 0.2, 0.2), (0.6, 0.2, 0.05), (0.1, 0.3, 0.1), (0.45, 0.05, 0.05)])
def test_about_nineteen_of_twenty_intervals_hold_the_truth_or_more_where_little_changes(
    shares: tuple[float, float, float],
) -> None:
    """Every outcome of twelve questions, weighed by its probability. `shares`: both right, gained, lost."""
    size, neither = 12, 1 - sum(shares)
    covered = total = width = 0.0
    for both, gained, lost in product(range(size + 1), repeat=3):
        rest = size - both - gained - lost
        if rest < 0:
            continue
        ways = math.factorial(size) / math.prod(math.factorial(n) for n in (both, gained, lost, rest))
        weight = ways * math.prod(p**n for p, n in zip((*shares, neither), (both, gained, lost, rest), strict=True))
        low, high = _newcombe(both, gained, lost, size, 0.95)
        covered += weight * (low <= shares[1] - shares[2] <= high)
        width += weight * (high - low)
        total += weight
    assert total == pytest.approx(1)
    assert covered > 0.93
    assert width < 0.85, "of 2, all that is possible"


def test_what_could_not_be_asked_is_wrong_and_counted_apart() -> None:
    status, why = PredictionStatus.TOO_LONG, "4000 tokens"
    said = [
        predict_failure(one.item, "base", status, why) if one.item.id == "near-0" else answer
        for one, answer in zip(CASES, answers(BASE), strict=True)
    ]
    found = by_name(cells(CASES, shown(set()), said, confidence=0.95))
    assert (found["near"].accuracy, found["near"].not_asked) == (0.5, ("near-0",))
    assert found["far"].not_asked == ()


def test_over_all_cells_the_needles_are_what_varies_not_the_depths() -> None:
    """Twenty needles, each asked about at six depths with the same outcome: worth twenty questions, not 120."""
    planned = [
        one.model_copy(update={"item": one.item.model_copy(update={"id": f"{one.item.id} at {depth}"}), "depth": depth})
        for one in (case(f"needle-{n}", "in_video", 10, 0.0) for n in range(20))
        for depth in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]

    def said(role: Role, first_right: int) -> list[Prediction]:
        return [
            predict(one.item, role, (-1, -2) if int(one.needle.item.id.split("-")[1]) < first_right else (-2, -1))
            for one in planned
        ]

    maps = needle_maps(planned, [], said("base", 8) + said("tuned", 13), confidence=0.95)
    found = needle_metrics(planned, maps, confidence=0.95)["in_video"]
    once = wilson(8 / 20, 20, confidence=0.95)
    assert found["base"]["accuracy"] == pytest.approx(
        {"value": 0.4, "low": once.low, "high": once.high, "num_items": 120}, abs=0.01
    )
    low, high = _newcombe(8, 5, 0, 20, 0.95)
    assert found["difference"] == pytest.approx({"value": 0.25, "low": low, "high": high, "num_items": 120}, abs=0.01)
    assert (found["num_not_sampled"], found["num_not_asked"]) == (0, 0)
    one = [case for case in planned if case.needle.item.id == "needle-0"]
    alone = needle_maps(
        one, [], [p for p in said("base", 0) + said("tuned", 1) if p.item_id.startswith("needle-0 ")], confidence=0.95
    )
    assert needle_metrics(one, alone, confidence=0.95)["in_video"]["difference"] == {
        "value": 1, "low": -1, "high": 1, "num_items": 6,
    }  # fmt: skip


def test_heat_maps_have_a_row_for_each_cell_with_a_depth() -> None:
    before, after = (
        cells(CASES, shown({"far-3"}), answers(right, role), confidence=0.95)
        for right, role in ((BASE, "base"), (TUNED, "tuned"))
    )
    rows = list(csv.DictReader(io.StringIO(map_csv([*before, *after]))))
    assert [
        (r["mode"], r["length"], r["depth"], r["model"], r["accuracy"], r["n"], r["not_sampled"]) for r in rows
    ] == [
        ("after_sampling", "16.0", "0.0", "base", "0.75", "4", "0"),
        ("in_video", "10.0", "1.0", "base", "0.25", "4", "1"),
        ("after_sampling", "16.0", "0.0", "tuned", "0.5", "4", "0"),
        ("in_video", "10.0", "1.0", "tuned", "0.75", "4", "1"),
    ]
    assert all(float(r["low"]) < float(r["accuracy"]) < float(r["high"]) for r in rows)
    rows = list(csv.DictReader(io.StringIO(difference_csv(difference_map(before, after, confidence=0.95)))))
    assert [(r["mode"], r["difference"], r["gained"], r["lost"]) for r in rows] == [
        ("after_sampling", "-0.25", "0", "1"), ("in_video", "0.5", "2", "0"),
    ]  # fmt: skip
    assert not any(np.isnan(float(r["low"])) for r in rows)
