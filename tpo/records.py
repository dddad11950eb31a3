"""The nouns. Frozen pydantic models with ids derived from content, so the same input always gets the same id.

Every stage hands on one kind of these records as JSON Lines; `tpo.store` writes and reads them.
"""

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def content_id(*parts: Any) -> str:
    """16 hex digits of the sha256 of `parts` as canonical JSON: the id of a record with this content."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


class Granularity(StrEnum):
    LOCALIZED = "localized"
    COMPREHENSIVE = "comprehensive"


class QuestionType(StrEnum):
    """The eight question types of arXiv 2501.13919, figure 6."""

    TEMPORAL_REASONING = "temporal_reasoning"
    ACTION_REASONING = "action_reasoning"
    CAUSAL_REASONING = "causal_reasoning"
    INFORMATION_EXTRACTION = "information_extraction"
    DESCRIPTIVE = "descriptive"
    SUMMARIZATION = "summarization"
    OBJECT_REASONING = "object_reasoning"
    SPATIAL_REASONING = "spatial_reasoning"


class BlindCheck(Record):
    """Whether a question can be answered without its video: a language model was asked it, and nothing else."""

    answers: tuple[str, ...] = Field(min_length=1)
    score: float = Field(ge=0, le=1, description="share of the answers that say what the reference answer says")
    model_id: str


class Query(Record):
    id: str
    video_id: str
    granularity: Granularity
    question_type: QuestionType
    segment: Segment | None = Field(description="what the question was written from; none = the whole video")
    question: str = Field(min_length=1)
    reference_answer: str | None = Field(description="the asker's own answer, from captions; never trained on")
    asker: str
    prompt_id: str | None = Field(None, description="content id of what the asker was asked; none = by rule")
    blind: BlindCheck | None = Field(None, description="none = not checked")


class Branch(StrEnum):
    PREFERRED = "preferred"
    DISPREFERRED = "dispreferred"


class Answer(Record):
    id: str
    query_id: str
    branch: Branch
    view: View
    sample: int = Field(0, ge=0, description="which of several answers to one question under one view")
    text: str
    num_tokens: int = Field(ge=0, description="of the text, in the model's own tokens")
    ended: bool = Field(description="the model ended it; else it was cut at the longest that was allowed")
    model_id: str
    decoding: str


class Verdict(Record):
    """The judge's three checks (arXiv 2501.13919, figure 9) on one order of the two answers."""

    preferred_shown_first: bool
    preferred_is: Literal["better", "worse", "equal"]
    conflicts_with_captions: bool
    is_correct: bool
    reply: str = Field("", description="what the judge wrote; empty = by rule")
    prompt_id: str | None = Field(None, description="content id of what the judge was asked; none = by rule")


class PreferencePair(Record):
    """One training example: both answers are trained against the same full view, whatever they were generated from.

    What is not known of pairs that were imported is none.
    """

    id: str
    video_id: str
    query_id: str
    granularity: Granularity | None
    question_type: QuestionType | None
    question: str
    view: View = Field(description="what the model is shown in training")
    chosen: str
    rejected: str
    chosen_tokens: int | None = Field(description="length in tokens of the model that gave it")
    rejected_tokens: int | None
    chosen_view: View | None = Field(description="what the model was shown when it gave the chosen answer")
    rejected_view: View | None
    segment: Segment | None
    model_id: str = Field(description="the model that gave both answers, or the file that they were imported from")
    verdicts: tuple[Verdict, ...] = Field(description="empty = imported, not judged here")
    judge: str


class ReviewVerdict(StrEnum):
    """What a person says of a pair. Only what is accepted is trained on."""

    ACCEPT = "accept"
    REJECT = "reject"
    TIE = "tie"
    BAD_QUESTION = "bad_question"


class Review(Record):
    """What one person said of one pair, at one time. The last one of a reviewer counts."""

    pair_id: str
    reviewer: str = Field(min_length=1, max_length=64)
    verdict: ReviewVerdict | None = Field(description="none = not said yet, or taken back")
    chosen_shown_as: Literal["A", "B"] = Field(description="which of the two answers the chosen one was, to them")
    unblinded: bool = Field(description="they had seen which answer was given from what")
    at: AwareDatetime


class Reason(StrEnum):
    """Why something was set aside. The count of each is in the stage's manifest."""

    UNREADABLE = "unreadable"
    NO_VIDEO_STREAM = "no_video_stream"
    EMPTY_FILE = "empty_file"
    PROBE_TIMEOUT = "probe_timeout"
    PROBE_CRASH = "probe_crash"
    PROBE_MEMORY = "probe_memory"
    OUTSIDE_FOLDER = "outside_folder"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    TOO_FEW_FRAMES = "too_few_frames"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    STATIC = "static"
    TOO_RESTLESS = "too_restless"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    CONTAMINATED = "contaminated"
    NO_CAPTIONS = "no_captions"
    BAD_CAPTION_FILE = "bad_caption_file"
    CAPTION_OUTSIDE_VIDEO = "caption_outside_video"
    EMPTY_CAPTION = "empty_caption"
    TOO_FEW_CAPTIONS = "too_few_captions"
    NOTHING_TO_ASK = "nothing_to_ask"
    REQUEST_FAILED = "request_failed"
    EMPTY_REPLY = "empty_reply"
    RUNAWAY_REPLY = "runaway_reply"
    REFUSED = "refused"
    BAD_REPLY = "bad_reply"
    BLIND_ANSWERABLE = "blind_answerable"
    NO_VIEW = "no_view"
    OVER_QUOTA = "over_quota"
    OVER_VIDEO_CAP = "over_video_cap"
    TOO_MANY_OF_TYPE = "too_many_of_type"
    LENGTH_BIAS = "length_bias"
    REVIEW_REJECT = "review_reject"
    REVIEW_TIE = "review_tie"
    REVIEW_BAD_QUESTION = "review_bad_question"
    VIDEO_CHANGED = "video_changed"
    DECODE_FAILED = "decode_failed"
    NO_REFERENCE_ANSWER = "no_reference_answer"
    NO_ANSWER_PAIR = "no_answer_pair"
    EMPTY_ANSWER = "empty_answer"
    RUNAWAY_ANSWER = "runaway_answer"
    IDENTICAL_ANSWERS = "identical_answers"
    TIE = "tie"
    NOT_BETTER = "not_better"
    CONFLICT = "conflict"
    INCORRECT = "incorrect"
    ORDER_DISAGREEMENT = "order_disagreement"
    BAD_ROW = "bad_row"
    BAD_ITEM = "bad_item"
    VIDEO_MISSING = "video_missing"
    SUBTITLES_UNUSABLE = "subtitles_unusable"
    NOT_ASKED = "not_asked"


class Rejection(Record):
    """Something that was set aside, by whom and why. `item` names it: a path, or a record id."""

    stage: str
    item: str
    reason: Reason
    detail: str


class Checked(StrEnum):
    """Whether data was compared with benchmarks. No benchmark there is "not checked", never "clean"."""

    CHECKED = "checked"
    PARTLY = "partly checked"
    NOT = "not checked"


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
