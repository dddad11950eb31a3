"""What models were asked, what they said, and what the gate makes of it."""

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tpo.records.pairs import Granularity
from tpo.records.record import Record
from tpo.records.video import View


class Task(StrEnum):
    """What an item asks for."""

    CHOICE = "choice"
    OPEN = "open"
    SPAN = "span"


class Item(Record):
    """One question of a benchmark. What is wrong with a question that is asked all the same stands in `defects`."""

    id: str
    benchmark: str
    video: str = Field(description="path relative to the benchmark's folder")
    question: str
    task: Task = Task.CHOICE
    options: tuple[str, ...] = Field((), description="choice: at least two, in the order of the file")
    gold: int | None = Field(
        None, ge=0, description="choice: index into options; none = the file's answer is no option"
    )
    reference: str = Field("", description="open: the answer that a judge compares with")
    scoring_points: tuple[str, ...] = Field((), description="open: what a full answer must mention, where it is listed")
    spans_s: tuple[tuple[float, float], ...] = Field((), description="span: when it happens, start and end in seconds")
    subtitles: str | None = Field(None, description="path relative to the benchmark's folder")
    subtitles_start_s: float = Field(0, description="the moment of the subtitles' clock at which the video begins")
    duration_s: float | None = Field(None, gt=0, description="as annotated; never trusted")
    duration_group: str
    category: str
    granularity: Granularity | None = Field(None, description="where the benchmark tells local from global questions")
    defects: tuple[str, ...] = Field((), description="why the question cannot be answered fairly; none = it can")

    @model_validator(mode="after")
    def _can_be_scored(self) -> Self:
        if (self.task is Task.CHOICE) != (len(self.options) >= 2):
            raise ValueError(f"a {self.task} item has {len(self.options)} options")
        if self.gold is not None and self.gold >= len(self.options):
            raise ValueError(f"gold is option {self.gold} but there are only {len(self.options)} options")
        if self.task is Task.CHOICE and self.gold is None and not self.defects:
            raise ValueError("a choice item without a gold option is defective, but has no defects")
        if (self.task is Task.SPAN) != bool(self.spans_s):
            raise ValueError(f"a {self.task} item has {len(self.spans_s)} spans")
        return self


class Prompt(Record):
    """What a model is asked, besides the video. All of it is data: no special token in it is taken for one."""

    user: str
    system: str = ""
    prefill: str = Field("", description="the beginning of the answer, written for the model")


class Condition(StrEnum):
    """What a model is shown when it is asked: everything, or less, as a control."""

    FULL = "full"
    TEXT_ONLY = "text_only"
    SINGLE_FRAME = "single_frame"
    SHUFFLED = "shuffled"
    REVERSED = "reversed"
    CIRCULAR = "circular"


class Method(StrEnum):
    """How the answer is got out of a model."""

    LOGPROB = "logprob"
    GENERATION = "generation"


class PredictionStatus(StrEnum):
    """What became of an item. Anything but `ok` counts as wrong and is counted apart."""

    OK = "ok"
    AMBIGUOUS = "ambiguous"
    NONE = "none"
    ILLEGAL = "illegal"
    NOT_JUDGED = "not_judged"
    TOO_LONG = "too_long"
    VIDEO_MISSING = "video_missing"
    VIDEO_BROKEN = "video_broken"


# The model said nothing, because nothing could be put to it.
NOT_ASKED = (PredictionStatus.VIDEO_MISSING, PredictionStatus.VIDEO_BROKEN, PredictionStatus.TOO_LONG)


Role = Literal["base", "tuned", "champion"]


class Prediction(Record):
    """What one model said to one item under one condition, scored."""

    item_id: str
    benchmark: str
    video: str
    video_id: str | None = Field(None, description="sha256 of its file; none = it could not be read")
    duration_group: str
    category: str
    granularity: Granularity | None = None
    defective: bool = False
    task: Task = Task.CHOICE
    model: Role
    condition: Condition = Condition.FULL
    rotation: int = Field(0, ge=0, description="circular: places by which the options were moved on")
    method: Method = Method.LOGPROB
    status: PredictionStatus
    detail: str = Field(default="", description="why the status is not ok; open: the marks, and by whom")
    option_logprobs: tuple[float, ...] = ()
    text: str = Field("", description="generation: what the model wrote")
    predicted: int | None = Field(None, description="choice: index into the item's options")
    predicted_span_s: tuple[float, float] | None = None
    gold: int | None = None
    score: float = Field(ge=0, le=1, description="choice: 1 or 0; span: IoU with the truth; open: the judge's")
    correct: bool = Field(description="choice: it was right; span: IoU of at least 0.5; open: at least 0.5")


class NeedleShown(Record):
    """What a model was shown of a needle, in one case of the needle test."""

    item_id: str
    path: str = Field(description="the file that is decoded")
    view: View
    positions: tuple[int, ...] = Field(description="which of the view's frames show the needle; none = not sampled")
    needle_s: tuple[float, ...] = Field(description="the moment that each of them shows, from the needle's beginning")


class GateRule(Record):
    name: str
    passed: bool
    value: float | str | bool | None
    threshold: float | str | bool
    reason: str


class GateDecision(Record):
    """May a candidate become champion? `tpo.registry.gate` decides."""

    promote: bool
    rules: tuple[GateRule, ...]
    summary: str
    id: str = Field("", description="content id of rules and evidence: the same evidence under the same rules has it")
    decided_at: str = Field("", description="UTC, ISO 8601")
    candidate_id: str | None = None
    base_id: str | None = None
    champion_id: str | None = Field(None, description="the champion that it was held against; none = there was none")
    evidence: dict[str, Any] = Field({}, description="`tpo.registry.evidence.Evidence` as JSON")
