"""DPO + α·SFT on full video and question, by TRL's trainer with our collator (arXiv 2501.13919, equations 2 to 4)."""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from tpo.models import VideoLMM, load_model
from tpo.params import ModelParams, TrainParams
from tpo.progress import progress
from tpo.records import PreferencePair, Video
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.video.decode import VideoFolder


class VideoDPOTrainer(DPOTrainer):
    """TRL's DPO over rows that are tokenized already; TRL itself has no video input (huggingface/trl#4002)."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Full weights by the model's own loader: files have other names for them than the model has in memory.

        transformers' trainer compares the two as they are, finds no weight, warns, and would go on from the base.
        """
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        policy: Any = self.model
        saved = type(policy).from_pretrained(resume_from_checkpoint, dtype=policy.dtype)
        policy.load_state_dict(saved.state_dict())


class Progress(TrainerCallback):
    """One bar over the steps, in place of transformers' bar with a printed dictionary for each of them."""

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._bar = progress(state.max_steps, "train", "steps", done=state.global_step)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._bar.update()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._bar.close()


def dpo_config(params: TrainParams, output_dir: Path, device: str, *, in_order: bool) -> DPOConfig:
    """TRL's settings for ours. The SFT term is TRL's: a token mean over the micro-batch's chosen answers."""
    return DPOConfig(
        output_dir=str(output_dir),
        beta=params.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[params.dpo_weight, params.sft_alpha],
        learning_rate=params.learning_rate,
        num_train_epochs=params.num_epochs,
        per_device_train_batch_size=params.pairs_per_device,
        gradient_accumulation_steps=params.pairs_per_step // params.pairs_per_device,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_ratio,
        weight_decay=0.0,
        max_length=None,  # a multimodal prompt is never truncated
        gradient_checkpointing=device != "cpu",
        bf16=device != "cpu",
        use_cpu=device == "cpu",
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
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
) -> tuple[VideoLMM, list[dict[str, float]]]:
    """Train the base on `pairs`; goes on from the last checkpoint in `work_dir` if there is one.

    Args:
        in_order: take the pairs in the order given, as from easy to hard, instead of shuffling them.

    Returns the tuned model (an adapter on the base if `params.lora`) and the logged history, one dict per step.
    """
    policy = load_model(base)
    device = policy.model.device.type
    peft_config, reference = None, None
    if params.lora is None:  # an adapter freezes everything else by itself; weights of 4 bits can have no gradient
        _freeze_all_but(policy, policy.family.trained)
        reference = load_model(base).model
        reference.requires_grad_(requires_grad=False)
    else:
        from peft import LoraConfig

        peft_config = LoraConfig(
            r=params.lora.r,
            lora_alpha=params.lora.alpha,
            lora_dropout=0.0,
            target_modules=policy.family.lora_targets,
            base_model_name_or_path=base.base,
            revision=base.revision,
        )
    trainer = VideoDPOTrainer(
        model=policy.model,
        ref_model=reference,
        args=dpo_config(params, work_dir, device, in_order=in_order),
        data_collator=VideoPairCollator(pairs, videos, folder, policy),
        train_dataset=number_pairs(pairs, policy),
        processing_class=policy.tokenizer,
        peft_config=peft_config,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    work_dir.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=_last_checkpoint(work_dir))
    policy.model = trainer.model
    return policy, trainer.state.log_history


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
