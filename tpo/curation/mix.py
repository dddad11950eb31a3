"""mix: which of the judged pairs are trained on. The paper trains on 10,000, localized and comprehensive half and half.

What people who reviewed pairs do not accept is set aside before all else. Videos are drawn first that are held out;
then pairs are set aside, in this order: more than a video may give, the longest of the longer side where lengths differ
too much, more than a type's fair share, and more than size and ratio take. What is too few is never filled up; the
report says so.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

import numpy as np
from pydantic import BaseModel

from tpo.curation.reviews import UNDECIDED, decided, standing
from tpo.errors import UserError
from tpo.params import MixParams
from tpo.progress import waiting
from tpo.records import Granularity, PreferencePair, Reason, Rejection, Review, ReviewVerdict, content_id

STAGE = "mix"
UNKNOWN = "unknown"
Pairs = list[PreferencePair]


class Lengths(BaseModel, extra="forbid"):
    """How long chosen and rejected answers are, in tokens, over the pairs whose lengths are known.

    DPO sums log-probabilities over tokens, so that a model may learn to be long where the chosen answers are.
    """

    pairs: int
    chosen_mean: float | None
    rejected_mean: float | None
    chosen_median: float | None
    rejected_median: float | None
    ratio_of_means: float | None
    share_chosen_longer: float | None


class MixReport(BaseModel, extra="forbid"):
    """`data/pairs/mix.json`: what was asked for, what came, and in plain words what fell short."""

    asked: dict[str, object]
    pairs_in: int
    reviewed: dict[str, int] = {}
    trained_on: dict[str, int]
    held_out: dict[str, int]
    videos: dict[str, int]
    types: dict[str, int]
    localized_share: float | None
    difficulty: dict[str, list[float]]
    lengths_before: Lengths
    lengths: Lengths
    shortfalls: list[str]


@dataclass(frozen=True)
class Mixed:
    """`trained_on` is in the order of training."""

    trained_on: Pairs
    held_out: Pairs
    rejections: list[Rejection]
    report: MixReport


@waiting("mixing pairs")
def mix_pairs(pairs: Sequence[PreferencePair], params: MixParams, seed: int, reviews: Sequence[Review] = ()) -> Mixed:
    """Draw what is trained on. Every pair ends in one of three places.

    Args:
        reviews: what people said. A pair that most of its reviewers do not accept is set aside; where they are divided
            evenly it stays, and the report counts it as undecided.

    Raises:
        UserError: a setting needs what is not known of imported pairs: granularity, lengths or difficulty.
    """
    fit, rejections, reviewed = _as_reviewed(pairs, reviews)
    held_out, rest = _split(fit, params.held_out_share, seed)
    rng = np.random.default_rng(seed)
    kept = [rest[i] for i in rng.permutation(len(rest))]
    for step in (_cap_videos, _match_lengths, _balance_types, _to_size):
        kept, dropped = step(kept, params)
        rejections += dropped
    train = _easy_to_hard(kept) if params.order == "easy_to_hard" else kept
    report = _report(pairs, rest, train, held_out, params).model_copy(update={"reviewed": reviewed})
    return Mixed(train, held_out, rejections, report)


def measure_lengths(pairs: Iterable[PreferencePair]) -> Lengths:
    known = [
        (pair.chosen_tokens, pair.rejected_tokens)
        for pair in pairs
        if pair.chosen_tokens is not None and pair.rejected_tokens is not None
    ]
    if not known:
        nothing = dict.fromkeys(Lengths.model_fields, None)
        return Lengths.model_validate(nothing | {"pairs": 0})
    chosen, rejected = zip(*known, strict=True)
    return Lengths(
        pairs=len(known),
        chosen_mean=mean(chosen),
        rejected_mean=mean(rejected),
        chosen_median=median(chosen),
        rejected_median=median(rejected),
        ratio_of_means=mean(chosen) / mean(rejected) if mean(rejected) else None,
        share_chosen_longer=mean(first > second for first, second in known),
    )


def _as_reviewed(
    pairs: Sequence[PreferencePair], reviews: Sequence[Review]
) -> tuple[Pairs, list[Rejection], dict[str, int]]:
    """Pairs that nobody reviewed or that were not turned down, those that were, and how many were reviewed how."""
    said = standing(reviews)
    fit: Pairs = []
    rejections = []
    counts: Counter[str] = Counter()
    for pair in pairs:
        verdicts = said.get(pair.id, {}).values()
        verdict = decided(verdicts)
        if verdicts:
            counts[verdict or UNDECIDED] += 1
        if verdict in (None, ReviewVerdict.ACCEPT):
            fit.append(pair)
            continue
        accepted = sum(one is ReviewVerdict.ACCEPT for one in verdicts)
        detail = f"{accepted} of {len(verdicts)} who reviewed it accept it"
        rejections.append(Rejection(stage=STAGE, item=pair.id, reason=Reason(f"review_{verdict}"), detail=detail))
    return fit, rejections, dict(sorted(counts.items()))


def _split(pairs: Sequence[PreferencePair], share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Held out and the rest, by video. A video's side depends on its content and the seed, hardly on the others."""
    ordered = sorted({pair.video_id for pair in pairs}, key=lambda video_id: content_id(seed, video_id))
    count = round(len(ordered) * share)
    if share > 0 and len(ordered) > 1:
        count = min(len(ordered) - 1, max(1, count))
    chosen = set(ordered[:count])
    return [pair for pair in pairs if pair.video_id in chosen], [pair for pair in pairs if pair.video_id not in chosen]


