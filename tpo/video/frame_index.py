"""Which frames a file really has, and where decoding may begin."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

_TOLERANCE_S = 0.6e-3  # half a millisecond, and what floating point adds


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file's video stream in the order shown.

    Attributes:
        stream: number of the stream in the container.
        time_base: seconds per unit of `pts`.
        pts: int64 [n], strictly ascending.
        end_pts: when the last frame's display ends.
        restarts: int64 [k], positions in `pts` of the keyframes from which decoding gives the right pictures. The first
            is 0: the start of the file.
        seeks: int64 [k], the timestamp to seek to for each of them.
    """

    stream: int
    time_base: Fraction
    pts: np.ndarray
    end_pts: int
    restarts: np.ndarray
    seeks: np.ndarray

    @property
    def timestamps_s(self) -> np.ndarray:
        """When each frame is first on display, float64 [n] seconds from the first frame."""
        return np.asarray((self.pts - self.pts[0]) * float(self.time_base))

    @property
    def duration_s(self) -> float:
        return float((self.end_pts - int(self.pts[0])) * self.time_base)

    def on_display(self, moments_s: np.ndarray) -> np.ndarray:
        """Position of the frame on display at each moment, int64; before the first and after the last one, that one.

        With tolerance, because views round to milliseconds: 3.3335 s is written down as 3.333.
        """
        found = np.searchsorted(self.timestamps_s, np.asarray(moments_s) + _TOLERANCE_S, side="right") - 1
        return np.clip(found, 0, len(self.pts) - 1)

    def as_arrays(self) -> dict[str, Any]:
        """For an `.npz` file."""
        return {
            "stream": self.stream,
            "time_base": [self.time_base.numerator, self.time_base.denominator],
            "pts_steps": np.diff(self.pts, prepend=0),  # at a constant frame rate all the same: little is left of them
            "end_pts": self.end_pts,
            "restarts": self.restarts,
            "seeks": self.seeks,
        }

    @classmethod
    def from_arrays(cls, saved: Any) -> "FrameIndex":
        return cls(
            stream=int(saved["stream"]),
            time_base=Fraction(*saved["time_base"].tolist()),
            pts=np.cumsum(saved["pts_steps"]),
            end_pts=int(saved["end_pts"]),
            restarts=saved["restarts"],
            seeks=saved["seeks"],
        )
