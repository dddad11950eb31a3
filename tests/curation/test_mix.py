"""Which of the judged pairs are trained on: size, ratio, balance, lengths, and what becomes of the others."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from tpo.curation.mix import Mixed, measure_lengths, mix_pairs
from tpo.errors import UserError
from tpo.params import MixParams
from tpo.records import Granularity, PreferencePair, QuestionType, Reason, View, ViewKind

LOCALIZED, COMPREHENSIVE = Granularity.LOCALIZED, Granularity.COMPREHENSIVE


def a_pair(number: int, **changes: object) -> PreferencePair:
    view = View(video_id="v", kind=ViewKind.DENSE, timestamps_s=(0.0,))
    fields: dict[str, object] = {
        "id": f"p{number}", "video_id": "v", "query_id": f"q{number}", "granularity": LOCALIZED,
        "question_type": QuestionType.TEMPORAL_REASONING, "question": "?", "view": view, "chosen": "a", "rejected": "b",
        "chosen_tokens": 5, "rejected_tokens": 5, "chosen_view": view, "rejected_view": view, "segment": None,
        "model_id": "m", "verdicts": (), "judge": "rule",
    }  # fmt: skip
    return PreferencePair.model_validate(fields | changes)


def some_pairs(localized: int, comprehensive: int) -> list[PreferencePair]:
    kinds = [LOCALIZED] * localized + [COMPREHENSIVE] * comprehensive
    return [a_pair(number, granularity=kind) for number, kind in enumerate(kinds)]


def many_pairs(seed: int = 0, count: int = 300) -> list[PreferencePair]:
    """Of 20 videos, all kinds, with lengths and difficulties."""
    rng = np.random.default_rng(seed)
    types = list(QuestionType)
    return [
        a_pair(
            number,
            video_id=f"video {rng.integers(20)}",
            granularity=list(Granularity)[int(rng.random() < 0.3)],
            question_type=types[min(int(rng.exponential(2)), 7)],
            chosen_tokens=int(rng.integers(3, 40)),
            rejected_tokens=int(rng.integers(1, 25)),
            rejected_view=View(
                video_id="v", kind=ViewKind.SPARSE, timestamps_s=(0.0,), difficulty=float(rng.integers(5)) / 4
            ),
        )
        for number in range(count)
    ]


def mixed(pairs: list[PreferencePair], seed: int = 0, **settings: object) -> Mixed:
    params = MixParams.model_validate({"max_pairs": None, "localized_share": None} | settings)
    return mix_pairs(pairs, params, seed)


def sizes(pairs: list[PreferencePair]) -> tuple[int, int]:
    localized = sum(pair.granularity is LOCALIZED for pair in pairs)
    return localized, len(pairs) - localized


@pytest.mark.parametrize(
    ("have", "max_pairs", "localized_share", "expected"),
    [
        ((6, 4), None, None, (6, 4)),  # no wish: whatever there is
        ((6, 4), 100, None, (6, 4)),
        ((60, 40), 10, None, (6, 4)),  # a size alone keeps the ratio that is there
        ((60, 40), 10, 0.5, (5, 5)),  # the paper's
        ((60, 4), None, 0.5, (4, 4)),  # the scarcer kind sets the size
        ((60, 3), None, 0.7, (7, 3)),
        ((0, 9), None, 0.5, (0, 0)),
        ((9, 5), None, 1.0, (9, 0)),
        ((9, 5), None, 0.0, (0, 5)),
        ((9, 9), 3, 0.5, (2, 1)),  # an odd size is not exceeded
        ((9, 9), 5, 0.5, (2, 3)),  # nor missed
        ((0, 0), None, None, (0, 0)),
    ],
)
def test_size_and_ratio_hold_and_the_rest_is_set_aside(
    have: tuple[int, int], max_pairs: int | None, localized_share: float | None, expected: tuple[int, int]
) -> None:
    found = mixed(some_pairs(*have), max_pairs=max_pairs, localized_share=localized_share)
    assert sizes(found.trained_on) == expected
    assert {rejection.reason for rejection in found.rejections} <= {Reason.OVER_QUOTA}
    assert len(found.trained_on) + len(found.rejections) == sum(have)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.5, 0.7, 0.9])
def test_no_quota_is_ever_more_than_there_is(share: float) -> None:
    for localized in range(12):
        for comprehensive in range(12):
            kept = mixed(some_pairs(localized, comprehensive), max_pairs=7, localized_share=share).trained_on
            total = min(7, int(localized / share + 1e-9), int(comprehensive / (1 - share) + 1e-9))
            assert len(kept) == total, "so no kind fell short of its quota"
            assert abs(sizes(kept)[0] - total * share) <= 0.5


def test_the_draw_is_random_over_all_pairs_and_repeatable() -> None:
    pairs = some_pairs(100, 100)
    kept = mixed(pairs, max_pairs=20, localized_share=0.5).trained_on
    assert mixed(pairs, max_pairs=20, localized_share=0.5).trained_on == kept
    assert mixed(pairs, 1, max_pairs=20, localized_share=0.5).trained_on != kept
    assert max(int(pair.id[1:]) for pair in kept if pair.granularity is LOCALIZED) > 30


EVERYTHING = {
    "max_pairs": 80,
    "localized_share": 0.5,
    "max_pairs_per_video": 9,
    "balance_types": True,
    "held_out_share": 0.2,
    "max_length_ratio": 1.1,
    "order": "easy_to_hard",
}


@pytest.mark.parametrize("settings", [{}, EVERYTHING, *({name: value} for name, value in EVERYTHING.items())])
@pytest.mark.parametrize("seed", range(3))
def test_every_pair_ends_once_trained_on_held_out_or_set_aside(settings: dict[str, object], seed: int) -> None:
    pairs = many_pairs(seed)
    found = mixed(pairs, seed, **settings)
    ended = [pair.id for pair in found.trained_on + found.held_out] + [one.item for one in found.rejections]
    assert sorted(ended) == sorted(pair.id for pair in pairs)
    assert {pair.video_id for pair in found.trained_on}.isdisjoint(pair.video_id for pair in found.held_out)
    assert found.report.pairs_in == len(pairs)
    assert sum(found.report.trained_on.values()) == sum(found.report.types.values()) == len(found.trained_on)


def test_whole_videos_are_held_out_and_stay_on_their_side_when_others_come() -> None:
    pairs = many_pairs()
    found = mixed(pairs, held_out_share=0.2)
    out = {pair.video_id for pair in found.held_out}
    assert len(out) == 4
    assert [pair for pair in pairs if pair.video_id in out] == found.held_out, "with all of their pairs"
    more = mixed([*pairs, a_pair(1000, video_id="new"), a_pair(1001, video_id="newer")], held_out_share=0.2)
    assert len(out - {pair.video_id for pair in more.held_out}) <= 1
    assert {pair.video_id for pair in mixed(pairs, 1, held_out_share=0.2).held_out} != out


@pytest.mark.parametrize(("num_videos", "share", "expected"), [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (9, 0, 0)])
def test_something_is_held_out_and_something_is_left(num_videos: int, share: float, expected: int) -> None:
    pairs = [a_pair(number, video_id=str(number)) for number in range(num_videos)]
    assert len(mixed(pairs, held_out_share=share).held_out) == expected


def test_a_video_gives_no_more_than_its_cap_of_every_kind_some() -> None:
    pairs = [
        *(a_pair(number) for number in range(20)),
        *(a_pair(20 + number, granularity=COMPREHENSIVE) for number in range(2)),
        *(a_pair(30 + number, video_id="other") for number in range(3)),
    ]
    found = mixed(pairs, max_pairs_per_video=4)
    assert Counter(pair.video_id for pair in found.trained_on) == {"v": 4, "other": 3}
    assert sizes([pair for pair in found.trained_on if pair.video_id == "v"]) == (2, 2)
    assert {one.reason for one in found.rejections} == {Reason.OVER_VIDEO_CAP}


def test_lengths_are_always_measured_over_those_that_are_known() -> None:
    pairs = [
        a_pair(0, chosen_tokens=8, rejected_tokens=2),
        a_pair(1, chosen_tokens=4, rejected_tokens=4),
        a_pair(2, chosen_tokens=None, rejected_tokens=None),
    ]
    found = measure_lengths(pairs)
    assert (found.pairs, found.chosen_mean, found.rejected_mean, found.ratio_of_means) == (2, 6, 3, 2)
    assert found.share_chosen_longer == 0.5
    assert mixed(pairs).report.lengths == found
    assert measure_lengths(pairs[2:]).ratio_of_means is None


@pytest.mark.parametrize("seed", range(30))
def test_as_few_pairs_as_possible_go_for_lengths_to_match(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [
        a_pair(n, chosen_tokens=int(rng.integers(1, 20)), rejected_tokens=int(rng.integers(1, 12))) for n in range(9)
    ]
    found = mixed(pairs, max_length_ratio=1.2)
    dropped = [one.item for one in found.rejections]
    before = measure_lengths(pairs).ratio_of_means
    assert before is not None
    longer = before > 1

    def fits(kept: list[PreferencePair]) -> bool:
        ratio = measure_lengths(kept).ratio_of_means
        return ratio is None or (ratio <= 1.2 + 1e-9 if longer else 1 / ratio <= 1.2 + 1e-9)

    assert fits(found.trained_on)
    if dropped:
        fewer = combinations(pairs, len(pairs) - len(dropped) + 1)
        assert not any(fits(list(kept)) for kept in fewer)
        assert {one.reason for one in found.rejections} == {Reason.LENGTH_BIAS}


def test_no_type_has_more_than_its_fair_share_and_scarce_ones_leave_theirs_to_others() -> None:
    counts = {"temporal_reasoning": 50, "descriptive": 30, "spatial_reasoning": 4}
    pairs = [
        a_pair(100 * number + n, question_type=kind)
        for number, (kind, count) in enumerate(counts.items())
        for n in range(count)
    ]
    assert mixed(pairs, balance_types=True).report.types == dict.fromkeys(sorted(counts), 4)
    of_30 = mixed(pairs, balance_types=True, max_pairs=30)
    assert of_30.report.types == {"descriptive": 13, "spatial_reasoning": 4, "temporal_reasoning": 13}
    assert "types are not even: 4 pairs of spatial_reasoning, up to 13 of others" in of_30.report.shortfalls
    assert mixed(pairs, balance_types=True, max_pairs=1000).report.types == dict(sorted(counts.items()))


def test_easy_pairs_come_first_and_those_of_unknown_difficulty_last() -> None:
    pairs = [*many_pairs(), a_pair(999, rejected_view=None)]
    train = mixed(pairs, order="easy_to_hard").trained_on
    known = [pair.rejected_view.difficulty for pair in train if pair.rejected_view]
    assert known == sorted(known)
    assert train[-1].id == "p999"
    alike = [pair.id for pair in train if pair.rejected_view and pair.rejected_view.difficulty == 0]
    assert alike != sorted(alike, key=lambda name: int(name[1:])), "in no order among themselves"


def test_what_fell_short_is_told_with_numbers() -> None:
    told = mixed(some_pairs(60, 4), max_pairs=20, localized_share=0.5).report
    assert told.shortfalls == [
        "8 pairs to train on, 20 were asked for",
        "comprehensive pairs are too few for a localized share of 0.5: {'comprehensive': 4, 'localized': 60}",
    ]
    assert told.localized_share == 0.5
    assert mixed(some_pairs(0, 9), localized_share=0.5).report.shortfalls[-1].startswith("localized pairs are too few")
    assert mixed(some_pairs(60, 40), max_pairs=20, localized_share=0.5).report.shortfalls == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"localized_share": 0.5}, "whether 1 pairs are localized is not known"),
        ({"max_length_ratio": 1.5}, "the lengths of pair p1 are not known: it was imported"),
        ({"order": "easy_to_hard"}, "no pair has a view with a difficulty"),
    ],
)
def test_a_setting_that_needs_what_imported_pairs_lack_says_so(settings: dict[str, object], message: str) -> None:
    imported = a_pair(
        1, granularity=None, question_type=None, chosen_tokens=None, rejected_tokens=None, chosen_view=None,
        rejected_view=None,
    )  # fmt: skip
    with pytest.raises(UserError, match=message):
        mixed([a_pair(0), imported], **settings)
    assert len(mixed([a_pair(0), imported], balance_types=True, max_pairs=2).trained_on) == 2
