"""From preference pairs to a tuned model: DPO + α·SFT on full video and question (arXiv 2501.13919, eq. 2 to 4)."""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from transformers import PrinterCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import ModelParams, TrainParams
from tpo.progress import waiting
from tpo.records import PreferencePair, Video, content_id
from tpo.replies import ReplyCache
from tpo.store import count_reasons
from tpo.training.branches import branching
from tpo.training.callbacks import Cost, EvaluateAtEnd, LiveCurves, Probing, Progress, SaveOnSigterm, StopOnCollapse
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.training.feature_cache import FeatureCache
from tpo.training.features import VideoFeatures
from tpo.training.fitting import Fitted, count_tokens, fit_pairs
from tpo.training.memory import estimate_memory, out_of_memory_named
from tpo.training.probe import Probe, make_probe
from tpo.training.reference import reference_scores
from tpo.training.rows import PairRows
from tpo.training.scoring import add_row_scoring, computing_in
from tpo.training.self_check import check_sharing
from tpo.training.settings import lora_config, video_dpo_config
from tpo.training.trainer import VideoDPOConfig, VideoDPOTrainer
from tpo.video.decode import VideoFolder


class Kept(NamedTuple):
    """Where things are kept for later runs too; none = for this one, in its work folder.

    Attributes:
        replies: a `ReplyCache` with the base's log-probabilities.
        features: folder of what the tower makes of videos, if `feature_cache_gb` lets it be kept.
    """

    replies: Path | None = None
    features: Path | None = None


class Trained(NamedTuple):
    """What came out of training.

    Attributes:
        model: the tuned model; an adapter on the base if `params.lora`.
        history: what was logged, one dict per step and per evaluation.
        fitted: which pairs were trained on, and which could not be.
        held_out: the same of the held-out pairs.
        trainer: what trained it.
    """

    model: VideoLMM
    history: list[dict[str, float]]
    fitted: Fitted
    held_out: Fitted
    trainer: VideoDPOTrainer

    def save(self, out: Path) -> None:
        """Write a folder that `load_model` reads. All processes must call it: the weights may lie in parts."""
        accelerator = self.trainer.accelerator
        weights = None
        if self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled:
            weights = accelerator.get_state_dict(self.trainer.model_wrapped)
        if accelerator.is_main_process:
            self.model.save(out, weights)
        accelerator.wait_for_everyone()


@out_of_memory_named("before or between training rows")
def train_on_pairs(
    pairs: Sequence[PreferencePair],
    videos: Mapping[str, Video],
    folder: VideoFolder,
    base: ModelParams,
    params: TrainParams,
    work_dir: Path,
    *,
    held_out: Sequence[PreferencePair] = (),
    in_order: bool = False,
    kept: Kept | None = None,
    mlflow_run_id: str | None = None,
) -> Trained:
    """Train the base on `pairs`; goes on from the last checkpoint in `work_dir` if there is one.

    Args:
        held_out: pairs that are not trained on and evaluated now and then.
        in_order: take the pairs in the order given, as from easy to hard, instead of shuffling them.
        kept: where what later runs can use again is kept; none = in `work_dir`.
        mlflow_run_id: a run that gets the curves while they grow.

    Raises:
        UserError: nothing can be trained on, or training cannot go on; says what and what to do.
    """
    on_cpu = base.device == "cpu" or not torch.cuda.is_available()  # not said, several processes count as one there
    num_processes = PartialState(cpu=on_cpu).num_processes
    policy = load_model(base)
    fitted, fitted_held_out = (fit_pairs(some, videos, folder, policy, params) for some in (pairs, held_out))
    if not fitted.pairs:
        raise UserError(f"No pair can be trained on: {count_reasons(fitted.set_aside)}. First: {fitted.set_aside[0]}")
    everything = [*fitted.pairs, *fitted_held_out.pairs]
    # Checkpoints count steps over these very pairs, with others they would go on in the middle of another order; and
    # they hold weights that came from this very base.
    work_dir = work_dir / content_id(policy.id, [pair.model_dump(mode="json") for pair in everything])
    work_dir.mkdir(parents=True, exist_ok=True)
    config = video_dpo_config(
        params, work_dir, policy.model.device.type, dtype=base.dtype, in_order=in_order, num_processes=num_processes,
        evaluates=bool(fitted_held_out.pairs),
    )  # fmt: skip
    # TRL's own way knows nothing of pairs that do not count.
    fills_up = params.sharing != "none" and num_processes > 1
    repeats = params.pairs_per_device * num_processes if fills_up else 0
    common: dict[str, Any] = {
        "args": config,
        "train_dataset": number_pairs(fitted.pairs, policy, num_repeats=repeats),
        "eval_dataset": number_pairs(fitted_held_out.pairs, policy, len(fitted.pairs), repeats)
        if fitted_held_out.pairs
        else None,
        "processing_class": policy.tokenizer,
        "peft_config": None if params.lora is None else lora_config(policy, base, params),
    }
    if params.lora is None:  # an adapter freezes everything else by itself; weights of 4 bits can have no gradient
        _freeze_all_but(policy, policy.family.trained)
        # A step of the paper's learning rates is less than bfloat16 can add to a weight: nothing would ever move.
        policy.model.float()
    if params.sharing == "none":
        trainer = _plain_trainer(policy, everything, videos, folder, base, common)
    else:
        trainer = _sharing_trainer(policy, everything, videos, folder, base, params, common, kept or Kept())
    told = SaveOnSigterm()
    probe = make_probe(fitted_held_out.pairs, params.probe_pairs, videos, folder)
    _add_callbacks(trainer, policy, params, told, probe, num_processes)
    if mlflow_run_id is not None:
        trainer.add_callback(LiveCurves(mlflow_run_id))
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(work_dir))
    finally:
        told.stop_listening()
    told.end_if_told()
    policy.model = trainer.accelerator.unwrap_model(trainer.model)
    if params.lora is None and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        policy.model.to(getattr(torch, base.dtype))  # as it is evaluated and served
    return Trained(policy, trainer.state.log_history, fitted, fitted_held_out, trainer)


