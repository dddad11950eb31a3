"""The libraries' settings for ours."""

from pathlib import Path

from peft import LoraConfig

from tpo.errors import UserError
from tpo.models.video_lmm import VideoLMM
from tpo.params import ModelParams, TrainParams
from tpo.training.trainer import VideoDPOConfig

_MIXED_PRECISION = {"bfloat16": "bf16", "float16": "fp16"}


def video_dpo_config(
    params: TrainParams,
    output_dir: Path,
    device: str,
    *,
    dtype: str = "float32",
    in_order: bool = False,
    num_processes: int = 1,
    evaluates: bool = False,
) -> VideoDPOConfig:
    """TRL's settings for ours. In `dtype` products are computed; what is trained is float32 in any case.

    Raises:
        UserError: so many processes cannot share a step's pairs evenly, or there is nothing to tell the best by.
    """
    together = params.pairs_per_device * num_processes
    if params.pairs_per_step % together:
        raise UserError(
            f"train.pairs_per_step is {params.pairs_per_step}, and {num_processes} processes take {together} pairs at "
            f"once (train.pairs_per_device is {params.pairs_per_device}). Make it a multiple of {together}."
        )
    if params.keep == "best" and not evaluates:
        raise UserError(
            "train.keep is best, and there is no held-out pair to tell the best by. Hold pairs out "
            "(mix.held_out_share), or set it to last."
        )
    shares = params.sharing != "none"
    checkpointing = params.gradient_checkpointing
    config = VideoDPOConfig(
        output_dir=str(output_dir),
        sharing=params.sharing,
        pairs_per_video=params.pairs_per_video,
        beta=params.beta,
        loss_type=["sigmoid"] if shares else ["sigmoid", "sft"],
        loss_weights=[params.dpo_weight] if shares else [params.dpo_weight, params.sft_alpha],
        sft_alpha=params.sft_alpha if shares else 0.0,
        precompute_ref_log_probs=shares,
        learning_rate=params.learning_rate,
        num_train_epochs=params.num_epochs,
        per_device_train_batch_size=params.pairs_per_device,
        per_device_eval_batch_size=params.pairs_per_device,
        gradient_accumulation_steps=params.pairs_per_step // together,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_ratio,
        weight_decay=0.0,
        max_length=None,  # a multimodal prompt is never truncated
        activation_checkpointing=device != "cpu" if checkpointing is None else checkpointing,
        bf16=_MIXED_PRECISION.get(dtype) == "bf16",
        fp16=_MIXED_PRECISION.get(dtype) == "fp16",
        use_cpu=device == "cpu",
        remove_unused_columns=False,
        prediction_loss_only=True,
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # processes differ in how many rows they run between two exchanges
        logging_nan_inf_filter=False,  # a loss that is no number is an error, named where it arises
        logging_steps=1,
        save_steps=params.save_every_steps,
        # At its end the library deletes all but the best where one is kept, also the one to go on from after SIGTERM.
        save_total_limit=2 if params.keep == "best" else 1,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=params.evaluate_every_steps or params.save_every_steps,
        # Only what is saved can be kept, so both happen at the same steps then.
        load_best_model_at_end=params.keep == "best",
        metric_for_best_model="eval_loss" if params.keep == "best" else None,
        greater_is_better=False,
        seed=params.seed,
        train_sampling_strategy="sequential" if in_order else "random",
        report_to=[],
        disable_tqdm=True,  # `Progress` shows it
    )
    # What `accelerate launch` was told would hold otherwise, in training and not in the reference.
    config.mixed_precision = _MIXED_PRECISION.get(dtype, "no")
    return config


def lora_config(policy: VideoLMM, base: ModelParams, params: TrainParams) -> LoraConfig:
    """An adapter on the decoder's linear layers. Dropout is 0, since one prefix serves both answers of a pair."""
    assert params.lora is not None
    return LoraConfig(
        r=params.lora.r,
        lora_alpha=params.lora.alpha,
        lora_dropout=0.0,
        target_modules=policy.family.lora_targets,
        base_model_name_or_path=base.base,
        revision=base.revision,
    )
