"""Which of the kept pairs are trained on: size, ratio, and what becomes of the others."""

import pytest

from tpo.curation.mix import mix_pairs
from tpo.params import MixParams
from tpo.records import Granularity, PreferencePair, QuestionType, Reason, View, ViewKind


def some_pairs(localized: int, comprehensive: int) -> list[PreferencePair]:
    view = View(video_id="v", kind=ViewKind.DENSE, timestamps_s=(0.0,))
    kinds = [Granularity.LOCALIZED] * localized + [Granularity.COMPREHENSIVE] * comprehensive
    return [
        PreferencePair(
            id=str(number), video_id="v", query_id=f"q{number}", granularity=kind,
            question_type=QuestionType.TEMPORAL_REASONING, question="?", view=view, chosen="a", rejected="b",
            chosen_view=view, rejected_view=view, segment=None, model_id="m", verdicts=(), judge="rule",
        )
        for number, kind in enumerate(kinds)
    ]  # fmt: skip


def sizes(pairs: list[PreferencePair]) -> tuple[int, int]:
    localized = sum(pair.granularity is Granularity.LOCALIZED for pair in pairs)
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
    pairs = some_pairs(*have)
    params = MixParams(max_pairs=max_pairs, localized_share=localized_share)
    kept, rejections = mix_pairs(pairs, params, seed=0)
    assert sizes(kept) == expected
    assert {rejection.reason for rejection in rejections} <= {Reason.OVER_QUOTA}
    ended = [pair.query_id for pair in kept] + [rejection.item for rejection in rejections]
    assert sorted(ended) == sorted(pair.query_id for pair in pairs)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.5, 0.7, 0.9])
def test_no_quota_is_ever_more_than_there_is(share: float) -> None:
    for localized in range(12):
        for comprehensive in range(12):
            pairs = some_pairs(localized, comprehensive)
            kept, _ = mix_pairs(pairs, MixParams(max_pairs=7, localized_share=share), seed=0)
            total = min(7, int(localized / share + 1e-9), int(comprehensive / (1 - share) + 1e-9))
            assert len(kept) == total, "so no kind fell short of its quota"
            assert abs(sizes(kept)[0] - total * share) <= 0.5


def test_the_draw_is_random_over_all_pairs_and_repeatable() -> None:
    pairs = some_pairs(100, 100)
    params = MixParams(max_pairs=20, localized_share=0.5)
    kept, _ = mix_pairs(pairs, params, seed=0)
    assert mix_pairs(pairs, params, seed=0)[0] == kept
    assert mix_pairs(pairs, params, seed=1)[0] != kept
    assert max(int(pair.id) for pair in kept if pair.granularity is Granularity.LOCALIZED) > 30
