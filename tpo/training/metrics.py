"""Means over pairs, however they were split into rows, micro-batches and processes."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object

from tpo.training.reference import TokenScores


class PairMeans:
    """Running means of several quantities; each has its own number of pairs, as one of a granularity may have none."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, means: Mapping[str, float], num_pairs: int) -> None:
        """What held on average for so many pairs."""
        for name, mean in means.items():
            self._sums[name][0] += mean * num_pairs
            self._sums[name][1] += num_pairs

    def add_pair(
        self, granularity: str | None, chosen: torch.Tensor, rejected: torch.Tensor, reference: TokenScores, beta: float
    ) -> None:
        """How far a pair's answers drifted from the reference, and their lengths: over all pairs and by granularity.

        Pairs from elsewhere may have no granularity.

        Args:
            chosen: log-probability of each token of the answer, float [tokens]; `rejected` likewise.
        """
        drift_chosen = chosen.sum().item() - sum(reference.chosen)
        drift_rejected = rejected.sum().item() - sum(reference.rejected)
        drift = {
            "drift/chosen": drift_chosen,
            "drift/rejected": drift_rejected,
            "tokens/chosen": len(chosen),
            "tokens/rejected": len(rejected),
        }
        margin = drift_chosen - drift_rejected
        self.add(drift, 1)
        preference = {"margins": beta * margin, "accuracies": float(margin > 0)}
        if granularity is not None:
            self.add({f"{granularity}/{name}": value for name, value in (drift | preference).items()}, 1)

    def take(self) -> dict[str, float]:
        """The means over the pairs of all processes, which all must ask at once; begins anew."""
        together: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for sums in gather_object([dict(self._sums)]):
            for name, (total, num_pairs) in sums.items():
                together[name][0] += total
                together[name][1] += num_pairs
        self._sums.clear()
        return {name: total / num_pairs for name, (total, num_pairs) in together.items() if num_pairs}


class OneProcess:
    """An accelerator that gathers nothing: rows differ in how many pairs they hold, and means come together later."""

    def __init__(self, everyone: Any) -> None:
        self._everyone = everyone

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        return values

    gather_for_metrics = gather

    def __getattr__(self, name: str) -> Any:
        return getattr(self._everyone, name)
