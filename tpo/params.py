"""`params.yaml` as frozen models, one per stage. Units are in the names; every default says where it comes from.

"paper" is arXiv 2501.13919; "ours" is a choice of this project where the paper is silent.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from tpo.errors import UserError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataParams(_Section):
    videos: Path = Field(description="folder of videos, sidecar captions beside them")
    benchmarks: Path = Field(description="folder with longvideobench/, mlvu/ and videomme/, any of them")
    seed: int = 0


class ModelParams(_Section):
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


class RuntimeParams(_Section):
    workers: int = Field(ge=1, description="concurrent Prefect tasks of stages that run no model")
    items_per_task: int = Field(ge=1, description="videos per Prefect task; at most this much is redone after a kill")
    frame_cache_gb: float = Field(ge=0, description="decoded frames kept on disk for later stages, in 10**9 bytes")


class ProbeParams(_Section):
    """What a decoder may take for one file. All three are ours."""

    silence_s: float = Field(60, gt=0, description="it hangs if it gives no frame for so long, and is killed")
    timeout_s: float = Field(6 * 3600, gt=0, description="it is stopped after so long even if frames keep coming")
    max_memory_mb: int = Field(4096, ge=256, description="its own memory, in 2**20 bytes; held to on Linux")


class Limits(_Section):
    """What a measure may be. `score_only` counts and lists what lies outside, and keeps it."""

    min: float | None = None
    max: float | None = None
    score_only: bool = False


class FilterParams(_Section):
    """Which videos are worth training on; `tpo/video/filters.py` says what each measure is. The limits are ours."""

    duration_s: Limits
    side_px: Limits
    num_frames: Limits
    brightness: Limits
    change: Limits


class CopyParams(_Section):
    """How much of what two videos show must be the same. Ours: measured by bench/near_duplicates.py."""

    min_overlap_s: float = Field(10, gt=0, description="length of the stretch that both show")
    min_share: float = Field(0.5, ge=0, le=1, description="of the shorter video: a shared intro makes no copy")
    enough_s: float | None = Field(None, gt=0, description="so long a stretch makes a copy whatever its share")
    score_only: bool = False


class IngestParams(_Section):
    extensions: tuple[str, ...] = Field(min_length=1)
    probe: ProbeParams
    filters: FilterParams
    near_duplicates: CopyParams
    contamination: CopyParams


class CaptionParams(_Section):
    source: Literal["sidecar"]


class AskParams(_Section):
    asker: Literal["rule"]
    captions_per_segment: int = Field(ge=1, description="ours: the paper gives no segment length")
    localized_per_video: int = Field(ge=0, description="ours")
    comprehensive_per_video: int = Field(ge=0, description="ours")
    contamination_words: int = Field(ge=1, description="words in a row shared with a benchmark; 13 in arXiv 2005.14165")


class AnswerParams(_Section):
    full_frames: int = Field(ge=1, description="paper: 32, the same in generation and training")
    segment_frames: int = Field(ge=1, description="paper: 32; the demo zooms in with fewer")
    sparse_keep: float = Field(gt=0, lt=1, description="share of the full view's frames kept; paper figure 1: 0.5")
    max_new_tokens: int = Field(ge=1, description="ours")
    batch_size: int = Field(
        ge=1, description="ours: answers written together; at 7B each video among them holds 0.4 GB for 32 frames"
    )

    @property
    def most_frames(self) -> int:
        """Shown to the model at once."""
        return max(self.full_frames, self.segment_frames)


class JudgeParams(_Section):
    judge: Literal["rule"]


class MixParams(_Section):
    max_pairs: int | None = Field(ge=2, description="paper: 10,000")
    localized_share: float | None = Field(ge=0, le=1, description="paper: 0.5; none = whatever there is")


class ValidateParams(_Section):
    min_pairs: int = Field(ge=1, description="ours")
    max_length_ratio: float = Field(gt=0, description="ours: mean chosen over mean rejected length, in characters")


class LoraParams(_Section):
    r: int = Field(ge=1)
    alpha: int = Field(ge=1)


class TrainParams(_Section):
    beta: float = Field(gt=0, description="paper: 0.3 (LongVA), 0.2 (LLaVA-Video)")
    sft_alpha: float = Field(ge=0, description="paper: 0.5 (LongVA), 1.0 (LLaVA-Video)")
    dpo_weight: float = Field(1.0, ge=0, description="1 in the paper; 0 trains on chosen answers alone, a control")
    learning_rate: float = Field(gt=0, description="paper: 4e-6 (LongVA), 3e-7 (LLaVA-Video)")
    num_epochs: float = Field(gt=0, description="paper: 1")
    pairs_per_step: int = Field(ge=1, description="paper: 64")
    pairs_per_device: int = Field(ge=1, description="micro-batch")
    warmup_ratio: float = Field(ge=0, lt=1, description="paper: 0.1")
    lora: LoraParams | None = Field(description="none = the decoder's and projector's full weights, as in the paper")
    save_every_steps: int = Field(ge=1, description="ours: what a kill costs at most")
    seed: int

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.pairs_per_step % self.pairs_per_device:
            whole, part = self.pairs_per_step, self.pairs_per_device
            raise ValueError(f"pairs_per_step ({whole}) must be a multiple of pairs_per_device ({part})")
        return self


class EvaluateParams(_Section):
    num_frames: int = Field(ge=1, description="paper: 96 or 128; the same for base and tuned")
    scoring: Literal["option_text", "option_letter"] = Field(
        description="log-probability of the option's text, or of its letter after the listed options"
    )
    confidence: float = Field(gt=0.5, lt=1)
    bootstrap_samples: int = Field(ge=100)


class RegisterParams(_Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="registered model name")
    experiment: str
    min_gain: float = Field(description="the interval's lower bound must lie above this; 0 = better than base")


class DemoParams(_Section):
    """The demo world (`demo/dvc.yaml`)."""

    num_train_videos: int = Field(ge=1)
    num_eval_videos: int = Field(ge=3)
    questions_per_eval_video: int = Field(ge=1)
    min_events: int = Field(ge=4, le=16)
    max_events: int = Field(ge=4, le=16)
    seed: int

    @model_validator(mode="after")
    def _min_is_at_most_max(self) -> Self:
        if self.min_events > self.max_events:
            raise ValueError(f"min_events ({self.min_events}) must not be above max_events ({self.max_events})")
        return self


class Params(_Section):
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
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"No {path} here ({Path.cwd()}). Run from the project's root folder.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        raise UserError(f"{path} has {error.error_count()} problem(s):\n{problems}") from error


def _explain(detail: ErrorDetails) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key. Allowed here: {', '.join(_allowed_keys(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {detail['msg']}, got {detail['input']!r}"


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Params
    for part in location:
        field = next(f for name, f in section.model_fields.items() if part in (name, f.alias))
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return sorted(field.alias or name for name, field in section.model_fields.items())
