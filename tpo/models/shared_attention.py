"""Attention of many rows over one prefix, without a copy of the prefix for each row.

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


@dataclass(frozen=True)
class SharedPrefix:
    """What the attention of every layer needs besides its queries.

    Attributes:
        layers: keys and values of the prefix, [1, heads, p, d] each.
        mask: bool [rows, 1, s, own], which of the rows' own tokens each query sees.
    """

    layers: Sequence[tuple[torch.Tensor, torch.Tensor]]
    mask: torch.Tensor


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
    prefix_key, prefix_value = (one[0] for one in shared_prefix.layers[module.layer_idx])
    scores_a_row = query.shape[1] * query.shape[2] * (prefix_key.shape[-2] + key.shape[-2])
    at_once = max(1, _MAX_SCORES // scores_a_row)
    parts = (one.split(at_once) for one in (query, key, value, shared_prefix.mask))
    return torch.cat(
        [_attend_rows(q, k, v, mask, prefix_key, prefix_value, scaling) for q, k, v, mask in zip(*parts, strict=True)]
    ), None


def _attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    shared_key: torch.Tensor,
    shared_value: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """`_attend` for as many rows as fit: shared keys and values are [h, p, d]."""
    rows, heads, length, width = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(rows, kv_heads, -1, width)  # the g query heads of a key head, one after the other
    folded = grouped.transpose(0, 1).reshape(kv_heads, -1, width)
    to_prefix = (folded @ shared_key.transpose(-1, -2)).view(kv_heads, rows, -1, shared_key.shape[-2]).transpose(0, 1)
    to_own = grouped @ key.transpose(-1, -2)
    seen = mask.repeat(1, 1, heads // kv_heads, 1)
    to_own = to_own.masked_fill(~seen, torch.finfo(to_own.dtype).min)
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
    with _LOCK, _switched(model.config.get_text_config()):
        yield


@contextmanager
def _switched(config: Any) -> Iterator[None]:
    usual = config._attn_implementation  # noqa: SLF001 the library has no public way to switch for one call
    config._attn_implementation = _NAME  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = usual  # noqa: SLF001
