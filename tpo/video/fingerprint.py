"""What a video looks like over time, in 8 bytes a sample, so that the same video is known again in another file.

A picture is sampled every `SAMPLE_STEP_S` and hashed; `tpo.video.copies` compares the rows of hashes. The hash outlives
another codec or bit rate, scaling (also with another aspect ratio), black bars, and small changes of brightness and
contrast. It does not outlive mirroring, rotation, cropping, overlays over much of the picture, or bars that are not
black.
"""

from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image

# Ours: measured by bench/near_duplicates.py. A cut is sampled at other moments than the whole, by up to half a step. At
# 0.5 s the cuts are lost in which the camera is never still, at 1 s most of those in which anything moves.
SAMPLE_STEP_S = 0.25
HASH_BITS = 64

_BLACK = 12  # ours: grey levels that black bars stay below after hard compression, and dark scenes do not
_MAX_BAR = 0.36  # of a side, each; an upright video (9:16) shown on a wide screen (16:9) has bars of 0.34
_MIN_CONTRAST = 4.0  # ours: standard deviation in grey levels below which the hash is that of compression noise


@dataclass(frozen=True)
class Fingerprint:
    """A video's sampled pictures in the order shown.

    Attributes:
        times_s: float32 [m], seconds from the first frame, ascending.
        hashes: uint64 [m]; like pictures differ in few bits, any two others in about half of them.
        informative: bool [m], whether the picture shows anything; a black or flat one has the hash 0.
    """

    times_s: np.ndarray
    hashes: np.ndarray
    informative: np.ndarray

    @property
    def shown_s(self) -> np.ndarray:
        """How long each picture stands for, float32 [m] seconds: until the next one."""
        return np.diff(self.times_s, append=self.times_s[-1:] + np.float32(SAMPLE_STEP_S))

    @property
    def informative_s(self) -> float:
        """For how long the video shows anything."""
        return float(self.shown_s[self.informative].sum())


def hash_picture(grey: np.ndarray) -> tuple[np.uint64, bool]:
    """The picture's perceptual hash, and whether the picture is informative; if it is not, the hash is 0.

    Args:
        grey: uint8 [h, w], in full range (black is 0), scaled to about 128 px on the longer side by averaging.
    """
    shown = _without_bars(_without_bars(grey).T).T
    if shown.std() < _MIN_CONTRAST:
        return np.uint64(0), False
    bits = imagehash.phash(Image.fromarray(np.ascontiguousarray(shown))).hash
    return np.packbits(bits).view(np.uint64)[0], True


def _without_bars(grey: np.ndarray) -> np.ndarray:
    """The picture without its black upper and lower bar. Bars are equally high: darkness on one side alone is none."""
    (lit,) = np.nonzero(grey.max(axis=1) > _BLACK)
    if not len(lit):
        return grey
    bar = min(int(lit[0]), len(grey) - 1 - int(lit[-1]))
    return grey[bar : len(grey) - bar] if bar <= _MAX_BAR * len(grey) else grey
