"""Log-probabilities of answers' tokens, and of no others: logits of a whole row are never made."""

from types import MethodType
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

from tpo.models.family import Family
from tpo.training.rows import Row

_TOKENS_AT_ONCE = 512  # ours: their float32 logits take 0.3 GB with a vocabulary of 152,000


def computing_in(dtype: str, device: torch.device) -> torch.autocast:
    """Multiply matrices in this dtype meanwhile, whatever that of the weights is: as the trainer does while training.

    What is compared with training, as the reference is, must round as training does.
    """
    return torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32")


def add_row_scoring(model: Any, family: Family) -> None:
    """Let `model(row=…, encoded=…)` score a row, whatever wraps the model: adapters, DDP, FSDP, DeepSpeed.

    Wrappers act around a model's forward, so all of its weights must be used inside of it, the projector's too.
    Without a row the forward is what it was. The result is TRL's, with one value for each token of the answers in
    place of one for each token of the row, as its losses and metrics take them.
    """
    usual: Any = model.forward

    def forward(self: Any, *args: Any, row: Row | None = None, encoded: Any = None, **kwargs: Any) -> Any:
        if row is None:
            return usual(*args, **kwargs)
        hidden = self.model(
            input_ids=row.ids,
            position_ids=row.positions,
            mm_token_type_ids=row.token_types,
            mm_encoder_outputs={"video": family.project(self, encoded)},
            branches=row.branches,
            use_cache=False,
        ).last_hidden_state
        return score_tokens(self.get_output_embeddings(), hidden[0, row.asked_at], row.answers)

    model.forward = MethodType(forward, model)


def score_tokens(head: Any, hidden: torch.Tensor, tokens: torch.Tensor) -> FusedCausalLMOutput:
    """Of the decoder's output [n, d] and the token that should follow each (int64 [n]), n values of every kind.

    Log-softmax is in float32 at least. Logits are made for a few tokens at a time and again in the backward pass.
    """
    parts = [
        checkpoint(_score, head, part, wanted, use_reentrant=False)
        for part, wanted in zip(hidden.split(_TOKENS_AT_ONCE), tokens.split(_TOKENS_AT_ONCE), strict=True)
    ]
    together = [torch.cat(values) for values in zip(*parts, strict=True)]
    names = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
    return FusedCausalLMOutput(**dict(zip(names, together, strict=True)))


def _score(head: Any, hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = logits.log_softmax(-1)
    chosen = log_probs.gather(-1, tokens[:, None])[:, 0]
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        log_sum_sq_probs = (2 * log_probs).logsumexp(-1)
        return chosen, entropy, log_sum_sq_probs, logits.mean(-1), logits.argmax(-1) == tokens
