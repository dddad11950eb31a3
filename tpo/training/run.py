"""From preference pairs to a tuned model: DPO + α·SFT on full video and question (arXiv 2501.13919, eq. 2 to 4)."""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import LoraConfig
from transformers import PrinterCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from tpo.models import VideoLMM, load_model
from tpo.params import ModelParams, TrainParams
from tpo.records import PreferencePair, Video
from tpo.replies import ReplyCache
from tpo.training.branches import branching
from tpo.training.callbacks import Progress
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.training.features import VideoFeatures
from tpo.training.reference import reference_scores
from tpo.training.rows import PairRows
from tpo.training.scoring import add_row_scoring
from tpo.training.self_check import check_sharing
from tpo.training.trainer import VideoDPOConfig, VideoDPOTrainer
from tpo.video.decode import VideoFolder


def video_dpo_config(
    params: TrainParams, output_dir: Path, device: str, *, in_order: bool = False, num_processes: int = 1
) -> VideoDPOConfig:
    """TRL's settings for ours."""
    shares = params.sharing != "none"
    checkpointing = params.gradient_checkpointing
    return VideoDPOConfig(
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
        gradient_accumulation_steps=params.pairs_per_step // (params.pairs_per_device * num_processes),
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_ratio,
        weight_decay=0.0,
        max_length=None,  # a multimodal prompt is never truncated
        gradient_checkpointing=device != "cpu" if checkpointing is None else checkpointing,
        bf16=device != "cpu",
        use_cpu=device == "cpu",
        remove_unused_columns=False,
        prediction_loss_only=True,
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # processes differ in how many rows they run between two exchanges
        logging_nan_inf_filter=False,  # a loss that is no number is an error, named where it arises
        logging_steps=1,
        save_steps=params.save_every_steps,
        save_total_limit=1,
        seed=params.seed,
        train_sampling_strategy="sequential" if in_order else "random",
        report_to=[],
        disable_tqdm=True,  # `Progress` shows it
    )


def train_on_pairs(
    pairs: Sequence[PreferencePair],
    videos: Mapping[str, Video],
    folder: VideoFolder,
    base: ModelParams,
    params: TrainParams,
    work_dir: Path,
    *,
    in_order: bool = False,
    replies: ReplyCache | None = None,
) -> tuple[VideoLMM, list[dict[str, float]]]:
    """Train the base on `pairs`; goes on from the last checkpoint in `work_dir` if there is one.

    Args:
        in_order: take the pairs in the order given, as from easy to hard, instead of shuffling them.
        replies: where the base's log-probabilities are kept; none = in `work_dir`.

    Returns the tuned model (an adapter on the base if `params.lora`) and the logged history, one dict per step.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    num_processes = PartialState(cpu=base.device == "cpu").num_processes
    policy = load_model(base)
    device = policy.model.device
    config = video_dpo_config(params, work_dir, device.type, in_order=in_order, num_processes=num_processes)
    common: dict[str, Any] = {
        "args": config,
        "train_dataset": number_pairs(pairs, policy, num_repeats=params.pairs_per_device * num_processes),
        "processing_class": policy.tokenizer,
        "peft_config": None if params.lora is None else lora_config(policy, base, params),
    }
    if params.lora is None:  # an adapter freezes everything else by itself; weights of 4 bits can have no gradient
        _freeze_all_but(policy, policy.family.trained)
    if params.sharing == "none":
        trainer = _plain_trainer(policy, pairs, videos, folder, base, common)
    else:
        rows = PairRows(pairs, VideoFeatures(policy, videos, folder), policy, params.sharing)
        add_row_scoring(policy.bare, policy.family)
        check_sharing(policy, rows, rows.groups(range(min(len(pairs), params.pairs_per_video)))[0])
        with branching(policy.model):
            reference = reference_scores(policy, rows, replies or ReplyCache(work_dir / "reference.sqlite"), device)
        trainer = VideoDPOTrainer(policy, rows=rows, data_collator=rows.collate, **common)
        trainer.use_reference(reference)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    trainer.train(resume_from_checkpoint=_last_checkpoint(work_dir))
    policy.model = trainer.accelerator.unwrap_model(trainer.model)
    return policy, trainer.state.log_history


def _plain_trainer(
    policy: VideoLMM,
    pairs: Sequence[PreferencePair],
    videos: Mapping[str, Video],
    folder: VideoFolder,
    base: ModelParams,
    common: Mapping[str, Any],
) -> VideoDPOTrainer:
    """TRL's own way: two rows for each pair, and a reference model beside the policy unless it has an adapter."""
    reference = None
    if common["peft_config"] is None:
        reference = load_model(base).model
        reference.requires_grad_(requires_grad=False)
    collator = VideoPairCollator(pairs, videos, folder, policy)
    return VideoDPOTrainer(policy, ref_model=reference, data_collator=collator, **common)


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


def _last_checkpoint(work_dir: Path) -> str | None:
    """The newest whole checkpoint; one that a kill left without its last file is removed."""
    for folder in work_dir.glob("checkpoint-*"):
        if not (folder / TRAINER_STATE_NAME).is_file():
            shutil.rmtree(folder)
    last: str | None = get_last_checkpoint(str(work_dir))
    return last


def _freeze_all_but(model: VideoLMM, trained: Sequence[str]) -> None:
    for name, parameter in model.model.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))


def history_csv(history: Sequence[Mapping[str, float]]) -> str:
    """The logged curves as CSV, one row a step, for `dvc plots`."""
    curves = [entry for entry in history if "loss" in entry]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *(key for key in curves[0] if key != "step")], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(curves)
    return text.getvalue()
