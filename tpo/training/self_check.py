"""Before the first step: does this model, on this machine, with these versions, share a prefix exactly?"""

from collections.abc import Sequence
from typing import Any

import torch

from tpo.errors import UserError
from tpo.models.family import VideoInput
from tpo.models.prefix import batch_positions
from tpo.models.video_lmm import VideoLMM
from tpo.training.branches import branching
from tpo.training.rows import PairRows
from tpo.training.scoring import score_tokens

# Ours: how far a token's log-probability may be off on average. Kernels differ in how they round; what is wrong in
# kind (a branch that sees another, positions that go on, a prefix that is not seen) is off by more, except in bfloat16,
# where only the coarse errors show.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@torch.no_grad()
def check_sharing(model: VideoLMM, rows: PairRows, numbers: Sequence[int]) -> None:
    """Score the pairs of one view in one row, then each answer in a row of its own, in the model's usual attention.

    Raises:
        UserError: the log-probabilities differ, or are the same without the video.
    """
    row, encoded = rows.row(numbers, model.model.device)
    with branching(model.bare):
        shared = model.model(row=row, encoded=encoded).log_probs
        blind = model.model(row=row, encoded=[torch.zeros_like(one) for one in encoded]).log_probs
    if torch.equal(shared, blind):
        raise UserError(
            f"{model.folder} answers the same whatever the video shows: its features do not reach the decoder."
        )
    pairs = [rows.pairs[number] for number in numbers]
    video = rows.features.encoded(pairs[0].view).video
    said = [(pair.question, getattr(pair, side)) for side in ("chosen", "rejected") for pair in pairs]
    apart = torch.cat([_score_apart(model, video, encoded, question, answer) for question, answer in said])
    off = float((shared - apart).abs().mean())
    tolerance = _TOLERANCE[_computed_in(model.model.device, model.model.dtype)]
    if not off <= tolerance:
        raise UserError(
            f"Rows that share a video's prefix do not score as rows of their own in {model.folder}: log-probabilities "
            f"of tokens are off by {off:.2g} on average, where {tolerance:g} is rounding. Set train.sharing to none, "
            "and please report it."
        )


def _computed_in(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype


def _score_apart(
    model: VideoLMM, video: VideoInput, encoded: list[torch.Tensor], question: str, text: str
) -> torch.Tensor:
    """Log-probabilities of one answer's tokens behind its own prompt: nothing of a shared row, and no padding."""
    bare, answer = model.bare, model.answer_ids(text)
    ids = [*model.prompt_ids(video, question), *answer]
    row = torch.tensor([ids], device=model.model.device)
    hidden = bare.model(
        input_ids=row,
        position_ids=batch_positions([model.family.positions(ids, video)]).to(row.device),
        mm_token_type_ids=model.family.token_types(row),
        mm_encoder_outputs={"video": model.family.project(bare, encoded)},
        use_cache=False,
    ).last_hidden_state
    predicting = hidden[0, -len(answer) - 1 : -1]
    scores: Any = score_tokens(bare.get_output_embeddings(), predicting, row[0, -len(answer) :])
    log_probs: torch.Tensor = scores.log_probs
    return log_probs
