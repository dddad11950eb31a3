"""From a question to a preference pair, and what people say of it."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from tpo.records.record import Record
from tpo.records.video import Segment, View


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
