"""One video, several continuations: the video runs through the decoder once, and every row goes on from there.

The keys and values of a video exist once, for all its rows; what a row adds is its own. Rows behind several videos can
go on together. Without gradients: gradient checkpointing drops such a cache silently, so training shares its prefix in
another way.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo.models.family import Family, VideoInput
from tpo.models.shared_attention import SharedPrefix, shared_attention, usual_attention


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, at least one of every row left out: something must run to be continued."""
    shortest = min(len(row) for row in rows) - 1
    return next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)


class VideoPrefix:
    """The beginning that prompts about one video, or about none, share, run once."""

    def __init__(
        self,
        model: Any,
        family: Family,
        video: VideoInput | None,
        features: BaseModelOutputWithPooling | None,
        ids: Sequence[int],
    ) -> None:
        """`ids` holds the whole video: text before it, every placeholder, and as much behind it as is shared.

        Raises:
            ValueError: there is not one placeholder for every feature.
        """
        placeholders = list(ids).count(family.video_token_id)
        num_features = 0 if video is None else video.num_features
        if placeholders != num_features:
            raise ValueError(
                f"The shared prefix has {placeholders} video tokens, but the video has {num_features} features"
            )
        self.model, self.family, self.video, self.ids = model, family, video, list(ids)
        cache: Any = DynamicCache()
        device = model.get_input_embeddings().weight.device
        row = torch.tensor([self.ids], device=device)
        positions = batch_positions([self.positions(self.ids)]).to(device)
        shown = {} if features is None else {"mm_encoder_outputs": {"video": features}}
        with usual_attention():
            model(
                input_ids=row,
                position_ids=positions,
                mm_token_type_ids=family.token_types(row),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **shown,
            )
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]

    def positions(self, ids: Sequence[int]) -> torch.Tensor:
        """Of a whole sequence that begins with this prefix: int64 [axes, tokens]."""
        return self.family.text_positions(ids) if self.video is None else self.family.positions(ids, self.video)


class Rows:
    """A batch of sequences, each behind its video's prefix, padded on the left so that their ends meet."""

    def __init__(self, rows: Sequence[tuple[VideoPrefix, Sequence[int]]]) -> None:
        """Each row is a whole sequence that begins with its prefix; rows of one video come one after the other."""
        self._model = rows[0][0].model
        device = self._model.get_input_embeddings().weight.device
        tails = [list(ids[len(prefix.ids) :]) for prefix, ids in rows]
        longest = max(len(tail) for tail in tails)
        # What a padding token is does not matter: it is masked.
        self.ids = torch.tensor([[0] * (longest - len(tail)) + tail for tail in tails], device=device)
        positions = [prefix.positions(ids)[:, len(prefix.ids) :] for prefix, ids in rows]
        padded = [functional.pad(part, (longest - part.shape[1], 0)) for part in positions]
        self._positions = batch_positions(padded).to(device)
        is_token = torch.tensor([[at >= longest - len(tail) for at in range(longest)] for tail in tails], device=device)
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        self._seen = is_token[:, None, None] & causal
        behind = [(prefix, len(list(group))) for prefix, group in groupby(prefix for prefix, _ in rows)]
        self._prefixes = [(prefix.layers, count) for prefix, count in behind]
        self._cache = DynamicCache()

    def run(self, keep: int) -> torch.Tensor:
        """Logits of the last `keep` tokens of every row: float [rows, keep, vocabulary]."""
        return self._forward(self.ids, keep)[0]

    def score_next(self, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Log-probability of each of some tokens as what comes behind the row that is named with it.

        Their logits are computed anew in float32: bfloat16 rounds them to eighths where large models put them (16 to
        32), so that letters would be equally probable which are not.
        """
        logits, states = self._forward(self.ids, keep=1)
        weight = self._model.get_output_embeddings().weight
        exact = (states[rows, -1].to(weight.device).float() * weight[tokens].float()).sum(-1)
        scores: list[float] = (exact - logits[rows, -1].to(weight.device).float().logsumexp(-1)).tolist()
        return scores

    def append(self, tokens: torch.Tensor) -> torch.Tensor:
        """One more token for every row (int64 [rows]); the logits of what comes behind it, float [rows, vocabulary]."""
        self._positions = self._positions[..., -1:] + 1
        self._seen = functional.pad(self._seen[:, :, -1:], (0, 1), value=True)
        return self._forward(tokens[:, None], keep=1)[0][:, 0]

    def _forward(self, ids: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and the states that the head made them of."""
        states: list[torch.Tensor] = []
        with shared_attention(self._model):  # other threads run the same head, but not meanwhile
            head = self._model.get_output_embeddings()
            hook = head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
            try:
                logits: torch.Tensor = self._model(
                    input_ids=ids,
                    position_ids=self._positions,
                    past_key_values=self._cache,
                    use_cache=True,
                    logits_to_keep=keep,
                    shared_prefix=SharedPrefix(self._prefixes, self._seen),
                ).logits
            finally:
                hook.remove()
        return logits, states[0]


def batch_positions(positions: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of [axes, tokens] as the models take them: [rows, tokens] for one axis, else [axes, rows, tokens]."""
    together = torch.stack(list(positions), dim=1)
    return together[0] if len(together) == 1 else together
