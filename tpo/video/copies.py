"""Which videos show the same as others: re-encoded, scaled, or one a cut of the other.

    find_copies(fingerprints)                # among themselves
    find_copies(fingerprints, references)    # of references, which are not compared with each other

Two videos are not compared unless they share pictures: each picture is looked up by parts of its hash in a sorted table
of all, and every hit votes for a video and a time difference. What enough pictures agree on is then checked, picture by
picture. So the cost grows with the number of videos and with the copies among them, not with the number of pairs.

A match must show a change over time. Two recordings of one empty road, or of a speaker before a wall, agree whatever
the time difference, which says nothing; therefore a video that is static throughout is no copy of any other here, and
only the hash of its bytes tells that it is there twice. Played faster or slower, or mirrored, a copy is not found.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tpo.params import CopyParams
from tpo.progress import progress
from tpo.video.fingerprint import HASH_BITS, SAMPLE_STEP_S, Fingerprint

# All of these are ours: measured by bench/near_duplicates.py.
MATCH_BITS = 14  # pictures that differ in more bits do not match; unlike ones differ in 30 on average
# A picture within so many bits of the stretch's commonest one is taken for that one, which says nothing about when.
STATIC_BITS = 6
MIN_CHANGING_S = 7.0  # of other pictures than that; more than an intro
MIN_CHANGING_SHARE = 0.3  # of the pictures that match
MAX_OF_CHANGE = 0.5  # how far these may be from the other video's, as a share of how far from the commonest

_LIMITS = CopyParams()
_MISMATCH_COST = 3  # matches that outweigh a mismatch: three quarters of a stretch match at the least
_NUM_BANDS, _BAND_BITS = 4, 26  # of a copy's pictures, which differ in 2 bits mostly, most have a band in common
_TABLE_STEP_S = 0.5  # what is looked up is sampled more densely than what it is looked up in: half the memory
_MAX_REPEATS = 4  # a band that comes up more often in one video says little about when
_MAX_HITS = 16  # followed for each picture and band, the first videos first: the cost of logos and stock pictures
_MIN_VOTES = 4  # for one time difference; with more, slide shows of a few slides are lost
_MAX_OFFSETS = 4  # time differences checked for a pair of videos, those with most votes first

_BANDS = [
    sum(1 << int(bit) for bit in np.random.default_rng(number).choice(HASH_BITS, _BAND_BITS, replace=False))
    for number in range(_NUM_BANDS)
]


@dataclass(frozen=True)
class Copy:
    """`video` shows what `of` shows, over a stretch.

    Attributes:
        offset_s: what `video` shows at t, `of` shows at t + offset_s; right to a sample step or so.
        overlap_s: length of the stretch in seconds.
        similarity: share of the stretch's pictures that match, of those that show anything.
    """

    video: str
    of: str
    offset_s: float
    overlap_s: float
    similarity: float


def find_copies(
    fingerprints: Mapping[str, Fingerprint],
    references: Mapping[str, Fingerprint] | None = None,
    limits: CopyParams = _LIMITS,
) -> list[Copy]:
    """The videos that show the same as one before them in the mapping or, with `references`, as one of those.

    A video of which there are many copies is named as the `of` of each, if it comes first; among the copies, not every
    pair is. At most one stretch is given for a pair of videos: the longest.

    Args:
        fingerprints: by video id; of two copies, the one that comes first is taken for the original.
        references: by video id; not compared with each other.
        limits: how long the stretch must be, in pictures that show something and match.

    Returns:
        In the order of `fingerprints`, and for one video in the order of what it is a copy of.
    """
    originals = fingerprints if references is None else references
    names, found = list(originals), list(originals.values())
    table = _Table(found)
    copies = []
    with progress(len(fingerprints), "compare", "videos", patient=True) as bar:
        for position, (video, fingerprint) in enumerate(fingerprints.items()):
            num_before = position if references is None else len(found)
            for of, offsets_s in _candidates(table, fingerprint, num_before):
                matches = [_match(fingerprint, found[of], offset_s) for offset_s in offsets_s]
                best = max((match for match in matches if match), key=lambda match: match.matching_s, default=None)
                share_s = limits.min_share * min(fingerprint.informative_s, found[of].informative_s)
                wanted_s = max(limits.min_overlap_s, min(share_s, limits.enough_s or math.inf))
                if best and best.matching_s >= wanted_s:
                    copies.append(Copy(video, names[of], best.offset_s, best.overlap_s, best.similarity))
            bar.update()
    return copies


def is_recognisable(fingerprint: Fingerprint, limits: CopyParams = _LIMITS) -> bool:
    """Whether a copy of this video could be found: it shows something for long enough, and not always the same."""
    shown = fingerprint.informative
    changes = _changes(_away(fingerprint.hashes[shown]), fingerprint.shown_s[shown])
    return fingerprint.informative_s >= limits.min_overlap_s and changes


class _Table:
    """Where each band of each picture occurs, a picture every `_TABLE_STEP_S`.

    Attributes:
        keys: for each band, uint64 [n] ascending.
        owners: for each band, int32 [n], number of the video in which the key occurs, ascending where keys are equal.
        times_s: for each band, float32 [n], when it occurs in that video.
    """

    def __init__(self, fingerprints: list[Fingerprint]) -> None:
        sparse = [_sparse(fingerprint) for fingerprint in fingerprints]
        self.keys, self.owners, self.times_s = [], [], []
        for band in _BANDS:
            parts = [_occurrences(fingerprint, band) for fingerprint in sparse]
            keys = np.concatenate([np.empty(0, np.uint64), *(keys for keys, _ in parts)])
            times_s = np.concatenate([np.empty(0, np.float32), *(times_s for _, times_s in parts)])
            owners = np.repeat(np.arange(len(parts), dtype=np.int32), [len(keys) for keys, _ in parts])
            order = np.argsort(keys, kind="stable")
            self.keys.append(keys[order])
            self.owners.append(owners[order])
            self.times_s.append(times_s[order])

    def votes(self, fingerprint: Fingerprint, num_before: int) -> tuple[np.ndarray, np.ndarray]:
        """Every hit in the first `num_before` videos: the video's number and the time difference in seconds."""
        all_owners, all_offsets_s = [], []
        for band, keys, owners, times_s in zip(_BANDS, self.keys, self.owners, self.times_s, strict=True):
            wanted, wanted_s = _occurrences(fingerprint, band)
            first = np.searchsorted(keys, wanted)
            num_hits = np.minimum(np.searchsorted(keys, wanted, side="right") - first, _MAX_HITS)
            nth = np.arange(num_hits.sum()) - np.repeat(np.cumsum(num_hits) - num_hits, num_hits)
            hits = np.repeat(first, num_hits) + nth
            offsets_s = times_s[hits] - np.repeat(wanted_s, num_hits)
            before = owners[hits] < num_before
            all_owners.append(owners[hits][before])
            all_offsets_s.append(offsets_s[before])
        return np.concatenate(all_owners), np.concatenate(all_offsets_s)


