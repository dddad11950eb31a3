"""Log-probabilities of every pair's answers under the reference model: once, before training, in shared rows.

They are kept by everything that they depend on, so that another β, another learning rate or another seed asks for
nothing again, a killed pass goes on where it was, and what was computed for another model, view or answer is not found.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import av
import torch
import transformers
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from tpo.errors import UserError
from tpo.models.video_lmm import VideoLMM
from tpo.progress import progress
from tpo.records import PreferencePair, content_id
from tpo.replies import ReplyCache
from tpo.training.rows import PairRows


@dataclass(frozen=True)
class TokenScores:
    """Log-probability of each token of a pair's answers, end of turn included."""

    chosen: tuple[float, ...]
    rejected: tuple[float, ...]


def reference_scores(
    model: VideoLMM, rows: PairRows, cache: ReplyCache, device: torch.device
) -> Mapping[int, TokenScores]:
    """Those of all pairs, by number. The model's adapters must be off.

    Processes share the work; each keeps what it computed when a row is done.

    Raises:
        UserError: a log-probability is no number; see `PairRows.row` for what else.
    """
    keys = [reference_key(model, pair) for pair in rows.pairs]
    # As one process finds them: they must agree on what is missing, and others may be writing already.
    known = {number: _read(kept) for number, key in enumerate(keys) if (kept := cache.get(key)) is not None}
    found: dict[int, TokenScores] = broadcast_object_list([known])[0]
    missing = rows.groups([number for number in range(len(keys)) if number not in found])
    state = PartialState()
    own = missing[state.process_index :: state.num_processes]
    rows.features.announce(rows.pairs[group[0]].view for group in own)
    computed: dict[int, TokenScores] = {}
    model.model.eval()
    with progress(len(keys), "reference", "pairs", done=len(found), shown=state.is_main_process) as bar:
        for group in own:
            for number, scores in zip(group, _score_row(model, rows, group, device), strict=True):
                cache.put(keys[number], json.dumps(asdict(scores)))
                computed[number] = scores
            bar.update(len(group) * state.num_processes)
    for part in gather_object([computed]):
        found |= part
    return found


def reference_key(model: VideoLMM, pair: PreferencePair) -> str:
    """Everything that a pair's reference depends on.

    The checkpoint's files and settings (`VideoLMM.id`), in which dtype its weights are here, what is shown (the video's
    sha256, moments), what is said, and the versions of what decodes and computes.
    """
    versions = [f"av{av.__version__}", f"torch{torch.__version__}", f"transformers{transformers.__version__}"]
    said = [pair.question, pair.chosen, pair.rejected]
    weights = str(model.model.dtype)
    return content_id("reference", model.id, weights, pair.view.model_dump(mode="json"), said, versions)


@torch.no_grad()
def _score_row(model: VideoLMM, rows: PairRows, group: Sequence[int], device: torch.device) -> list[TokenScores]:
    row, encoded = rows.row(group, device)
    scores = model.model(row=row, encoded=encoded).log_probs
    if not torch.isfinite(scores).all():
        raise UserError(
            f"{model.folder} gives {rows.named(group)} log-probabilities that are not finite. Are its weights whole? "
            "A model that was made for bfloat16 overflows in float16: see model.dtype."
        )
    answers = [tuple(answer.tolist()) for answer in scores.split(row.lengths)]
    return [TokenScores(*both) for both in zip(answers[: len(group)], answers[len(group) :], strict=True)]


def _read(kept: str) -> TokenScores:
    stored = json.loads(kept)
    return TokenScores(tuple(stored["chosen"]), tuple(stored["rejected"]))
