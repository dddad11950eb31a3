"""How base, tuned and champion model are measured. Where the paper is silent the choice is ours."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from tpo.params.chat import EndpointParams, LocalParams, who
from tpo.params.section import Section
from tpo.records import Condition

PromptStyle = Literal["question", "official", "lmms_eval"]
NeedleMode = Literal["after_sampling", "in_video"]
Judge = Annotated[Annotated[EndpointParams, Tag("endpoint")] | Annotated[LocalParams, Tag("local")], Discriminator(who)]


class ControlsParams(Section):
    """What a model is asked with less to see: a gain that shows there as well does not come from time."""

    conditions: tuple[Condition, ...] = Field(
        tuple(condition for condition in Condition if condition is not Condition.FULL), min_length=1
    )
    items_per_group: int | None = Field(
        None, ge=1, description="of each benchmark and duration group, drawn by id; none = all"
    )

    @model_validator(mode="after")
    def _full_is_no_control(self) -> "ControlsParams":
        if Condition.FULL in self.conditions:
            raise ValueError("conditions: full is what controls are compared with, not one of them")
        return self


class NeedleParams(Section):
    """Short clips put into long videos, at every depth of every length."""

    modes: tuple[NeedleMode, ...] = Field(min_length=1, description="into the sampled frames, or into the video file")
    num_frames: tuple[PositiveInt, ...] = Field((), description="after_sampling: lengths, the needle's frames included")
    minutes: tuple[PositiveFloat, ...] = Field((), description="in_video: lengths, to which the needle's is added")
    depths: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        min_length=1, description="0 = at its beginning, 1 = at its end"
    )
    needle_frames: int = Field(ge=2, description="after_sampling: frames that are the needle's; one shows no order")
    per_cell: int = Field(ge=1, description="questions at each depth of each length, over several haystacks")

    @model_validator(mode="after")
    def _each_mode_has_lengths(self) -> "NeedleParams":
        for mode, name in (("after_sampling", "num_frames"), ("in_video", "minutes")):
            if mode in self.modes and not getattr(self, name):
                raise ValueError(f"{name}: {mode} needs at least one length")
        if self.num_frames and min(self.num_frames) <= self.needle_frames:
            raise ValueError(f"num_frames: {min(self.num_frames)} leaves no room beside needle_frames")
        return self


class EvaluateParams(Section):
    num_frames: int = Field(ge=1, description="paper: 96 or 128; the same for all models")
    prompts: PromptStyle = Field(
        description="official and lmms_eval list the options and ask for a letter; question asks the question alone, "
        "and the options' texts are its possible answers, for models that were never taught letters"
    )
    subtitles: bool = Field(default=False, description="say in the prompt what is said under the sampled frames")
    max_new_tokens: int | None = Field(
        None, ge=1, description="also let the model write its answer; none = log-probabilities of the options alone"
    )
    free_answer_judge: Judge | None = Field(None, description="of MLVU's free answers; none = they are not asked")
    champion: bool = Field(default=True, description="also measure the registry's champion, if it is another model")
    controls: ControlsParams | None = None
    needle: NeedleParams | None = None
    batch_size: int = Field(16, ge=1, description="possible answers that go on from a video together")
    max_unusable_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="of a benchmark's questions, without a usable row or video; above it nothing is run",
    )
    confidence: float = Field(gt=0.5, lt=1)
    bootstrap_samples: int = Field(ge=100)

    @property
    def most_frames(self) -> int:
        """Shown to a model at once, in the needle test too."""
        if self.needle is None or "after_sampling" not in self.needle.modes:
            return self.num_frames
        return max(self.num_frames, *self.needle.num_frames)

    @model_validator(mode="after")
    def _free_answers_are_written_before_they_are_judged(self) -> "EvaluateParams":
        if self.free_answer_judge is not None and self.max_new_tokens is None:
            raise ValueError(
                "free_answer_judge needs max_new_tokens: free answers must be written before they are judged"
            )
        return self
