"""Pairs about one view as one row: the video once, then every question with every answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from tpo.models.family import VideoInput
from tpo.models.prefix import batch_positions
from tpo.models.video_lmm import VideoLMM
from tpo.params import Sharing
from tpo.records import PreferencePair, View
from tpo.training.branches import Branches
from tpo.training.features import VideoFeatures
from tpo.training.fitting import lost_later_named


@dataclass(frozen=True)
class Row:
    """What the decoder gets besides the video's features.

        [what the prompts share | … chosen 1 | … chosen 2 | … rejected 1 | … rejected 2]

    Attributes:
        ids: int64 [1, tokens].
        positions: int64 [1, tokens], or [3, 1, tokens] where the decoder has three axes. Each branch begins at the
            prefix's end, whatever stands between them.
        token_types: int32 [1, tokens], as `Family.token_types`.
        branches: where the prefix ends and how long each branch is.
        asked_at: int64 [answer tokens], the place in the row whose output predicts each token of the answers. The
            first tokens of answers may share one, the prefix's last.
        answers: int64 [answer tokens], the answers' tokens, one answer after the other.
        lengths: tokens of each answer: of the chosen ones, then of the rejected ones.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    token_types: torch.Tensor
    branches: Branches
    asked_at: torch.Tensor
    answers: torch.Tensor
    lengths: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return self.ids.shape[1]

    @property
    def num_pairs(self) -> int:
        return len(self.lengths) // 2

    def to(self, device: torch.device) -> "Row":
        names = ("ids", "positions", "token_types", "asked_at", "answers")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def build_row(model: VideoLMM, video: VideoInput, pairs: Sequence[PreferencePair]) -> Row:
    """The row of pairs that are trained on one view.

    Raises:
        UserError: a prompt and its answer are longer than the decoder can take; see `VideoLMM.prompt_ids`.
    """
    family = model.family
    answers = [model.answer_ids(text) for side in ("chosen", "rejected") for text in (getattr(p, side) for p in pairs)]
    rooms = [max(len(answer) for answer in answers[number :: len(pairs)]) for number in range(len(pairs))]
    prompts = [
        model.prompt_ids(video, pair.question, room) for pair, room in zip(pairs, rooms, strict=True)
    ] * 2  # fmt: skip
    prefix = _common(prompts)
    whole = [family.positions(prompt + answer, video) for prompt, answer in zip(prompts, answers, strict=True)]
    ids, positions, asked_at, lengths = prompts[0][:prefix], [whole[0][:, :prefix]], [], []
    for prompt, answer, places in zip(prompts, answers, whole, strict=True):
        behind = prompt[prefix:] + answer
        # An answer's first token is predicted by the prompt's last, which may be the prefix's.
        first = len(ids) + len(prompt) - prefix - 1
        asked_at += [first if len(prompt) > prefix else prefix - 1, *range(first + 1, first + len(answer))]
        lengths.append(len(behind))
        ids = ids + behind
        positions.append(places[:, prefix:])
    row = torch.tensor([ids])
    return Row(
        ids=row,
        positions=batch_positions([torch.cat(positions, dim=1)]),
        token_types=family.token_types(row),
        branches=Branches(prefix, tuple(lengths)),
        asked_at=torch.tensor(asked_at),
        answers=torch.tensor([token for answer in answers for token in answer]),
        lengths=tuple(map(len, answers)),
    )


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with."""
    shortest = min(map(len, prompts))
    return next((at for at in range(shortest) if len({prompt[at] for prompt in prompts}) > 1), shortest)


class PairRows:
    """Pairs by their numbers, and the rows that they are trained in."""

    def __init__(
        self,
        pairs: Sequence[PreferencePair],
        features: VideoFeatures,
        model: VideoLMM,
        sharing: Sharing,
        pairs_per_video: int = 4,
    ) -> None:
        self.pairs, self.features, self._model = pairs, features, model
        self._most = pairs_per_video if sharing == "video" else 1

    def groups(self, numbers: Sequence[int]) -> list[list[int]]:
        """Which pairs make one row: up to `pairs_per_video` of one view, or each by itself."""
        by_view: dict[View, list[int]] = {}
        for number in numbers:
            by_view.setdefault(self.pairs[number].view, []).append(number)
        return [some[at : at + self._most] for some in by_view.values() for at in range(0, len(some), self._most)]

    def named(self, numbers: Sequence[int]) -> str:
        """Pairs by their ids, for people."""
        return ("pair " if len(numbers) == 1 else "pairs ") + " and ".join(self.pairs[number].id for number in numbers)

    def collate(self, rows: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        """Rows of `number_pairs` as a batch: no pixels, since a trainer holds all batches of a step at once.

        Decoding of their videos begins.
        """
        self.features.announce(dict.fromkeys(self.pairs[row["pair"]].view for row in rows if row["counts"]))
        return {name: torch.tensor([row[name] for row in rows]) for name in ("pair", "counts")}

    def row(self, numbers: Sequence[int], device: torch.device) -> tuple[Row, list[torch.Tensor]]:
        """The row of pairs of one view, and the tower's output for it.

        Raises:
            UserError: the video cannot be decoded any more, or the row is longer than the decoder can take.
        """
        pairs = [self.pairs[number] for number in numbers]
        with lost_later_named(self.named(numbers)):
            found = self.features.encoded(pairs[0].view)
        row = build_row(self._model, found.video, pairs)
        return row.to(device), [one.to(device, non_blocking=True) for one in found.features]
