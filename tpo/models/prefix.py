"""One video, several continuations: the video runs through the decoder once, and every row goes on from there.

The keys and values of a video exist once, for all its rows; what a row adds is its own. Rows behind several videos can
go on together, at the price of a copy of its prefix for each row, one layer at a time. Without gradients: gradient
checkpointing drops such a cache silently, so training shares its prefix in another way.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo.models.family import Family, VideoInput
from tpo.models.shared_attention import SharedPrefix, shared_attention, usual_attention


class _SharedLayer(DynamicLayer):
    """One layer's keys and values: those of the videos [v, heads, p, d] before the rows' own [b, heads, s, d]."""

    def __init__(self, prefixes: tuple[torch.Tensor, torch.Tensor], video_of_row: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._prefixes, self._video_of_row = prefixes, video_of_row

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        own = super().update(key_states, value_states)
        return tuple(
            torch.cat([self._by_row(shared), rows], dim=-2) for shared, rows in zip(self._prefixes, own, strict=True)
        )

    def _by_row(self, shared: torch.Tensor) -> torch.Tensor:
        if len(shared) == 1:
            return shared.expand(len(self._video_of_row), -1, -1, -1)
        return shared[self._video_of_row.to(shared.device)]

    def get_seq_length(self) -> int:
        own: int = super().get_seq_length()
        return self._prefixes[0].shape[-2] + own


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, at least one of every row left out: something must run to be continued."""
    shortest = min(len(row) for row in rows) - 1
    return next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)


class VideoPrefix:
    """The beginning that prompts about one video share, run once."""

    def __init__(
        self, model: Any, family: Family, video: VideoInput, features: BaseModelOutputWithPooling, ids: Sequence[int]
    ) -> None:
        """`ids` holds the whole video: text before it, every placeholder, and as much behind it as is shared.

        Raises:
            ValueError: there is not one placeholder for every feature.
        """
        placeholders = list(ids).count(family.video_token_id)
        if placeholders != video.num_features:
            raise ValueError(
                f"The shared prefix has {placeholders} video tokens, but the video has {video.num_features} features"
            )
        self.model, self.family, self.video, self.ids = model, family, video, list(ids)
        cache: Any = DynamicCache()
        device = model.get_input_embeddings().weight.device
        row = torch.tensor([self.ids], device=device)
        positions = batch_positions([family.positions(self.ids, video)]).to(device)
        with usual_attention():
            model(
                input_ids=row,
                position_ids=positions,
                mm_token_type_ids=family.token_types(row),
                mm_encoder_outputs={"video": features},
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]


class Rows:
    """A batch of sequences, each behind its video's prefix, padded on the left of both so that their ends meet."""

    def __init__(self, rows: Sequence[tuple[VideoPrefix, Sequence[int]]]) -> None:
        """Each row is a whole sequence that begins with its prefix."""
        videos = list({id(prefix): prefix for prefix, _ in rows}.values())
        self._model = videos[0].model
        device = self._model.get_input_embeddings().weight.device
        tails = [list(ids[len(prefix.ids) :]) for prefix, ids in rows]
        longest = max(len(tail) for tail in tails)
        longest_prefix = max(len(prefix.ids) for prefix in videos)
        # What a padding token is does not matter: it is masked.
        self.ids = torch.tensor([_pad_left(tail, longest) for tail in tails], device=device)
        mask = [
            _pad_left([1] * len(prefix.ids), longest_prefix) + _pad_left([1] * len(tail), longest)
            for (prefix, _), tail in zip(rows, tails, strict=True)
        ]
        self._mask = torch.tensor(mask, device=device)
        positions = [prefix.family.positions(ids, prefix.video)[:, len(prefix.ids) :] for prefix, ids in rows]
        padded = [functional.pad(part, (longest - part.shape[1], 0)) for part in positions]
        self._positions = batch_positions(padded).to(device)
        self._shared: SharedPrefix | None = None
        if len(videos) == 1:
            own = self._mask[:, longest_prefix:].bool()
            causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
            self._shared = SharedPrefix(videos[0].layers, own[:, None, None] & causal)
            self._cache: Cache = DynamicCache()
            return
        video_of_row = torch.tensor([videos.index(prefix) for prefix, _ in rows])
        self._cache = Cache(
            layers=[
                _SharedLayer(_stack([video.layers[number] for video in videos], longest_prefix), video_of_row)
                for number in range(len(videos[0].layers))
            ]
        )

    def run(self, keep: int) -> torch.Tensor:
        """Logits of the last `keep` tokens of every row: float [rows, keep, vocabulary]."""
        return self._forward(self.ids, self._positions, keep)

    def append(self, tokens: torch.Tensor) -> torch.Tensor:
        """One more token for every row (int64 [rows]); the logits of what comes behind it, float [rows, vocabulary]."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self._positions = self._positions[..., -1:] + 1
        if self._shared is not None:
            seen = functional.pad(self._shared.mask[:, :, -1:], (0, 1), value=True)
            self._shared = SharedPrefix(self._shared.layers, seen)
        return self._forward(tokens[:, None], self._positions, 1)[:, 0]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, keep: int) -> torch.Tensor:
        if self._shared is not None:
            with shared_attention(self._model):
                return self._call(ids, positions, keep, shared_prefix=self._shared)
        with usual_attention():
            return self._call(ids, positions, keep, attention_mask=self._mask)

    def _call(self, ids: torch.Tensor, positions: torch.Tensor, keep: int, **more: Any) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
            **more,
        ).logits
        return logits


def batch_positions(positions: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of [axes, tokens] as the models take them: [rows, tokens] for one axis, else [axes, rows, tokens]."""
    together = torch.stack(list(positions), dim=1)
    return together[0] if len(together) == 1 else together


def _pad_left(values: list[int], length: int) -> list[int]:
    return [0] * (length - len(values)) + values


def _stack(layers: Sequence[tuple[torch.Tensor, torch.Tensor]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values [1, heads, p, d] of several videos as [v, heads, length, d], the shorter ones padded in front."""
    keys, values = (
        torch.cat([functional.pad(one, (0, 0, length - one.shape[-2], 0)) for one in ones])
        for ones in zip(*layers, strict=True)
    )
    return keys, values