def _cap_videos(pairs: Pairs, params: MixParams) -> tuple[Pairs, list[Rejection]]:
    """At most so many pairs a video; of each kind of question in turn, so that none crowds out the others."""
    if params.max_pairs_per_video is None:
        return pairs, []
    kept: set[str] = set()
    for of_video in _grouped(pairs, lambda pair: pair.video_id).values():
        kinds = _grouped(of_video, lambda pair: f"{pair.granularity} {pair.question_type}")
        turns = [(turn, pair.id) for of_kind in kinds.values() for turn, pair in enumerate(of_kind)]
        kept |= {pair_id for _, pair_id in sorted(turns, key=lambda one: one[0])[: params.max_pairs_per_video]}
    detail = f"its video has more than {params.max_pairs_per_video} pairs"
    return _divide(pairs, kept, Reason.OVER_VIDEO_CAP, detail)


def _match_lengths(pairs: Pairs, params: MixParams) -> tuple[Pairs, list[Rejection]]:
    """As few pairs less as it takes for the means to be near: those with the largest surplus on the longer side."""
    limit = params.max_length_ratio
    if limit is None or not pairs:
        return pairs, []
    lengths = {pair.id: _lengths(pair) for pair in pairs}
    chosen, rejected = (sum(side) for side in zip(*lengths.values(), strict=True))
    which = "chosen" if chosen > rejected else "rejected"
    longer = lengths if which == "chosen" else {pair_id: (b, a) for pair_id, (a, b) in lengths.items()}
    # Longer - limit * shorter, summed over all pairs, must not be above zero: the largest go first.
    excess = {pair_id: long - limit * short for pair_id, (long, short) in longer.items()}
    total, kept = sum(excess.values()), set(excess)
    for pair_id in sorted(excess, key=lambda one: -excess[one]):
        if total <= 1e-9 or excess[pair_id] <= 0:
            break
        total -= excess[pair_id]
        kept.remove(pair_id)
    return _divide(pairs, kept, Reason.LENGTH_BIAS, f"its {which} answer is among those that are longer by most")


def _balance_types(pairs: Pairs, params: MixParams) -> tuple[Pairs, list[Rejection]]:
    """No type has more than its fair share of the size that is wanted, or of what an even split allows."""
    groups = _grouped(pairs, lambda pair: pair.question_type or UNKNOWN)
    if not params.balance_types or len(groups) < 2:
        return pairs, []
    sizes = sorted(len(group) for group in groups.values())
    most = _fair_share(sizes, params.max_pairs) if params.max_pairs else sizes[0]
    kept = {pair.id for group in groups.values() for pair in group[:most]}
    return _divide(pairs, kept, Reason.TOO_MANY_OF_TYPE, f"its question type has more than its share, {most}")


def _fair_share(sizes: Sequence[int], total: int) -> int:
    """What the larger types may have for all together to come to `total`: what scarce ones leave is theirs."""
    left = total
    for number, size in enumerate(sizes):
        share = -(-left // (len(sizes) - number))
        if size > share:
            return share
        left -= size
    return max(sizes)


def _to_size(pairs: Pairs, params: MixParams) -> tuple[Pairs, list[Rejection]]:
    """Size and ratio. The scarcer granularity, relative to its share, sets the size, so that the ratio holds."""
    total = len(pairs) if params.max_pairs is None else min(params.max_pairs, len(pairs))
    groups = _grouped(pairs, lambda pair: pair.granularity or UNKNOWN)
    have = {kind: len(groups.get(kind, ())) for kind in Granularity}
    if params.localized_share is None:
        kept = {pair.id for pair in _in_proportion(groups, total)}
    else:
        if UNKNOWN in groups:
            raise UserError(
                f"mix.localized_share is {params.localized_share:g}, but whether {len(groups[UNKNOWN])} pairs are "
                "localized is not known. Set it to null to take them as they come."
            )
        share = {Granularity.LOCALIZED: params.localized_share, Granularity.COMPREHENSIVE: 1 - params.localized_share}
        for kind, part in share.items():
            if part:
                total = min(total, int(have[kind] / part + 1e-9))  # 3 / (1 - 0.7) is a hair less than 10
        localized = round(total * params.localized_share)
        quota = {Granularity.LOCALIZED: localized, Granularity.COMPREHENSIVE: total - localized}
        kept = {pair.id for kind, number in quota.items() for pair in groups.get(kind, [])[:number]}
    return _divide(pairs, kept, Reason.OVER_QUOTA, "more pairs of its granularity than the mix takes")


def _in_proportion(groups: dict[str, Pairs], total: int) -> Pairs:
    """So many of each group that their shares stay as they are; what rounding leaves goes to the largest remainders."""
    have = sum(map(len, groups.values()))
    exact = {name: total * len(group) / max(have, 1) for name, group in groups.items()}
    number = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda one: number[one] - exact[one])[: total - sum(number.values())]:
        number[name] += 1
    return [pair for name, group in groups.items() for pair in group[: number[name]]]


