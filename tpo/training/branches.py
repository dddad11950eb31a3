"""Attention in a row that is a prefix and several continuations of it, none of which sees another.

    [prefix | branch | branch | …]

The prefix runs through the decoder once, forwards and backwards, and each branch comes out as if it stood behind the
prefix alone. Only attention mixes tokens, so only attention has to know: everything else in a decoder with full
attention works token by token. There is no mask over the whole row: prefix and first branch are an ordinary causal
sequence, and of every further branch the queries alone are put to the prefix's keys and its own.

A key-value cache would be the obvious way and is silently wrong under gradient checkpointing, which drops it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention as attend
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tpo.models.shared_attention import attending_by

_NAME = "tpo_branches"


@dataclass(frozen=True)
class Branches:
    """How long the prefix of a row is, and its branches, in tokens.

    It travels as an argument of the model's forward: gradient checkpointing runs layers again inside backward, with the
    arguments that they had, when anything global may say something else already.
    """

    prefix: int
    lengths: tuple[int, ...]

    @property
    def starts(self) -> list[int]:
        """Where each branch begins in the row."""
        return [self.prefix + sum(self.lengths[:number]) for number in range(len(self.lengths))]


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    branches: Branches | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Query [1, heads, row, d], key and value [1, kv_heads, row, d] → [1, row, heads, d].

    Without branches it is the library's attention. Dropout is not applied: its noise would be shared by the branches
    where rows of their own had each another, and DPO trains without.
    """
    if branches is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    # Where weights are float32 these are turned in float32, and autocast rounds them for plain attention alone.
    query, key = query.to(value.dtype), key.to(value.dtype)
    many: dict[str, Any] = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    start = branches.prefix + branches.lengths[0]
    head = slice(0, start)
    outputs = [attend(query[:, :, head], key[:, :, head], value[:, :, head], is_causal=True, **many)]
    for length in branches.lengths[1:]:
        own = slice(start, start + length)
        keys, values = (torch.cat([part[:, :, : branches.prefix], part[:, :, own]], dim=2) for part in (key, value))
        # Its last query sees everything, the one before one token less: the triangle lies at the lower right.
        mask: Any = causal_lower_right(length, branches.prefix + length)
        outputs.append(attend(query[:, :, own], keys, values, attn_mask=mask, **many))
        start += length
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


# Registered without a mask function, so that no mask is made, and nothing takes the positions of branches, which begin
# again and again at the prefix's end, for those of packed documents.
AttentionInterface.register(_NAME, _attend)


@contextmanager
def branching(model: Any) -> Iterator[None]:
    """Let the decoder attend in branches meanwhile, backward passes included.

    What runs without branches meanwhile must be rows without padding on the left.
    """
    with attending_by(_NAME, model):
        yield


def check_can_branch(config: Any) -> None:
    """Raises ValueError if sharing a prefix by attention alone is not exact for a model of this config.

    A list of what may, not of what may not: sliding windows reach over branches, and linear attention and convolutions
    carry a state from one branch to the next, all of which is silently wrong.
    """
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    if text.model_type not in _CAN_BRANCH or layers != {"full_attention"} or getattr(text, "use_sliding_window", False):
        raise ValueError(
            f"A {text.model_type!r} decoder with {', '.join(sorted(layers))} layers cannot share a prefix: exact for "
            f"{', '.join(_CAN_BRANCH)} with full attention."
        )


# Of each it is tested that shared and separate rows have the same log-probabilities and gradients.
_CAN_BRANCH: Sequence[str] = ("qwen2", "qwen2_5_vl_text", "qwen3_vl_text")