def _sharing_trainer(
    policy: VideoLMM,
    pairs: Sequence[PreferencePair],
    videos: Mapping[str, Video],
    folder: VideoFolder,
    base: ModelParams,
    params: TrainParams,
    common: Mapping[str, Any],
    kept: Kept,
) -> VideoDPOTrainer:
    """Checked against rows of their own, with the reference known, and tried out on the longest row."""
    config: VideoDPOConfig = common["args"]
    work_dir, device = Path(str(config.output_dir)), policy.model.device
    disk = None
    if params.feature_cache_gb:
        disk = FeatureCache(kept.features or work_dir / "features", int(params.feature_cache_gb * 1e9), policy.id)
    rows = PairRows(pairs, VideoFeatures(policy, videos, folder, disk), policy, params.sharing, params.pairs_per_video)
    add_row_scoring(policy.bare, policy.family)
    longest = _longest_group(rows, policy, videos)
    with computing_in(base.dtype, device), waiting("comparing a shared row with rows of their own"):
        check_sharing(policy, rows, longest)
        num_tokens = rows.row(longest, device)[0].num_tokens
    with branching(policy.model), computing_in(base.dtype, device):
        with PartialState().main_process_first():  # two that make the same database at once lock each other out
            replies = ReplyCache(kept.replies or work_dir / "reference.sqlite")
        reference = reference_scores(policy, rows, replies, device)
    trainer = VideoDPOTrainer(policy, rows=rows, data_collator=rows.collate, **common)
    trainer.use_reference(reference)
    policy.model = trainer.model
    expected = estimate_memory(
        policy, num_tokens, getattr(torch, base.dtype), checkpointing=config.gradient_checkpointing
    )
    in_parts = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # then it is not on its devices yet
    if not in_parts:
        with waiting("a dry step on the longest row"):
            peak = trainer.dry_step(longest)
        taken = f"; {peak / 1e9:.2g} GB taken in a dry step" if peak else ""
        trainer.accelerator.print(
            f"train: the longest row has {num_tokens:,} tokens; by arithmetic {expected}{taken}", flush=True
        )
    return trainer


def _longest_group(rows: PairRows, policy: VideoLMM, videos: Mapping[str, Video]) -> list[int]:
    """Pairs of one view that make the longest row there can be."""
    texts = [
        2 * len(policy.answer_ids(p.question)) + len(policy.answer_ids(p.chosen)) + len(policy.answer_ids(p.rejected))
        for p in rows.pairs
    ]
    longest: tuple[int, list[int]] = (0, [])
    # The wordiest first, so that those of a view come together in its first row.
    for together in rows.groups(sorted(range(len(rows.pairs)), key=lambda number: -texts[number])):
        pairs = [rows.pairs[number] for number in together]
        tokens = count_tokens(policy, videos[pairs[0].video_id], pairs[0].view, pairs[:1])
        longest = max(longest, (tokens + sum(texts[number] for number in together), together))
    return longest[1]


def _add_callbacks(
    trainer: VideoDPOTrainer,
    policy: VideoLMM,
    params: TrainParams,
    told: SaveOnSigterm,
    probe: Probe | None,
    num_processes: int,
) -> None:
    trainer.remove_callback(PrinterCallback)
    for callback in (Progress(), Cost(num_processes), told, EvaluateAtEnd() if trainer.eval_dataset else None):
        if callback is not None:
            trainer.add_callback(callback)
    if params.max_chosen_drop is not None:
        trainer.add_callback(StopOnCollapse(params.max_chosen_drop))
    in_parts = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # it runs the model's parts by themselves
    if probe is not None and not in_parts:
        trainer.add_callback(Probing(lambda: probe.accuracy(policy)))


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


def _last_checkpoint(work_dir: Path) -> str | None:
    """The newest whole checkpoint; one that a kill left without its last file, or with half of it, is removed."""
    with PartialState().main_process_first():
        for folder in work_dir.glob("checkpoint-*"):
            if not _is_whole(folder):
                shutil.rmtree(folder)
    last: str | None = get_last_checkpoint(str(work_dir))
    return last


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


def _freeze_all_but(model: VideoLMM, trained: Sequence[str]) -> None:
    for name, parameter in model.model.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))


def history_csv(history: Sequence[Mapping[str, float]], of: str = "loss") -> str:
    """The logged curves as CSV for `dvc plots`: one row a step, or of "eval_loss" one an evaluation."""
    curves = [entry for entry in history if of in entry]
    names = dict.fromkeys(name for entry in curves for name in entry if name != "step")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *names])
    writer.writeheader()
    writer.writerows(curves)
    return text.getvalue()
