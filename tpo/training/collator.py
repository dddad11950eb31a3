"""From preference pairs to the batches that the trainer takes: tokens here, frames decoded when they are needed."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset

from tpo.errors import UserError
from tpo.models import VideoLMM
from tpo.records import PreferencePair, Video, View
from tpo.video.decode import DecodeError, VideoFolder

_KEPT_VIDEOS = 256


def tokenize_pairs(pairs: Sequence[PreferencePair], model: VideoLMM) -> Dataset:
    """One row per pair: its number, and token ids of the prompt (with video placeholders) and of both answers.

    Raises:
        UserError: an answer is empty or both are the same, which would train on nothing; names the pair.
    """
    rows = []
    for number, pair in enumerate(pairs):
        chosen, rejected = model.answer_ids(pair.chosen), model.answer_ids(pair.rejected)
        if chosen == rejected or min(len(chosen), len(rejected)) < 2:
            raise UserError(
                f"Pair {pair.id} cannot be trained on: chosen {pair.chosen!r}, rejected {pair.rejected!r}. "
                "Answers must be non-empty and different; run `dvc repro validate` to see what else is wrong."
            )
        prompt = model.prompt_ids(pair.question, len(pair.view.timestamps_s))
        rows.append({"pair": number, "prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return Dataset.from_list(rows)


class VideoPairCollator:
    """Builds [all chosen; all rejected] rows with the frames of each pair's training view.

    Frames are decoded when first needed and kept for the last few videos, since the pairs of a video share their view.
    """

    def __init__(
        self, pairs: Sequence[PreferencePair], videos: Mapping[str, Video], folder: VideoFolder, model: VideoLMM
    ):
        self._pairs, self._videos, self._folder, self._model = pairs, videos, folder, model
        self._kept: OrderedDict[View, torch.Tensor] = OrderedDict()

    def _pixels(self, pair: PreferencePair) -> torch.Tensor:
        if pair.view not in self._kept:
            video = self._videos[pair.video_id]
            try:
                frames = self._folder.frames(video.path, pair.view)
            except DecodeError as error:
                raise UserError(
                    f"The video of pair {pair.id} can no longer be decoded: {error}. Did {video.path} change since "
                    "it was ingested? `dvc repro` ingests it again."
                ) from error
            self._kept[pair.view] = self._model.pixel_values(frames)
            if len(self._kept) > _KEPT_VIDEOS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(pair.view)
        return self._kept[pair.view]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of `tokenize_pairs` → input_ids, attention_mask, completion_mask [2b, s], pixels [2b, n, 3, h, w]."""
        sequences = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
        length = max(len(prompt) + len(answer) for prompt, answer in sequences)
        pad = self._model.tokenizer.pad_token_id

        def padded(values: list[int], fill: int) -> list[int]:
            return values + [fill] * (length - len(values))

        pixels = torch.stack([self._pixels(self._pairs[row["pair"]]) for row in rows])
        return {
            "input_ids": torch.tensor([padded(prompt + answer, pad) for prompt, answer in sequences]),
            "attention_mask": torch.tensor([padded([1] * len(prompt + answer), 0) for prompt, answer in sequences]),
            "completion_mask": torch.tensor(
                [padded([0] * len(prompt) + [1] * len(answer), 0) for prompt, answer in sequences]
            ),
            "pixel_values_videos": torch.cat([pixels, pixels]),
        }
