"""`params.yaml` as frozen models, one per stage. Units are in the names; every default says where it comes from.

"paper" is arXiv 2501.13919; "ours" is a choice of this project where the paper is silent.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tpo.errors import UserError, redact
from tpo.params.chat import ByRuleOrChat, Captioner
from tpo.params.chat import ChatParams as ChatParams
from tpo.params.chat import EndpointParams as EndpointParams
from tpo.params.chat import LocalParams as LocalParams
from tpo.params.evaluation import ControlsParams as ControlsParams
from tpo.params.evaluation import EvaluateParams as EvaluateParams
from tpo.params.evaluation import NeedleMode as NeedleMode
from tpo.params.evaluation import NeedleParams as NeedleParams
from tpo.params.evaluation import PromptStyle as PromptStyle
from tpo.params.section import Section
from tpo.params.training import LoraParams as LoraParams
from tpo.params.training import Sharing as Sharing
from tpo.params.training import TrainParams as TrainParams
from tpo.records import Granularity, QuestionType, ViewKind


class DataParams(Section):
    videos: Path = Field(description="folder of videos, sidecar captions beside them")
    benchmarks: Path = Field(description="folder with longvideobench/, mlvu/, videomme/ and others, any of them")
    seed: int = 0


class ModelParams(Section):
    base: str = Field(description="checkpoint folder or hub id")
    revision: str | None = Field(None, description="hub revision; pin it")
    dtype: Literal["float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda", "balanced"] = Field(
        "auto", description="auto = one GPU if there is one; balanced = the layers spread over all GPUs"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    quantization: Literal["4bit"] | None = Field(None, description="4bit needs bitsandbytes and a GPU")
    time_instruction: bool = Field(
        default=False, description="say in the prompt when the frames are; LLaVA-Video was trained so"
    )
    max_frame_pixels: int | None = Field(
        None, ge=784, description="Qwen-VL: at most so many pixels a frame; none = as the processor's file says"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="longest prompt and answer; none = max_position_embeddings in its config.json"
    )
    pickled_weights: bool = Field(default=False, description="read a .bin that you trust, with weights_only")

    def as_measured(self) -> dict[str, Any]:
        """What changes a model's answers besides its files; where it runs and how attention is computed does not."""
        return self.model_dump(include={"dtype", "quantization", "time_instruction", "max_frame_pixels", "max_tokens"})

    def of(self, checkpoint: str | Path) -> Self:
        """The same settings for another checkpoint."""
        return self.model_copy(update={"base": str(checkpoint), "revision": None})


class RuntimeParams(Section):
    workers: int = Field(ge=1, description="concurrent Prefect tasks of stages that run no model")
    items_per_task: int = Field(ge=1, description="videos per Prefect task; at most this much is redone after a kill")
    frame_cache_gb: float = Field(ge=0, description="decoded frames kept on disk for later stages, in 10**9 bytes")


class ProbeParams(Section):
    """What a decoder may take for one file. All three are ours."""

    silence_s: float = Field(60, gt=0, description="it hangs if it gives no frame for so long, and is killed")
    timeout_s: float = Field(6 * 3600, gt=0, description="it is stopped after so long even if frames keep coming")
    max_memory_mb: int = Field(4096, ge=256, description="its own memory, in 2**20 bytes; held to on Linux")


class Limits(Section):
    """What a measure may be. `score_only` counts and lists what lies outside, and keeps it."""

    min: float | None = None
    max: float | None = None
    score_only: bool = False


class FilterParams(Section):
    """Which videos are worth training on; `tpo/video/filters.py` says what each measure is. The limits are ours."""

    duration_s: Limits
    side_px: Limits
    num_frames: Limits
    brightness: Limits
    change: Limits


class CopyParams(Section):
    """How much of what two videos show must be the same. Ours: measured by bench/near_duplicates.py."""

    min_overlap_s: float = Field(10, gt=0, description="length of the stretch that both show")
    min_share: float = Field(0.5, ge=0, le=1, description="of the shorter video: a shared intro makes no copy")
    enough_s: float | None = Field(None, gt=0, description="so long a stretch makes a copy whatever its share")
    score_only: bool = False


class IngestParams(Section):
    extensions: tuple[str, ...] = Field(min_length=1)
    probe: ProbeParams
    filters: FilterParams
    near_duplicates: CopyParams
    contamination: CopyParams


class CaptionParams(Section):
    source: Captioner = Field(description="`sidecar` files, or a model that sees frames")
    segment_s: float = Field(10, gt=0, description="ours: length of what one caption of a model is about")
    frames_per_segment: int = Field(1, ge=1, description="paper: 1, each frame is captioned by itself")
    max_side_px: int = Field(768, ge=32, description="ours: larger frames are scaled down for the model")


