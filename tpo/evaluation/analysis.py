"""All that a run's predictions say about base, tuned model and champion.

    analysis = analyse(predictions, confidence=0.95, samples=10_000, seed=0)

What is decided on is multiple choice with everything to see, by log-probability of the options, all items: it needs no
parser. Everything else stands beside it under its own name.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from tpo.evaluation.comparison import BASE_TO_TUNED, Comparison, compare
from tpo.evaluation.compatible import compatible_metrics
from tpo.evaluation.contrasts import Contrast, contrasts
from tpo.evaluation.free_answers import free_answer_metrics
from tpo.evaluation.grounding import grounding_metrics
from tpo.progress import waiting
from tpo.records import NOT_ASKED, Condition, Item, Method, Prediction, PredictionStatus, Record, Role, Task

Comparisons = tuple[Comparison, ...]
CHAMPION_TO_TUNED: tuple[Role, Role] = ("champion", "tuned")


class Analysis(Record):
    """Base to tuned, but where it says champion. What nobody was asked is empty."""

    primary: Comparisons = Field(description="choice, full, by log-probability, all items")
    without_defects: Comparisons = Field(description="primary without defective items")
    generation: Comparisons = Field(description="choice, full, by what the models wrote")
    free_answers: Comparisons = Field(description="open, full: the judge's score; right = at least 0.5")
    spans: Comparisons = Field(description="span, full: IoU; right = at least 0.5")
    controls: tuple[Contrast, ...]
    champion: Comparisons = Field(description="primary, champion to tuned")
    champion_controls: tuple[Contrast, ...]
    champion_beside: dict[str, Comparisons] = Field(description="generation, free_answers and spans, champion to tuned")
    elsewhere: dict[str, dict[Role, dict[str, Any]]] = Field(
        description="what others count: `grounding`, `marks` of free answers and `compatible` scores, by benchmark"
    )
    status: dict[Role, dict[PredictionStatus, int]] = Field(description="of primary: predictions of each status")
    num_unanswered: int = Field(description="items of all tasks that the base or the tuned model could not be asked")
    num_videos_missing: int
    num_videos_broken: int
    confidence: float = Field(description="of all intervals")


@waiting("comparing the models' answers")
def analyse(
    predictions: Sequence[Prediction],
    items: Sequence[Item] = (),
    *,
    letters: bool = False,
    confidence: float,
    samples: int,
    seed: int,
) -> Analysis:
    """Compare whatever there is to compare.

    Args:
        items: that were asked; without them nothing is counted as others count it.
        letters: the models were asked for letters, which is what compatible scores read.

    Raises:
        ValueError: two models were asked different items, or one of them nothing; see `compare`.
    """
    resampled: dict[str, Any] = {"confidence": confidence, "samples": samples, "seed": seed}

    def compared(chosen: Sequence[Prediction], roles: tuple[Role, Role] = BASE_TO_TUNED) -> Comparisons:
        before, after = ([one for one in chosen if one.model == role] for role in roles)
        return tuple(compare(before, after, roles=roles, **resampled)) if before or after else ()

    primary = _asked(predictions, Task.CHOICE, Method.LOGPROB)
    beside = {
        "generation": _asked(predictions, Task.CHOICE, Method.GENERATION),
        "free_answers": _asked(predictions, Task.OPEN, Method.GENERATION),
        "spans": _asked(predictions, Task.SPAN, Method.GENERATION),
    }
    has_champion = any(one.model == "champion" for one in predictions)
    roles: tuple[Role, ...] = ("base", "tuned", "champion") if has_champion else ("base", "tuned")
    return Analysis(
        primary=compared(primary),
        without_defects=compared([one for one in primary if not one.defective]),
        generation=compared(beside["generation"]),
        free_answers=compared(beside["free_answers"]),
        spans=compared(beside["spans"]),
        controls=tuple(contrasts(predictions, **resampled)),
        champion=compared(primary, CHAMPION_TO_TUNED) if has_champion else (),
        champion_controls=tuple(contrasts(predictions, roles=CHAMPION_TO_TUNED, **resampled)) if has_champion else (),
        champion_beside={name: compared(chosen, CHAMPION_TO_TUNED) for name, chosen in beside.items() if has_champion},
        elsewhere=_elsewhere(predictions, items, roles, letters=letters),
        status={role: _statuses(primary, role) for role in roles},
        num_unanswered=_num_unanswered(predictions),
        num_videos_missing=_num_videos(predictions, PredictionStatus.VIDEO_MISSING),
        num_videos_broken=_num_videos(predictions, PredictionStatus.VIDEO_BROKEN),
        confidence=confidence,
    )


def _elsewhere(
    predictions: Sequence[Prediction], items: Sequence[Item], roles: Sequence[Role], *, letters: bool
) -> dict[str, dict[Role, dict[str, Any]]]:
    if not items:
        return {}
    found: dict[str, dict[Role, dict[str, Any]]] = {"grounding": {}, "marks": {}, "compatible": {}}
    for role in roles:
        own = [one for one in predictions if one.model == role]
        choices, spans = _asked(own, Task.CHOICE, Method.LOGPROB), _asked(own, Task.SPAN, Method.GENERATION)
        found["grounding"][role] = grounding_metrics(items, choices + spans)
        marks = {benchmark: [one for one in own if one.benchmark == benchmark] for benchmark in _benchmarks(items)}
        found["marks"][role] = {name: told for name, ones in marks.items() if (told := free_answer_metrics(ones))}
        found["compatible"][role] = compatible_metrics(
            items, choices, _asked(own, Task.CHOICE, Method.GENERATION) if letters else []
        )
    return found


def _benchmarks(items: Sequence[Item]) -> list[str]:
    return sorted({item.benchmark for item in items})


def _asked(predictions: Sequence[Prediction], task: Task, method: Method) -> list[Prediction]:
    """What was asked with everything to see."""
    return [one for one in predictions if (one.task, one.method, one.condition) == (task, method, Condition.FULL)]


def _statuses(predictions: Sequence[Prediction], role: Role) -> dict[PredictionStatus, int]:
    found = [one.status for one in predictions if one.model == role]
    return {status: found.count(status) for status in PredictionStatus}


def _num_unanswered(predictions: Sequence[Prediction]) -> int:
    """Of what was to be asked with everything to see."""
    return len(
        {
            one.item_id
            for one in predictions
            if one.condition is Condition.FULL and one.status in NOT_ASKED and one.model in BASE_TO_TUNED
        }
    )


def _num_videos(predictions: Sequence[Prediction], status: PredictionStatus) -> int:
    return len({(one.benchmark, one.video) for one in predictions if one.status is status})
