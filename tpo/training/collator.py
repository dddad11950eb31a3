"""TRL's own batches, two rows for each pair with the pixels in both: what shared rows are checked against."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional

from tpo.errors import UserError
from tpo.models.family import VideoInput
from tpo.models.prefix import batch_positions
from tpo.models.video_lmm import VideoLMM
from tpo.records import PreferencePair, Video, View
from tpo.training.fitting import lost_later_named
from tpo.video.decode import VideoFolder

_KEPT_VIDEOS = 8  # ours: prepared frames of a video take 0.2 GB at 96 frames of 384 × 384


def number_pairs(pairs: Sequence[PreferencePair], model: VideoLMM, first: int = 0, num_repeats: int = 0) -> Dataset:
    """One row per pair: its number, from which collators make everything else, and that it counts.

    Args:
        first: the first pair's number.
        num_repeats: rows behind them that do not count, for processes that would have no pair otherwise.

    Raises:
        UserError: an answer is empty or both are the same, which would train on nothing; names the pair.
    """
    for pair in pairs:
        chosen, rejected = model.answer_ids(pair.chosen), model.answer_ids(pair.rejected)
        if chosen == rejected or min(len(chosen), len(rejected)) < 2:  # the token that ends the turn is always there
            raise UserError(
                f"Pair {pair.id} cannot be trained on: chosen {pair.chosen!r}, rejected {pair.rejected!r}. "
                "Answers must be non-empty and different; run `dvc repro validate` to see what else is wrong."
            )
    return Dataset.from_list(
        [
            {"pair": first + place % len(pairs), "counts": int(place < len(pairs))}
            for place in range(len(pairs) + num_repeats)
        ]
    )


class VideoPairCollator:
    """Builds [all chosen; all rejected] rows with the frames of each pair's training view.

    Frames are decoded when first needed and kept for the last few videos, since the pairs of a video share their view.
    Positions and token types come from the model's family, so that training sees what generation and evaluation see.
    """

    def __init__(
        self, pairs: Sequence[PreferencePair], videos: Mapping[str, Video], folder: VideoFolder, model: VideoLMM
    ):
        self._pairs, self._videos, self._folder, self._model = pairs, videos, folder, model
        self._kept: OrderedDict[View, VideoInput] = OrderedDict()

    def _input(self, pair: PreferencePair) -> VideoInput:
        if pair.view not in self._kept:
            video = self._videos[pair.video_id]
            with lost_later_named(f"pair {pair.id}"):
                frames = self._folder.frames(video.path, pair.view)
            self._kept[pair.view] = self._model.prepare(frames)
            if len(self._kept) > _KEPT_VIDEOS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(pair.view)
        return self._kept[pair.view]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of `number_pairs` → input_ids, attention_mask, completion_mask, position_ids and the family's own.

        Every row holds its whole prompt; it is padded on the right and never cut.
        """
        pairs = [self._pairs[row["pair"]] for row in rows]
        inputs = [self._input(pair) for pair in pairs]
        sequences = []
        for side in ("chosen", "rejected"):
            for pair, video in zip(pairs, inputs, strict=True):
                answer = self._model.answer_ids(getattr(pair, side))
                sequences.append((self._model.prompt_ids(video, pair.question, len(answer)), answer))
        family, length = self._model.family, max(len(prompt) + len(answer) for prompt, answer in sequences)

        def padded(values: list[int], fill: int) -> list[int]:
            return values + [fill] * (length - len(values))

        pad = self._model.tokenizer.pad_token_id
        ids = torch.tensor([padded(prompt + answer, pad) for prompt, answer in sequences])
        positions = [
            family.positions(prompt + answer, video)
            for (prompt, answer), video in zip(sequences, inputs + inputs, strict=True)
        ]
        return {
            "input_ids": ids,
            "attention_mask": torch.tensor([padded([1] * len(prompt + answer), 0) for prompt, answer in sequences]),
            "completion_mask": torch.tensor(
                [padded([0] * len(prompt) + [1] * len(answer), 0) for prompt, answer in sequences]
            ),
            "position_ids": batch_positions([functional.pad(one, (0, length - one.shape[1])) for one in positions]),
            "mm_token_type_ids": family.token_types(ids),
            **family.forward_inputs(inputs + inputs),
        }