class AskParams(Section):
    asker: ByRuleOrChat = Field(description="`rule`, or a language model; paper: GPT-4o-mini")
    captions_per_segment: int = Field(ge=1, description="ours: the paper gives no segment length")
    localized_per_video: int = Field(ge=0, description="ours: questions; of a model, prompts: it may answer None")
    comprehensive_per_video: int = Field(ge=0, description="ours")
    question_types: tuple[QuestionType, ...] = Field(
        tuple(QuestionType), min_length=1, description="paper: eight; a model is asked for each as often as another"
    )
    max_caption_chars: int = Field(24_000, ge=1000, description="ours: captions in one prompt; more are thinned out")
    blind_samples: int = Field(0, ge=0, description="ours: how often a model is asked a question without its video")
    max_blind_score: float | None = Field(
        None, ge=0, le=1, description="ours: questions answered blind more often are set aside; none = score only"
    )
    duplicate_agreement: float = Field(
        0.9, gt=0, le=1, description="ours: a question that shares so many of its words with another is a duplicate"
    )
    contamination_words: int = Field(ge=1, description="words in a row shared with a benchmark; 13 in arXiv 2005.14165")

    @model_validator(mode="after")
    def _rules_know_nothing_to_ask_blind(self) -> Self:
        if self.asker == "rule" and self.blind_samples:
            raise ValueError("blind_samples needs a model as asker: a rule cannot be asked anything")
        if self.max_blind_score is not None and not self.blind_samples:
            raise ValueError("max_blind_score needs blind_samples, at least 1")
        return self


class DispreferredView(Section):
    """What is taken from the view under which the dis-preferred answer is given."""

    view: ViewKind
    strength: float | None = Field(
        None, gt=0, le=1, description="share of the full view's frames that it touches; none for without_segment"
    )

    @model_validator(mode="after")
    def _strength_is_given_where_it_means_something(self) -> Self:
        if self.view not in DEGRADED:
            raise ValueError(f"{self.view} takes nothing away; expected one of {', '.join(DEGRADED)}")
        if (self.view is ViewKind.WITHOUT_SEGMENT) != (self.strength is None):
            raise ValueError("strength is the share of frames touched; every view but without_segment needs one")
        return self


DEGRADED = tuple(kind for kind in ViewKind if kind not in (ViewKind.DENSE, ViewKind.SEGMENT, ViewKind.NEEDLE))


class AnswerParams(Section):
    full_frames: int = Field(ge=1, description="paper: 32, the same in generation and training")
    segment_frames: int = Field(ge=1, description="paper: 32; the demo zooms in with fewer")
    dispreferred: dict[Granularity, tuple[DispreferredView, ...]] = Field(
        description="drawn from for each question. paper: without_segment, and sparse at 0.5 (figure 1)"
    )
    max_new_tokens: int = Field(ge=1, description="ours")
    samples: int = Field(1, ge=1, description="ours: answers to each question under each view")
    temperature: float = Field(0, ge=0, description="ours: 0 = the most probable token each time")
    batch_size: int = Field(
        ge=1, description="ours: answers written together; at 7B each video among them holds 0.4 GB for 32 frames"
    )

    @property
    def most_frames(self) -> int:
        """Shown to the model at once."""
        return max(self.full_frames, self.segment_frames)

    @model_validator(mode="after")
    def _every_granularity_has_its_view(self) -> Self:
        for granularity in Granularity:
            kinds = [one.view for one in self.dispreferred.get(granularity, ())]
            if not kinds:
                raise ValueError(f"dispreferred.{granularity} names no view; expected some of {', '.join(DEGRADED)}")
            if granularity is Granularity.COMPREHENSIVE and ViewKind.WITHOUT_SEGMENT in kinds:
                raise ValueError("a comprehensive question has no segment, so it has no view without_segment")
        if self.samples > 1 and not self.temperature:
            raise ValueError("samples above 1 need a temperature above 0: greedy answers are all the same")
        return self


class JudgeParams(Section):
    judge: ByRuleOrChat = Field(description="`rule`, or a language model; paper: GPT-4o-mini")
    show_reference: bool = Field(
        default=True, description="the model sees the asker's answer; the paper's prompt speaks of one, without a slot"
    )
    max_caption_chars: int = Field(24_000, ge=1000, description="ours: captions in one prompt; more are thinned out")


class MixParams(Section):
    max_pairs: int | None = Field(ge=2, description="of the training set. paper: 10,000; none = all")
    localized_share: float | None = Field(ge=0, le=1, description="paper: 0.5; none = whatever there is")
    max_pairs_per_video: int | None = Field(None, ge=1, description="ours")
    balance_types: bool = Field(default=False, description="ours: no question type has more pairs than its fair share")
    held_out_share: float = Field(
        0, ge=0, lt=1, description="ours: of the videos, with all their pairs; not trained on"
    )
    max_length_ratio: float | None = Field(
        None, ge=1, description="ours: mean chosen over mean rejected tokens, and the other way; none = only measured"
    )
    order: Literal["shuffled", "easy_to_hard"] = Field(
        "shuffled", description="of training; easy_to_hard as in TEMPLE (arXiv 2503.16929), by the views' difficulty"
    )


