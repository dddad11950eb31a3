"""Attention of many rows over the prefix that they share, without a copy of it for each row.

The queries of all rows are put to the prefix's keys in one multiplication, then each row's to its own; the softmax is
over both. It is the same sum that a row alone would make.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from transformers import AttentionInterface

_NAME = "tpo_shared_prefix"
_LOCK = Lock()
_MAX_SCORES = 2**28  # held at once, 1 GB in float32

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class SharedPrefix:
    """What the attention of every layer needs besides its queries.

    Attributes:
        prefixes: keys and values of each prefix by layer, [1, heads, p, d] each, and how many rows go on from it. Rows
            are in this order.
        seen: bool [rows, 1, s, own], which of the rows' own tokens each query sees.
    """

    prefixes: Sequence[tuple[Layers, int]]
    seen: torch.Tensor


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,  # noqa: ARG001
    *,
    scaling: float,
    shared_prefix: SharedPrefix,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Query [rows, h·g, s, d] over the prefix and own keys and values [rows, h, own, d] → [rows, s, h·g, d]."""
    seen = shared_prefix.seen.to(query.device)  # a model's layers may be spread over several cards
    outputs, first = [], 0
    for layers, count in shared_prefix.prefixes:
        prefix_key, prefix_value = (one[0] for one in layers[module.layer_idx])
        scores_a_row = query.shape[1] * query.shape[2] * (prefix_key.shape[-2] + key.shape[-2])
        at_once = max(1, _MAX_SCORES // scores_a_row)
        for start in range(first, first + count, at_once):
            rows = slice(start, min(start + at_once, first + count))
            own = query[rows], key[rows], value[rows], seen[rows]
            outputs.append(_attend_rows(*own, prefix_key, prefix_value, scaling))
        first += count
    return torch.cat(outputs), None


def _attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor,
    shared_key: torch.Tensor,
    shared_value: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """`_attend` for rows of one prefix, whose keys and values are [h, p, d]."""
    rows, heads, length, width = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(rows, kv_heads, -1, width)  # the g query heads of a key head, one after the other
    folded = grouped.transpose(0, 1).reshape(kv_heads, -1, width)
    to_prefix = (folded @ shared_key.transpose(-1, -2)).view(kv_heads, rows, -1, shared_key.shape[-2]).transpose(0, 1)
    to_own = grouped @ key.transpose(-1, -2)
    unseen = ~seen.repeat(1, 1, heads // kv_heads, 1)
    to_own = to_own.masked_fill(unseen, torch.finfo(to_own.dtype).min)
    weights = (torch.cat([to_prefix, to_own], dim=-1).float() * scaling).softmax(-1).to(value.dtype)
    on_prefix, on_own = weights.split([shared_key.shape[-2], key.shape[-2]], dim=-1)
    from_prefix = on_prefix.transpose(0, 1).reshape(kv_heads, -1, shared_key.shape[-2]) @ shared_value
    output: torch.Tensor = from_prefix.view(kv_heads, rows, -1, width).transpose(0, 1) + on_own @ value
    return output.reshape(rows, heads, length, width).transpose(1, 2).contiguous()


AttentionInterface.register(_NAME, _attend)


@contextmanager
def usual_attention() -> Iterator[None]:
    """Run a model as it is: never while another thread has switched its attention."""
    with _LOCK:
        yield


@contextmanager
def shared_attention(model: Any) -> Iterator[None]:
    """Let the decoder's layers attend by `_attend` meanwhile; the name has no mask function, so no mask is made.

    The switch is the model's, and a flow's tasks share a model between threads: forwards take turns.
    """
    with _LOCK, attending_by(_NAME, model):
        yield


@contextmanager
def attending_by(name: str, model: Any) -> Iterator[None]:
    """Let the decoder's layers attend by the attention function that is registered under this name meanwhile."""
    config = model.config.get_text_config()
    usual = config._attn_implementation  # noqa: SLF001 the library has no public way to switch for a while
    config._attn_implementation = name  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = usual  # noqa: SLF001
