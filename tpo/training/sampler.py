"""The order of an epoch: pairs of one view together, everything else by chance."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler

from tpo.records import View


class VideoGroupedSampler(Sampler[int]):
    """Numbers of pairs, so that each `batch_size` of them holds few views, and all processes have as much to do.

    A view's pairs are cut into groups of `pairs_per_video` at most; groups are shuffled and packed into batches, and
    one is taken apart only where nothing else fills a batch. Batches of one optimizer step are ordered by their number
    of groups, which changes nothing but that the processes, which take them in turns, wait less for each other.

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
        self._most = min(pairs_per_video, batch_size)
        self._num_processes, self._seed, self._in_order, self._epoch = num_processes, seed, in_order, epoch

    def __len__(self) -> int:
        together = self._batch_size * self._num_processes
        return -(-len(self._views) // together) * together if self._num_processes > 1 else len(self._views)

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self._seed} {self._epoch()}")  # noqa: S311 not for secrets
        numbers = list(range(len(self._views)))
        step_size = self._batch_size * self._batches_per_step
        if self._in_order:
            windows = [numbers[first : first + step_size] for first in range(0, len(numbers), step_size)]
            batches = [batch for window in windows for batch in self._packed(self._groups(window))]
        else:
            chance.shuffle(numbers)
            groups = self._groups(numbers)
            chance.shuffle(groups)
            batches = self._packed(groups)
        order = []
        for first in range(0, len(batches), self._batches_per_step):
            step = batches[first : first + self._batches_per_step]
            step.sort(key=lambda batch: (len(batch) < self._batch_size, self._num_groups(batch)))
            order += [number for batch in step for number in batch]
        yield from order
        yield from range(len(self._views), len(self))

    def _groups(self, numbers: Sequence[int]) -> list[list[int]]:
        by_view = defaultdict(list)
        for number in numbers:
            by_view[self._views[number]].append(number)
        most = self._most
        return [pairs[first : first + most] for pairs in by_view.values() for first in range(0, len(pairs), most)]

    def _packed(self, groups: Sequence[list[int]]) -> list[list[int]]:
        """Batches of exactly `batch_size`, but for the last.

        Each begins with the next group and goes on with the largest that still fits.
        """
        waiting: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)  # by size, the next one last
        for place, group in reversed(list(enumerate(groups))):
            waiting[len(group)].append((place, group))
        batches: list[list[int]] = []
        room = 0
        while any(waiting.values()):
            if not room:
                batches.append([])
                room = self._batch_size
            sizes = [size for size, of_size in waiting.items() if of_size]
            fitting = [size for size in sizes if size <= room] or sizes
            chosen = fitting if room == self._batch_size else [max(fitting)]
            place, group = min(waiting[size][-1] for size in chosen)
            waiting[len(group)].pop()
            batches[-1] += group[:room]
            if group[room:]:
                waiting[len(group[room:])].append((place, group[room:]))
            room = max(0, room - len(group))
        return batches

    def _num_groups(self, batch: Sequence[int]) -> int:
        return len({self._views[number] for number in batch})
