"""How far people agree with each other, and with the judge."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from tpo.curation.reviews import UNDECIDED, decided
from tpo.evaluation.intervals import Interval, share_interval
from tpo.records import Record, ReviewVerdict

Standing = Mapping[str, Mapping[str, ReviewVerdict]]
_CONFIDENCE = 0.95


class Agreement(Record):
    """Two reviewers on the pairs that both judged.

    `kappa` is Cohen's (Educational and Psychological Measurement 20, 1960); none where both say one and the same of
    everything, which leaves nothing to agree on beyond chance.
    """

    reviewers: tuple[str, str]
    num_pairs: int
    same: float
    kappa: float | None


class Summary(Record):
    """What was reviewed, of the pairs that there are now."""

    num_pairs: int
    num_reviewed: int
    num_lines_of_others: int
    verdicts: dict[str, int]
    by_reviewer: dict[str, dict[str, int]]
    accepted: Interval | None
    agreement: tuple[Agreement, ...]


def cohen_kappa(first: Sequence[ReviewVerdict], second: Sequence[ReviewVerdict]) -> float | None:
    """(observed - expected) / (1 - expected) agreement of two people on the same pairs."""
    same = float(np.mean([a == b for a, b in zip(first, second, strict=True)]))
    often, also = Counter(first), Counter(second)
    by_chance = sum(often[verdict] * also[verdict] for verdict in ReviewVerdict) / len(first) ** 2
    return None if by_chance == 1 else (same - by_chance) / (1 - by_chance)


def agreements(said: Standing) -> list[Agreement]:
    """Of every two reviewers who have pairs in common."""
    found = []
    for two in combinations(sorted({reviewer for of_pair in said.values() for reviewer in of_pair}), 2):
        common = [tuple(of_pair[one] for one in two) for of_pair in said.values() if all(one in of_pair for one in two)]
        if common:
            first, second = zip(*common, strict=True)
            same = float(np.mean([a == b for a, b in common]))
            kappa = cohen_kappa(first, second)
            found.append(Agreement(reviewers=two, num_pairs=len(common), same=same, kappa=kappa))
    return found


def summarize(video_of: Mapping[str, str], said: Standing) -> Summary:
    """Of the pairs that the judge kept, given as the video of each."""
    here = {pair_id: of_pair for pair_id, of_pair in said.items() if pair_id in video_of}
    together = {pair_id: decided(of_pair.values()) for pair_id, of_pair in here.items()}
    by_reviewer: dict[str, Counter[str]] = {}
    for of_pair in here.values():
        for reviewer, verdict in of_pair.items():
            by_reviewer.setdefault(reviewer, Counter())[verdict.value] += 1
    accepted = None
    if together:
        values = np.array([verdict is ReviewVerdict.ACCEPT for verdict in together.values()], float)
        accepted = share_interval(values, np.array([video_of[one] for one in together]), confidence=_CONFIDENCE)
    return Summary(
        num_pairs=len(video_of),
        num_reviewed=len(here),
        num_lines_of_others=len(said) - len(here),
        verdicts=dict(sorted(Counter(verdict or UNDECIDED for verdict in together.values()).items())),
        by_reviewer={reviewer: dict(sorted(counts.items())) for reviewer, counts in sorted(by_reviewer.items())},
        accepted=accepted,
        agreement=tuple(agreements(here)),
    )


def to_text(summary: Summary) -> str:
    """A few lines for the terminal. Names are shown as Python strings, so that they cannot act on it."""
    of_all = f"{summary.num_reviewed} of {summary.num_pairs} pairs that the judge kept were reviewed"
    lines = [f"{of_all}: {_counts(summary.verdicts)}"]
    if summary.accepted is not None:
        low, high = summary.accepted.low, summary.accepted.high
        lines.append(f"accepted: {summary.accepted.value:.1%}, {_CONFIDENCE:.0%} interval {low:.1%} to {high:.1%}")
    lines += [f"  {reviewer!r}: {_counts(counts)}" for reviewer, counts in summary.by_reviewer.items()]
    for one in summary.agreement:
        first, second = one.reviewers
        kappa = "kappa undefined: both say the same of all" if one.kappa is None else f"Cohen's kappa {one.kappa:.2f}"
        lines.append(f"{first!r} and {second!r}: {kappa}, the same verdict on {one.same:.0%} of {one.num_pairs} pairs")
    if summary.num_lines_of_others:
        lines.append(f"{summary.num_lines_of_others} more reviewed pairs are not among those that the judge kept")
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none yet"
