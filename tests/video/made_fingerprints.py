"""Fingerprints of films that were never made."""

import numpy as np

from tpo.video.fingerprint import SAMPLE_STEP_S, Fingerprint


def pictures(film: int, start_s: float, end_s: float) -> Fingerprint:
    """The hashes of a stretch of an endless film, of which each number is another."""
    hashes = np.random.default_rng(film).integers(0, 2**64, 4000, np.uint64)
    first, last = round(start_s / SAMPLE_STEP_S), round(end_s / SAMPLE_STEP_S)
    times_s = np.arange(last - first) * np.float32(SAMPLE_STEP_S)
    return Fingerprint(times_s, hashes[first:last], np.ones(last - first, bool))
