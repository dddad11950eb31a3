"""The order of an epoch: who comes together, and that nobody is left out."""

from collections import Counter

import pytest

from tpo.records import View, ViewKind
from tpo.training.sampler import VideoGroupedSampler


def views(*counts: int) -> list[View]:
    """As many pairs of each video, in turns."""
    by_video = [
        [View(video_id=str(video), kind=ViewKind.DENSE, timestamps_s=(0.0,))] * count
        for video, count in enumerate(counts)
    ]
    longest = max(counts)
    return [of[turn] for turn in range(longest) for of in by_video if turn < len(of)]


def batches(sampler: VideoGroupedSampler, size: int) -> list[list[int]]:
    order = list(sampler)
    return [order[first : first + size] for first in range(0, len(order), size)]


def sampler(of: list[View], **changes) -> VideoGroupedSampler:
    settings = {"batch_size": 4, "batches_per_step": 2, "pairs_per_video": 4} | changes
    return VideoGroupedSampler(of, **settings)


@pytest.mark.parametrize("counts", [(4, 4, 4, 4), (1, 1, 1, 1, 1), (9, 2, 3), (7,), (3, 3, 3, 2, 1)])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
@pytest.mark.parametrize("in_order", [False, True])
def test_every_pair_comes_once_in_an_epoch(counts: tuple[int, ...], batch_size: int, in_order: bool) -> None:
    of = views(*counts)
    one = sampler(of, batch_size=batch_size, in_order=in_order)
    assert sorted(one) == list(range(len(of)))
    assert len(one) == len(of)


def test_pairs_of_a_video_come_together() -> None:
    of = views(4, 4, 4, 4, 4, 4)
    for batch in batches(sampler(of), 4):
        assert len({of[number] for number in batch}) == 1


def test_where_fewer_pairs_of_a_video_come_together_batches_mix_videos() -> None:
    of = views(8, 8, 8, 8)
    groups = [len({of[number] for number in batch}) for batch in batches(sampler(of, pairs_per_video=2), 4)]
    assert sum(groups) >= len(groups) * 1.5


def test_a_group_is_taken_apart_only_where_nothing_else_fits() -> None:
    of = views(3, 3, 3, 1, 1, 1)
    for seed in range(10):
        for batch in batches(sampler(of, seed=seed), 4):
            assert sorted(Counter(of[number] for number in batch).values()) == [1, 3]


@pytest.mark.parametrize("in_order", [False, True])
def test_which_pairs_make_a_step_does_not_depend_on_how_it_is_split(in_order: bool) -> None:
    of = views(5, 4, 3, 3, 2, 1, 1, 1)
    found = []
    for batch_size, batches_per_step, processes in ((8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (2, 4, 2), (1, 8, 4)):
        one = sampler(
            of, batch_size=batch_size, batches_per_step=batches_per_step, num_processes=processes, in_order=in_order
        )
        found.append([sorted(n for n in step if n < len(of)) for step in batches(one, 8)])
    assert all(steps == found[0] for steps in found)
    assert len(found[0]) == 3


def test_order_goes_by_seed_and_epoch() -> None:
    of = views(2, 2, 2, 2, 2, 2)
    epoch = [0]
    first = list(sampler(of, epoch=lambda: epoch[0]))
    assert list(sampler(of)) == first
    assert list(sampler(of, seed=1)) != first
    epoch[0] = 1
    assert list(sampler(of, epoch=lambda: epoch[0])) != first


def test_in_order_each_step_has_the_pairs_that_come_next() -> None:
    of = views(8, 8)
    order = list(sampler(of, in_order=True))
    assert sorted(order[:8]) == list(range(8))
    assert [of[number].video_id for number in order[:8]] == ["0"] * 4 + ["1"] * 4


@pytest.mark.parametrize("count", [1, 7, 8, 9, 13])
def test_processes_have_as_many_batches_and_what_fills_up_does_not_count(count: int) -> None:
    of = views(count)
    one = sampler(of, num_processes=2)
    order = list(one)
    assert len(order) == len(one)
    assert len(order) % 8 == 0
    assert sorted(number for number in order if number < count) == list(range(count))
    assert [number for number in order if number >= count] == list(range(count, len(order)))


def test_batches_that_run_at_the_same_time_have_as_many_videos() -> None:
    of = views(*[4] * 8, *[1] * 32)
    for seed in range(5):
        found = [
            len({of[n] for n in batch})
            for batch in batches(sampler(of, batches_per_step=16, num_processes=2, seed=seed), 4)
        ]
        assert all(one == other for one, other in zip(found[::2], found[1::2], strict=True))
