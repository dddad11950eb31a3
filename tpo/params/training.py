"""The `train` section: the paper's recipe, how it is computed, and what a long run needs."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tpo.params.section import Section

Sharing = Literal["video", "pair", "none"]


class LoraParams(Section):
    r: int = Field(ge=1)
    alpha: int = Field(ge=1)


class TrainParams(Section):
    beta: float = Field(gt=0, description="paper: 0.3 (LongVA), 0.2 (LLaVA-Video)")
    sft_alpha: float = Field(ge=0, description="paper: 0.5 (LongVA), 1.0 (LLaVA-Video)")
    dpo_weight: float = Field(1.0, ge=0, description="1 in the paper; 0 trains on chosen answers alone, a control")
    learning_rate: float = Field(gt=0, description="paper: 4e-6 (LongVA), 3e-7 (LLaVA-Video)")
    num_epochs: float = Field(gt=0, description="paper: 1")
    pairs_per_step: int = Field(ge=1, description="paper: 64; over all processes")
    pairs_per_device: int = Field(ge=1, description="micro-batch of a process; one video of it at a time takes memory")
    pairs_per_video: int = Field(4, ge=1, description="ours: at most so many of one video come together")
    sharing: Sharing = Field(
        "video",
        description="runs a video once for all its pairs, for each pair, or (none) TRL's way, for comparison: that "
        "computes its reference in every step, and knows nothing of max_chosen_drop and feature_cache_gb",
    )
    launch: str | None = Field(
        None, description="several processes: a config file of `accelerate launch`, as in configs/accelerate"
    )
    gradient_checkpointing: bool | None = Field(
        None, description="ours: saves memory for a third of the speed; none = on a GPU"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="ours: longest video, question and answer; none = what the decoder was made for"
    )
    too_long: Literal["fewer_frames", "set_aside"] = Field(
        "fewer_frames", description="ours: what becomes of pairs that are longer; both are counted"
    )
    feature_cache_gb: float = Field(
        0, ge=0, description="ours: the tower's output on disk, in 10**9 bytes; pays with a large tower and epochs"
    )
    evaluate_every_steps: int | None = Field(
        None, ge=1, description="ours: held-out pairs and a multiple-choice probe of them; none = when it saves"
    )
    probe_pairs: int = Field(64, ge=0, description="ours: how many held-out pairs the probe asks about")
    keep: Literal["last", "best"] = Field(
        "last", description="ours: the end of training, or the checkpoint with the least loss on held-out pairs"
    )
    max_chosen_drop: float | None = Field(
        1.0, gt=0, description="ours: it stops when chosen answers have lost so much a token since the base, in nats"
    )
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

    @model_validator(mode="after")
    def _what_is_kept_is_evaluated(self) -> Self:
        if self.keep == "best" and self.evaluate_every_steps not in (None, self.save_every_steps):
            raise ValueError(
                f"with keep: best, evaluate_every_steps ({self.evaluate_every_steps}) must be null or "
                f"save_every_steps ({self.save_every_steps}): only a checkpoint that was evaluated can be the best"
            )
        return self