class ValidateParams(Section):
    min_pairs: int = Field(ge=1, description="ours")
    min_pairs_per_type: int = Field(1, ge=0, description="ours: of each question type that there is")
    max_length_ratio: float = Field(gt=0, description="ours: mean chosen over mean rejected length, in tokens")


class RegisterParams(Section):
    """What the gate asks for. The limits are ours; all are shares of items, 0.01 = one point."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="registered model name")
    experiment: str
    promotion: Literal["gate", "person"] = Field(
        "gate", description="who moves `champion` when the gate allows it: the register stage, or `tpo promote`"
    )
    primary: str = Field("all", description="what must be better: `all` items together, or a benchmark's name")
    needed: tuple[str, ...] = Field(
        (),
        description="what must have been measured: `NAME` = a benchmark's multiple choice, `NAME spans`, "
        "`NAME free_answers`",
    )
    min_gain: float = Field(
        ge=0, lt=1, description="the interval's lower bound must lie above this; 0 = better than base"
    )
    max_loss: float = Field(
        0.02, ge=0, le=1, description="no benchmark may be worse by so much at its interval's lower end"
    )
    max_unchecked_share: float = Field(
        0.0, ge=0, le=1, description="of training and benchmark videos, that could be compared by their bytes alone"
    )


class DemoParams(Section):
    """The demo world (`demo/dvc.yaml`)."""

    num_train_videos: int = Field(ge=1)
    num_eval_videos: int = Field(ge=3)
    questions_per_eval_video: int = Field(ge=1)
    num_needles: int = Field(ge=1)
    num_haystacks: int = Field(ge=1)
    min_events: int = Field(ge=4, le=16)
    max_events: int = Field(ge=4, le=16)
    seed: int

    @model_validator(mode="after")
    def _min_is_at_most_max(self) -> Self:
        if self.min_events > self.max_events:
            raise ValueError(f"min_events ({self.min_events}) must not be above max_events ({self.max_events})")
        return self


class Params(Section):
    data: DataParams
    model: ModelParams
    runtime: RuntimeParams
    ingest: IngestParams
    caption: CaptionParams
    ask: AskParams
    answer: AnswerParams
    judge: JudgeParams
    mix: MixParams
    validate_: ValidateParams = Field(alias="validate")
    train: TrainParams
    evaluate: EvaluateParams
    register_: RegisterParams = Field(alias="register")
    demo: DemoParams

    @model_validator(mode="after")
    def _quantized_weights_are_not_trained(self) -> Self:
        if self.model.quantization is not None and self.train.lora is None:
            raise ValueError(
                f"model.quantization is {self.model.quantization}: only adapters train on it, set train.lora"
            )
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `params.yaml`.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown key, a wrong type or an impossible value; each
            is named with what is allowed.
    """
    return parse_params(read_params(path), str(path))


def read_params(path: Path) -> str:
    """The text of a `params.yaml`.

    Raises:
        UserError: the file is missing, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"No {path} here ({Path.cwd()}). Run from the project's root folder.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error


def parse_params(text: str, where: str) -> Params:
    """Check the text of a `params.yaml`, which errors call `where`; see `load_params` for what is raised."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {redact(str(error))}") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        raise UserError(f"{where} has {error.error_count()} problem(s):\n{problems}") from error


def _explain(detail: ErrorDetails) -> str:
    where = ".".join(str(part) for part in detail["loc"] if part not in _TAGS) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key. Allowed here: {', '.join(_allowed_keys(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{where}: missing"
    or_a_model = ", or a model: {url: …, model: …} or {checkpoint: …}" if detail["loc"][-1:] == ("offline",) else ""
    got = "" if where.endswith("api_key_env") else f", got {redact(repr(detail['input']))}"  # it may be the key itself
    return f"{where}: {detail['msg']}{or_a_model}{got}"


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Params
    for part in location:
        if part in _TAGS:
            section = _TAGS[str(part)] or section
            continue
        field = next((f for name, f in section.model_fields.items() if part in (name, f.alias)), None)
        if field is not None:  # else an index or a key
            section = next(_sections_in(field.annotation), section)
    return sorted(field.alias or name for name, field in section.model_fields.items())


# Of who captions, asks and judges: pydantic puts them into locations, where the file has nothing.
_TAGS: dict[int | str, type[BaseModel] | None] = {"endpoint": EndpointParams, "local": LocalParams, "offline": None}


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation speaks of, in the order in which it names them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections_in(argument)
