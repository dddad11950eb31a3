"""mix: which of the kept pairs are trained on. Size and localized : comprehensive ratio (paper: 10,000 at 5:5)."""

from collections.abc import Sequence

import numpy as np

from tpo.params import MixParams
from tpo.records import Granularity, PreferencePair, Reason, Rejection

STAGE = "judge"


def mix_pairs(
    pairs: Sequence[PreferencePair], params: MixParams, seed: int
) -> tuple[list[PreferencePair], list[Rejection]]:
    """Draw pairs to size and ratio. What is too many of a kind is set aside; what is too few is never filled up."""
    rng = np.random.default_rng(seed)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    quota = _quotas(shuffled, params)
    kept: list[PreferencePair] = []
    rejections: list[Rejection] = []
    for pair in shuffled:
        if quota[pair.granularity] > 0:
            quota[pair.granularity] -= 1
            kept.append(pair)
        else:
            detail = f"more {pair.granularity} pairs than the mix takes"
            rejections.append(Rejection(stage=STAGE, item=pair.query_id, reason=Reason.OVER_QUOTA, detail=detail))
    return kept, rejections


def _quotas(pairs: Sequence[PreferencePair], params: MixParams) -> dict[Granularity, int]:
    """How many pairs of each granularity are taken."""
    have = {kind: sum(pair.granularity is kind for pair in pairs) for kind in Granularity}
    total = len(pairs) if params.max_pairs is None else min(params.max_pairs, len(pairs))
    if params.localized_share is None:
        localized = round(total * have[Granularity.LOCALIZED] / max(len(pairs), 1))
        return {Granularity.LOCALIZED: localized, Granularity.COMPREHENSIVE: total - localized}
    share = {Granularity.LOCALIZED: params.localized_share, Granularity.COMPREHENSIVE: 1 - params.localized_share}
    # The scarcer kind, relative to its share, sets the size, so that the ratio holds.
    for kind, part in share.items():
        if part:
            total = min(total, int(have[kind] / part + 1e-9))  # 3 / (1 - 0.7) is a hair less than 10
    localized = round(total * params.localized_share)
    return {Granularity.LOCALIZED: localized, Granularity.COMPREHENSIVE: total - localized}
