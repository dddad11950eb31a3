"""A video, what of it a model is shown, and what is written about its parts."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from tpo.records.record import Record


class Video(Record):
    """One readable video file. Everything here was measured on the file, nothing believed from its header."""

    id: str = Field(description="sha256 of the file")
    path: str = Field(description="relative to the videos folder")
    size_bytes: int
    duration_s: float = Field(gt=0, description="end of the last frame, counted from the first frame")
    last_frame_s: float = Field(ge=0, description="when the last frame is first on display")
    longest_frame_s: float = Field(gt=0, description="the longest that one frame is on display: where frames are lost")
    fps: float = Field(gt=0, description="frames per second, averaged over the file")
    num_frames: int = Field(gt=0, description="counted by decoding")
    num_restarts: int = Field(gt=0, description="keyframes proved right to begin decoding at; 1 = the first alone")
    width: int
    height: int
    rotation_deg: int
    codec: str
    is_vfr: bool
    has_audio: bool
    brightness: float = Field(ge=0, le=255, description="mean grey level of the sampled pictures")
    change: float = Field(ge=0, description="mean difference in grey levels from one sampled picture to the next")


class Segment(Record):
    """A part of a video: from `start_s` up to, not including, `end_s`."""

    video_id: str
    start_s: float = Field(ge=0)
    end_s: float

    @model_validator(mode="after")
    def _ends_after_start(self) -> Self:
        if self.end_s <= self.start_s:
            raise ValueError(f"a segment must end after its start, got {self.start_s} to {self.end_s} s")
        return self


class ViewKind(StrEnum):
    DENSE = "dense"
    SEGMENT = "segment"
    WITHOUT_SEGMENT = "without_segment"
    SPARSE = "sparse"
    SHUFFLED = "shuffled"
    REVERSED = "reversed"
    MASKED = "masked"
    DISTRACTORS_INSERTED = "distractors_inserted"
    NEEDLE = "needle"


class Distractor(Record):
    """A moment of another video, shown where the view would show its own."""

    position: int = Field(ge=0, description="index into the view's timestamps_s")
    video_id: str
    timestamp_s: float = Field(ge=0)


class View(Record):
    """What a model is shown: moments of one video, in the order shown. The frame on display at each moment is meant."""

    video_id: str
    kind: ViewKind
    timestamps_s: tuple[float, ...] = Field(min_length=1)
    masked: tuple[int, ...] = Field((), description="indices into timestamps_s that are shown as plain grey")
    distractors: tuple[Distractor, ...] = ()
    difficulty: float | None = Field(
        None, ge=0, le=1, description="of telling it from what nothing was taken from: the share left as it was"
    )


class Caption(Record):
    id: str
    video_id: str
    start_s: float = Field(ge=0)
    end_s: float
    text: str = Field(min_length=1)
    source: str = Field(description="who says so: a sidecar file's name, or a model id")
    frames_s: tuple[float, ...] = Field((), description="moments that the model was shown; none = from a file")
    prompt_id: str | None = Field(None, description="content id of what the model was asked; none = from a file")