def _easy_to_hard(pairs: Pairs) -> Pairs:
    """By the difficulty of what the rejected answer came from; of those that have none last."""
    if pairs and all(_difficulty(pair) is None for pair in pairs):
        raise UserError("mix.order is easy_to_hard, but no pair has a view with a difficulty. Set it to shuffled.")
    return sorted(pairs, key=lambda pair: _or_last(_difficulty(pair)))


def _or_last(difficulty: float | None) -> float:
    return 2.0 if difficulty is None else difficulty


def _difficulty(pair: PreferencePair) -> float | None:
    return None if pair.rejected_view is None else pair.rejected_view.difficulty


def _lengths(pair: PreferencePair) -> tuple[int, int]:
    if pair.chosen_tokens is None or pair.rejected_tokens is None:
        raise UserError(
            f"mix.max_length_ratio is set, but the lengths of pair {pair.id} are not known: it was imported. Set it to "
            "null to train on such pairs."
        )
    return pair.chosen_tokens, pair.rejected_tokens


def _grouped(pairs: Iterable[PreferencePair], name_of: Callable[[PreferencePair], str]) -> dict[str, Pairs]:
    groups: dict[str, Pairs] = {}
    for pair in pairs:
        groups.setdefault(name_of(pair), []).append(pair)
    return groups


def _divide(pairs: Pairs, kept: set[str], reason: Reason, detail: str) -> tuple[Pairs, list[Rejection]]:
    return [pair for pair in pairs if pair.id in kept], [
        Rejection(stage=STAGE, item=pair.id, reason=reason, detail=detail) for pair in pairs if pair.id not in kept
    ]


def _report(
    pairs: Sequence[PreferencePair], rest: Pairs, train: Pairs, held_out: Pairs, params: MixParams
) -> MixReport:
    kinds = _counts(train, lambda pair: pair.granularity or UNKNOWN)
    known = sum(kinds.get(kind, 0) for kind in Granularity)
    difficulties = _grouped((p for p in train if _difficulty(p) is not None), lambda p: _kind_of_view(p))
    return MixReport(
        asked=params.model_dump(mode="json"),
        pairs_in=len(pairs),
        trained_on=kinds,
        held_out=_counts(held_out, lambda pair: pair.granularity or UNKNOWN),
        videos={"trained on": _num_videos(train), "held out": _num_videos(held_out)},
        types=_counts(train, lambda pair: pair.question_type or UNKNOWN),
        localized_share=kinds.get(Granularity.LOCALIZED, 0) / known if known else None,
        difficulty={kind: _least_middle_most(group) for kind, group in difficulties.items()},
        lengths_before=measure_lengths(rest),
        lengths=measure_lengths(train),
        shortfalls=_shortfalls(rest, train, params),
    )


def _shortfalls(rest: Pairs, train: Pairs, params: MixParams) -> list[str]:
    found = []
    if params.max_pairs is not None and len(train) < params.max_pairs:
        found.append(f"{len(train)} pairs to train on, {params.max_pairs} were asked for")
    have = _counts(rest, lambda pair: pair.granularity or UNKNOWN)
    missing = [kind for kind in Granularity if not have.get(kind)]
    if params.localized_share is not None:
        used = _counts(train, lambda pair: pair.granularity or UNKNOWN)
        scarce = [kind for kind in Granularity if have.get(kind, 0) and used.get(kind, 0) == have[kind]]
        if len(train) < (params.max_pairs or len(rest)) and (scarce or missing):
            names = " and ".join(missing or scarce)
            found.append(f"{names} pairs are too few for a localized share of {params.localized_share:g}: {have}")
    types = _counts(train, lambda pair: pair.question_type or UNKNOWN)
    if params.balance_types and types and min(types.values()) < max(types.values()):
        fewest = min(types, key=lambda kind: types[kind])
        found.append(f"types are not even: {types[fewest]} pairs of {fewest}, up to {max(types.values())} of others")
    limit, ratio = params.max_length_ratio, measure_lengths(train).ratio_of_means
    if limit is not None and ratio is not None and not 1 / limit - 1e-9 <= ratio <= limit + 1e-9:
        found.append(f"chosen answers are {ratio:.2f} times as long as rejected ones, at most {limit:g} was asked for")
    return found


def _counts(pairs: Iterable[PreferencePair], name_of: Callable[[PreferencePair], str]) -> dict[str, int]:
    return {str(name): len(group) for name, group in sorted(_grouped(pairs, name_of).items())}


def _num_videos(pairs: Pairs) -> int:
    return len({pair.video_id for pair in pairs})


def _kind_of_view(pair: PreferencePair) -> str:
    assert pair.rejected_view is not None
    return pair.rejected_view.kind.value


def _least_middle_most(pairs: Pairs) -> list[float]:
    values = [_or_last(_difficulty(pair)) for pair in pairs]
    return [min(values), median(values), max(values)]