def _sparse(fingerprint: Fingerprint) -> Fingerprint:
    """The first picture of every `_TABLE_STEP_S`."""
    first = np.diff(fingerprint.times_s // _TABLE_STEP_S, prepend=-1) != 0
    return Fingerprint(fingerprint.times_s[first], fingerprint.hashes[first], fingerprint.informative[first])


def _occurrences(fingerprint: Fingerprint, band: int) -> tuple[np.ndarray, np.ndarray]:
    """When a band takes on a value that it takes on seldom in this video: keys, ascending, and times in seconds."""
    keys = fingerprint.hashes[fingerprint.informative] & np.uint64(band)
    times_s = fingerprint.times_s[fingerprint.informative]
    begins = np.diff(keys, prepend=~keys[:1]) != 0
    keys, times_s = keys[begins], times_s[begins]
    order = np.argsort(keys, kind="stable")
    _, which, counts = np.unique(keys[order], return_inverse=True, return_counts=True)
    order = order[counts[which] <= _MAX_REPEATS]
    return keys[order], times_s[order]


def _candidates(table: _Table, fingerprint: Fingerprint, num_before: int) -> Iterator[tuple[int, list[float]]]:
    """Videos that share pictures with this one, ascending, each with the time differences most pictures agree on."""
    owners, offsets_s = table.votes(fingerprint, num_before)
    order = np.lexsort((offsets_s, owners))
    owners, offsets_s = owners[order], offsets_s[order].astype(np.float64)
    # On one axis, far apart for two videos; a vote's support is the number of votes within half a step around it.
    axis = owners * 4 * (np.abs(offsets_s).max(initial=0) + 1) + offsets_s
    low = np.searchsorted(axis, axis - (SAMPLE_STEP_S / 2 + 1e-3))
    high = np.searchsorted(axis, axis + (SAMPLE_STEP_S / 2 + 1e-3))
    support = high - low
    middles_s = offsets_s[(low + high) // 2]
    for of in np.unique(owners[support >= _MIN_VOTES]).tolist():
        of_it = slice(*np.searchsorted(owners, [of, of + 1]).tolist())
        left, at_s = support[of_it].copy(), middles_s[of_it]
        chosen: list[float] = []
        while len(chosen) < _MAX_OFFSETS and left.max() >= _MIN_VOTES:
            chosen.append(float(at_s[left.argmax()]))
            left[np.abs(at_s - chosen[-1]) <= SAMPLE_STEP_S] = 0
        yield of, chosen


@dataclass(frozen=True)
class _Match:
    offset_s: float
    overlap_s: float
    matching_s: float
    similarity: float


def _match(video: Fingerprint, of: Fingerprint, offset_s: float) -> _Match | None:
    """The longest stretch that matches at this time difference, if there is one and its pictures are varied."""
    bits, compared = _differences(video, of, offset_s)
    matching = compared & (bits <= MATCH_BITS)
    sums = np.cumsum(np.where(matching, 1, np.where(compared, -_MISMATCH_COST, 0)))
    lowest = np.minimum.accumulate(np.concatenate([[0], sums[:-1]]))
    end = int(np.argmax(sums - lowest))
    begin = int(np.searchsorted(-lowest, -lowest[end]))
    inside = np.arange(begin, end + 1)
    kept = inside[matching[begin : end + 1]]
    if not len(kept):
        return None
    shown_s = video.shown_s
    away = _away(video.hashes[kept])
    changing = away > STATIC_BITS
    if not _changes(away, shown_s[kept]) or bits[kept][changing].mean() > MAX_OF_CHANGE * away[changing].mean():
        return None
    return _Match(
        offset_s,
        overlap_s=float(shown_s[kept[0] : end + 1].sum()),
        matching_s=float(shown_s[kept].sum()),
        similarity=len(kept) / int(compared[inside].sum()),
    )


def _differences(video: Fingerprint, of: Fingerprint, offset_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Bits in which each of the video's pictures differs from the other's at that moment, and where that says anything.

    Both [m]; of the picture on display and the one that follows within a step, the nearer counts. Nothing is said
    outside the overlap, nor where both pictures show nothing; one that does and one that does not are as different as
    can be.
    """
    moments_s = video.times_s + offset_s
    after = np.searchsorted(of.times_s, moments_s)
    overlaps = (moments_s >= of.times_s[0] - SAMPLE_STEP_S) & (moments_s <= of.times_s[-1] + SAMPLE_STEP_S)
    before, after = np.maximum(after - 1, 0), np.minimum(after, len(of.times_s) - 1)
    after = np.where(of.times_s[after] - moments_s <= SAMPLE_STEP_S, after, before)
    bits = np.full(len(moments_s), HASH_BITS)
    compared = overlaps & (video.informative | of.informative[before] | of.informative[after])
    for there in (before, after):
        both = video.informative & of.informative[there]
        bits = np.where(both, np.minimum(bits, np.bitwise_count(video.hashes ^ of.hashes[there])), bits)
    return bits, compared


def _away(hashes: np.ndarray) -> np.ndarray:
    """Bits in which each picture differs from what most show, that is, from the one a static scene comes back to."""
    bits = np.unpackbits(hashes.view(np.uint8)).reshape(-1, HASH_BITS)
    return np.asarray((bits != (2 * bits.sum(axis=0) > len(bits))).sum(axis=1))


def _changes(away: np.ndarray, shown_s: np.ndarray) -> bool:
    """Whether enough is shown that tells one time from another."""
    changing_s = shown_s[away > STATIC_BITS].sum()
    return bool(changing_s >= max(MIN_CHANGING_S, MIN_CHANGING_SHARE * shown_s.sum()))
