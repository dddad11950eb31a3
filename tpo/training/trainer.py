"""TRL's DPO for video: every TRL loss, with the video through tower and decoder once for all answers about it.

TRL has no video input (huggingface/trl#4002), and would run a video eight times for each pair: two rows times forward,
recomputation, backward and reference. Here the pairs of one view are one row (`tpo.training.rows`), reference
log-probabilities are known beforehand (`tpo.training.reference`), and TRL's loss gets log-probabilities of answers.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from tpo.errors import UserError
from tpo.models.video_lmm import VideoLMM
from tpo.params import Sharing
from tpo.training.branches import branching, check_can_branch
from tpo.training.memory import LESS_MEMORY, out_of_memory_named
from tpo.training.metrics import OneProcess, PairMeans
from tpo.training.reference import TokenScores
from tpo.training.rows import PairRows, Row
from tpo.training.sampler import VideoGroupedSampler
from tpo.training.scoring import add_row_scoring

_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


@dataclass
class VideoDPOConfig(DPOConfig):
    """TRL's settings and ours.

    Attributes:
        sharing: what runs a video's prefix once: all pairs of the "video" in a micro-batch, each "pair" by itself, or
            "none", which is TRL's own way, two rows for each pair with the reference in every step.
        sft_alpha: weight of the SFT term beside TRL's losses: each chosen answer's mean over its tokens, then the mean
            over the pairs of the optimizer step. TRL's own "sft" loss is a mean over a micro-batch's tokens, and
            changes with how pairs are split into micro-batches.
        pairs_per_video: at most so many pairs of one video come together.
    """

    sharing: Sharing = field(default="video")
    sft_alpha: float = field(default=0.0)
    pairs_per_video: int = field(default=4)


class VideoDPOTrainer(DPOTrainer):
    """Takes numbered pairs (`number_pairs`) and, unless nothing is shared, `PairRows` to make rows of them."""

    args: VideoDPOConfig
    model: Any
    optimizer: Any

    def __init__(self, policy: VideoLMM, *args: Any, rows: PairRows | None = None, **kwargs: Any) -> None:
        """`rows` holds the training pairs first, by their numbers, then those held out.

        Raises:
            UserError: the decoder cannot share a prefix, or context parallelism was asked for.
        """
        self._rows = rows
        self._reference: Mapping[int, TokenScores] = {}
        self._means = {"train": PairMeans(), "eval": PairMeans()}
        self._num_tokens = 0  # through the decoder since they were last logged
        if rows is not None:
            try:
                check_can_branch(policy.model.config)
            except ValueError as error:
                raise UserError(f"{error} Set train.sharing to none.") from error
            add_row_scoring(policy.bare, policy.family)
        super().__init__(policy.model, *args, **kwargs)
        for weights in self.model.parameters():
            if weights.requires_grad:  # TRL rounds adapters on 4-bit weights to bfloat16, where small steps are lost
                weights.data = weights.data.to(torch.promote_types(weights.dtype, torch.float32))
        if rows is not None:
            self._check_tower_is_frozen(policy)
        if rows is not None and self.get_cp_size() * self.get_sp_size() > 1:
            raise UserError(
                "Context parallelism cuts a row into parts of equal length and lets each attend causally to all before "
                "it, so that an answer would see the others. Set train.sharing to none, or its size to 1."
            )

    def use_reference(self, scores: Mapping[int, TokenScores]) -> None:
        """Log-probabilities under the reference model of the answers of every pair, by its number."""
        self._reference = scores

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with self._branching():
            return super().train(*args, **kwargs)

    def dry_step(self, numbers: Sequence[int]) -> float:
        """Forward and backward for one row without learning from it. Gives the device's peak memory in bytes, or 0.

        Raises:
            UserError: it does not fit into the device's memory, or the moments of the optimizer will not.
        """
        cuda = self.args.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        self.model.train()
        with self._branching(), self._memory_named(numbers):
            with self.compute_loss_context_manager():
                loss = self._row_loss(self.model, numbers, counts=False)
            (0 * loss).backward()
        self.model.zero_grad(set_to_none=True)
        if not cuda:
            return 0
        moments = 8 * sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        peak, there = torch.cuda.max_memory_allocated() + moments, torch.cuda.mem_get_info()[1]
        if peak > there:
            raise UserError(
                f"Training takes {peak / 1e9:.0f} GB with the optimizer's moments, and the device has "
                f"{there / 1e9:.0f}. {LESS_MEMORY}"
            )
        return float(peak)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self._branching():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward for each row of a micro-batch in its turn, so that one video at a time takes memory.

        Rows add up to the mean over all pairs of the optimizer step, be they in one process or in several.
        """
        if self._rows is None:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
            return loss
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        groups = self._equally_many(self._counted_groups(inputs))
        total = torch.zeros((), device=self.args.device)
        for place, (numbers, num_counted) in enumerate(groups):
            last = place == len(groups) - 1
            with (
                self._memory_named(numbers),
                self._synchronizing(model, last=last),
                self.maybe_activation_offload_context,
            ):
                with self.compute_loss_context_manager():
                    mean = self._row_loss(model, numbers, counts=num_counted > 0)
                # Gradients are averaged over the processes afterwards.
                share = mean * (num_counted * self.accelerator.num_processes / num_items_in_batch)
                deepspeed = self.accelerator.distributed_type is DistributedType.DEEPSPEED
                self.accelerator.backward(share, **({"scale_wrt_gas": False} if deepspeed else {}))
            total += share.detach()
        return total

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the pairs of a batch; of whole batches in evaluation, since training goes row by row."""
        if self._rows is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        groups = self._equally_many(self._counted_groups(inputs))
        losses = [self._row_loss(model, numbers, counts=count > 0) * count for numbers, count in groups]
        return torch.stack(losses).sum() / max(1, sum(count for _, count in groups))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        prefix = "" if self.model.training else "eval_"
        logs.update({f"{prefix}{name}": mean for name, mean in self._means[self._mode].take().items()})
        # Before a checkpoint is written: weights are no numbers now. In float16 such a step is left out, and no error.
        if not self.args.fp16 and not math.isfinite(logs.get("grad_norm", 0.0)):
            raise UserError(
                f"The gradient of step {self.state.global_step} is not finite, though its loss was. Lower "
                "train.learning_rate and run again: training goes on from its last checkpoint before."
            )
        if "loss" in logs and self._rows is not None:
            logs["tokens"] = sum(gather_object([self._num_tokens]))
            self._num_tokens = 0
        super().log(logs, start_time)

    def _row_loss(self, model: Any, numbers: Sequence[int], *, counts: bool) -> torch.Tensor:
        """TRL's losses and the SFT term for pairs of one view: the mean over them."""
        with self.accelerator.autocast():  # around the tower too, and around what nothing is wrapped around yet
            return self._row_loss_as_is(model, numbers, counts=counts)

    def _row_loss_as_is(self, model: Any, numbers: Sequence[int], *, counts: bool) -> torch.Tensor:
        assert self._rows is not None
        row, encoded = self._rows.row(numbers, self.args.device)
        scores = model(row=row, encoded=encoded)
        preference, trl_metrics = self._trl_loss(scores, row, [self._reference[number] for number in numbers])
        answers = scores.log_probs.split(row.lengths)
        sft = -torch.stack([answer.mean() for answer in answers[: row.num_pairs]]).mean()
        loss: torch.Tensor = preference + self.args.sft_alpha * sft
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss of {self._rows.named(numbers)} is not finite, at step {self.state.global_step}. Lower "
                "train.learning_rate, or look at these pairs: `tpo show ID`."
            )
        if counts:
            self._num_tokens += row.num_tokens if self.model.training else 0
            terms = {"loss/preference": preference.item(), "loss/sft": sft.item(), **trl_metrics}
            if not self.model.training:
                terms["loss"] = loss.item()  # over pairs, where the library's is over batches
            means = self._means[self._mode]
            means.add(terms, row.num_pairs)
            for place, number in enumerate(numbers):
                chosen, rejected = answers[place], answers[place + row.num_pairs]
                granularity = self._rows.pairs[number].granularity
                means.add_pair(granularity, chosen, rejected, self._reference[number], self.beta)
        return loss

    def _trl_loss(
        self, scores: Any, row: Row, reference: Sequence[TokenScores]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """TRL's own loss and metrics, from what it would have got from a model: answers behind one token each."""

        def laid_out(values: torch.Tensor) -> torch.Tensor:
            return pad_sequence(list(values.split(row.lengths)), batch_first=True)

        table = FusedCausalLMOutput(**{name: laid_out(getattr(scores, name)) for name in _PER_TOKEN})
        is_answer = torch.nn.functional.pad(laid_out(torch.ones_like(row.answers)), (1, 0))
        chosen, rejected = zip(*[self._reference_sums(one) for one in reference], strict=True)
        inputs = {
            "input_ids": torch.zeros_like(is_answer),
            "completion_mask": is_answer,
            "attention_mask": torch.ones_like(row.ids),
            "ref_chosen_logps": torch.tensor(chosen, device=row.ids.device, dtype=scores.log_probs.dtype),
            "ref_rejected_logps": torch.tensor(rejected, device=row.ids.device, dtype=scores.log_probs.dtype),
        }
        mode = self._mode
        everyone, self.accelerator = self.accelerator, OneProcess(self.accelerator)
        usual, self._metrics[mode] = self._metrics[mode], defaultdict(list)
        precomputed, self.precompute_ref_logps = self.precompute_ref_logps, True
        try:
            loss = super()._compute_loss(lambda **_: table, inputs, return_outputs=False)  # type: ignore[no-untyped-call]
            metrics = {name: values[-1] for name, values in self._metrics[mode].items() if name != "num_tokens"}
        finally:
            self.accelerator, self._metrics[mode], self.precompute_ref_logps = everyone, usual, precomputed
        return loss, metrics

    def _reference_sums(self, scores: TokenScores) -> tuple[float, float]:
        """As TRL sums: tokens beyond the shorter answer's end weigh `ld_alpha`, if it is set."""
        beyond = 1.0 if self.ld_alpha is None else self.ld_alpha
        shared = min(len(scores.chosen), len(scores.rejected))
        chosen, rejected = (sum(one[:shared]) + beyond * sum(one[shared:]) for one in (scores.chosen, scores.rejected))
        return chosen, rejected

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def _counted_groups(self, inputs: Mapping[str, torch.Tensor]) -> list[tuple[list[int], int]]:
        """The pairs of each row of a batch, and how many of them count: all, or none if the batch has no other."""
        assert self._rows is not None
        numbers, counts = inputs["pair"].tolist(), inputs["counts"].tolist()
        counted = [number for number, count in zip(numbers, counts, strict=True) if count]
        if not counted:
            return [(numbers[:1], 0)]
        return [(group, len(group)) for group in self._rows.groups(counted)]

    def _equally_many(self, groups: list[tuple[list[int], int]]) -> list[tuple[list[int], int]]:
        """As many rows in every process: a forward is done together where weights are sharded."""
        if self.accelerator.num_processes == 1:
            return groups
        most = int(self.accelerator.gather(torch.tensor([len(groups)], device=self.args.device)).max())
        return groups + [(groups[-1][0], 0)] * (most - len(groups))

    @contextmanager
    def _synchronizing(self, model: Any, *, last: bool) -> Iterator[None]:
        """Gradients are exchanged with the last row only, and only where the trainer wants it after the micro-batch."""
        state = self.accelerator.gradient_state
        wanted = state.sync_gradients
        if last or not wanted or self.accelerator.num_processes == 1:
            yield
            return
        state._set_sync_gradients(False)  # noqa: SLF001, FBT003 as the library's own training loop does
        alone = (
            nullcontext()
            if self.accelerator.distributed_type is DistributedType.DEEPSPEED
            else self.accelerator.no_sync(model)
        )
        try:
            with alone:
                yield
        finally:
            state._set_sync_gradients(wanted)  # noqa: SLF001

    def _memory_named(self, numbers: Sequence[int]) -> AbstractContextManager[None]:
        assert self._rows is not None
        return out_of_memory_named(f"with the row of {self._rows.named(numbers)}")

    def _check_tower_is_frozen(self, policy: VideoLMM) -> None:
        named = self.model.named_parameters()
        trained = [name for name, weights in named if policy.family.tower in name and weights.requires_grad]
        if trained:
            raise UserError(
                f"The vision tower would be trained: {trained[0]} ({len(trained)} such weights). It must stay as it "
                "is, since its output is computed once. Does the adapter name its modules by a part of the decoder?"
            )

    def _branching(self) -> Any:
        return nullcontext() if self._rows is None else branching(self.accelerator.unwrap_model(self.model))

    # What TRL and transformers do otherwise with data that they tokenize, count and shuffle themselves.

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Pairs of an optimizer step, over all processes."""
        if self._rows is None:
            return super()._get_num_items_in_batch(batch_samples, device)
        own = torch.stack([batch["counts"].sum() for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(own).sum()

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._rows is None:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        return self._sampler(
            self.train_dataset,
            self.args.per_device_train_batch_size,
            in_order=self.args.train_sampling_strategy == "sequential",
        )

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        if self._rows is None:
            sampler: Sampler[int] | None = super()._get_eval_sampler(eval_dataset)
            return sampler
        return self._sampler(eval_dataset, self.args.per_device_eval_batch_size, in_order=True)

    def _sampler(self, numbered: Any, batch_size: int, *, in_order: bool) -> VideoGroupedSampler:
        assert self._rows is not None
        return VideoGroupedSampler(
            [self._rows.pairs[row["pair"]].view for row in numbered if row["counts"]],
            batch_size=batch_size,
            batches_per_step=self.args.gradient_accumulation_steps * self.accelerator.num_processes,
            pairs_per_video=self.args.pairs_per_video,
            num_processes=self.accelerator.num_processes,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            in_order=in_order,
            epoch=lambda: int(self.state.epoch or 0),
        )

    def _load_best_model(self) -> None:
        if isinstance(self.model, PeftModel) or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
            return
        assert self.state.best_model_checkpoint is not None
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Full weights by the model's own loader: files have other names for them than the model has in memory.

        transformers' trainer compares the two as they are, finds no weight, warns, and would go on from the base.
        """
        if isinstance(self.model, PeftModel) or self.is_fsdp_enabled:  # the latter's files have the names in memory
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        policy: Any = self.model
        saved = type(policy).from_pretrained(resume_from_checkpoint, dtype=policy.dtype)
        policy.load_state_dict(saved.state_dict())
