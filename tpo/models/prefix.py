"""One video, several continuations: the video runs through the decoder once, and every row goes on from there.

The keys and values of the prefix exist once, for all rows; what a row adds is its own. Without gradients: gradient
checkpointing drops such a cache silently, so training shares its prefix in another way.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo.models.family import Family, VideoInput


class _SharedLayer(DynamicLayer):
    """One layer's keys and values: a prefix [1, heads, p, d] below the rows' own [b, heads, s, d]."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._prefix = keys, values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        own = super().update(key_states, value_states)
        return tuple(
            torch.cat([shared.expand(len(rows), -1, -1, -1), rows], dim=-2)
            for shared, rows in zip(self._prefix, own, strict=True)
        )

    def get_seq_length(self) -> int:
        own: int = super().get_seq_length()
        return self._prefix[0].shape[-2] + own


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
        if list(ids).count(family.video_token_id) != video.num_features:
            raise ValueError(
                f"The shared prefix has {list(ids).count(family.video_token_id)} video tokens, but the video has "
                f"{video.num_features} features"
            )
        self._model, self._family, self._video = model, family, video
        self.ids = list(ids)
        cache: Any = DynamicCache()
        device = model.get_input_embeddings().weight.device
        row = torch.tensor([self.ids], device=device)
        model(
            input_ids=row,
            position_ids=batch_positions([family.positions(self.ids, video)]).to(device),
            mm_token_type_ids=family.token_types(row),
            mm_encoder_outputs={"video": features},
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]

    def rows(self, rows: Sequence[Sequence[int]]) -> "Rows":
        """Go on with several rows at once, each a whole sequence that begins with the prefix."""
        return Rows(self._model, self._family, self._video, self.ids, self._layers, rows)


class Rows:
    """A batch of sequences behind one prefix, padded on the left so that their ends meet."""

    def __init__(
        self,
        model: Any,
        family: Family,
        video: VideoInput,
        prefix: list[int],
        layers: Sequence[tuple[torch.Tensor, torch.Tensor]],
        rows: Sequence[Sequence[int]],
    ) -> None:
        device = model.get_input_embeddings().weight.device
        tails = [list(row[len(prefix) :]) for row in rows]
        longest = max(len(tail) for tail in tails)
        # What a padding token is does not matter: it is masked.
        self.ids = torch.tensor([[0] * (longest - len(tail)) + tail for tail in tails], device=device)
        is_token = torch.tensor([[0] * (longest - len(tail)) + [1] * len(tail) for tail in tails])
        self._mask = torch.cat([torch.ones(len(rows), len(prefix), dtype=torch.long), is_token], dim=1).to(device)
        positions = [family.positions(row, video)[:, len(prefix) :] for row in rows]
        padded = [torch.nn.functional.pad(part, (longest - part.shape[1], 0)) for part in positions]
        self._positions = batch_positions(padded).to(device)
        self._cache = Cache(layers=[_SharedLayer(keys, values) for keys, values in layers])
        self._model = model

    def run(self, keep: int) -> torch.Tensor:
        """Logits of the last `keep` tokens of every row: float [rows, keep, vocabulary]."""
        return self._forward(self.ids, self._positions, keep)

    def append(self, tokens: torch.Tensor) -> torch.Tensor:
        """One more token for every row (int64 [rows]); the logits of what comes behind it, float [rows, vocabulary]."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self._positions = self._positions[..., -1:] + 1
        return self._forward(tokens[:, None], self._positions, 1)[:, 0]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, keep: int) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits


def batch_positions(positions: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of [axes, tokens] as the models take them: [rows, tokens] for one axis, else [axes, rows, tokens]."""
    together = torch.stack(list(positions), dim=1)
    return together[0] if len(together) == 1 else together
