"""The order of an epoch: pairs of one view together, everything else by chance."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler

from tpo.records import View


class VideoGroupedSampler(Sampler[int]):
    """Numbers of pairs, so that each `batch_size` of them holds few views, and all processes have as much to do.

    A view's pairs are cut into groups of `pairs_per_video` at most. Groups are shuffled and packed into optimizer
    steps, and each step's into batches; one is taken apart only where nothing else fits. So which pairs make a step
    does not depend on how many processes share it in how large batches. Batches of a step are ordered by their number
    of groups, so that the processes, which take them in turns, wait less for each other.

    With several processes all need as many batches. What is missing is filled up with numbers behind the last view's,
    which stand for pairs that do not count.
    """

    def __init__(
        self,
        views: Sequence[View],
        *,
        batch_size: int,
        batches_per_step: int,
        pairs_per_video: int,
        num_processes: int = 1,
        seed: int = 0,
        in_order: bool = False,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        """`batches_per_step` counts those of all processes. `in_order` keeps each step's pairs as they come."""
        self._views, self._batch_size, self._batches_per_step = views, batch_size, batches_per_step
        self._most = pairs_per_video
        self._num_processes, self._seed, self._in_order, self._epoch = num_processes, seed, in_order, epoch

    def __len__(self) -> int:
        together = self._batch_size * self._num_processes
        return -(-len(self._views) // together) * together if self._num_processes > 1 else len(self._views)

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self._seed} {self._epoch()}")  # noqa: S311 not for secrets
        numbers = list(range(len(self._views)))
        step_size = self._batch_size * self._batches_per_step
        if self._in_order:
            steps = [self._groups(numbers[at : at + step_size]) for at in range(0, len(numbers), step_size)]
        else:
            chance.shuffle(numbers)
            groups = self._groups(numbers)
            chance.shuffle(groups)
            steps = _packed(groups, step_size)
        for step in steps:
            batches = [[number for group in batch for number in group] for batch in _packed(step, self._batch_size)]
            batches.sort(key=lambda batch: (len(batch) < self._batch_size, self._num_groups(batch)))
            yield from (number for batch in batches for number in batch)
        yield from range(len(self._views), len(self))

    def _groups(self, numbers: Sequence[int]) -> list[list[int]]:
        by_view = defaultdict(list)
        for number in numbers:
            by_view[self._views[number]].append(number)
        most = self._most
        return [pairs[first : first + most] for pairs in by_view.values() for first in range(0, len(pairs), most)]

    def _num_groups(self, batch: Sequence[int]) -> int:
        return len({self._views[number] for number in batch})


def _packed(groups: Sequence[list[int]], size: int) -> list[list[list[int]]]:
    """Groups in packs of exactly `size` pairs, but for the last.

    Each pack begins with the next group and goes on with the largest that still fits.
    """
    waiting: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)  # by size, the next one last
    for place, group in reversed(list(enumerate(groups))):
        waiting[len(group)].append((place, group))
    packs: list[list[list[int]]] = []
    room = 0
    while any(waiting.values()):
        if not room:
            packs.append([])
            room = size
        sizes = [of for of, some in waiting.items() if some]
        fitting = [of for of in sizes if of <= room] or sizes
        place, group = min(waiting[of][-1] for of in (fitting if room == size else [max(fitting)]))
        waiting[len(group)].pop()
        packs[-1].append(group[:room])
        if group[room:]:
            waiting[len(group[room:])].append((place, group[room:]))
        room = max(0, room - len(group))
    return packs
