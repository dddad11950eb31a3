"""How a multiple-choice question is put to a model and how its answer counts: by log-probability, never by parsing.

| scoring       | prompt                              | candidates    | for                                     |
|---------------|-------------------------------------|---------------|-----------------------------------------|
| option_letter | question, "A. …" lines, instruction | A, B, C, …    | models that were taught this form       |
| option_text   | the question alone                  | option texts  | models that were not, such as the demo's |

Log-probabilities are sums over tokens, so `option_text` favours shorter options; it does so for both models alike.
"""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Literal

from tpo.records import Item, Prediction, PredictionStatus

Scoring = Literal["option_text", "option_letter"]
Role = Literal["base", "tuned"]
# The last line of LongVideoBench's official prompt.
INSTRUCTION = "Answer with the option's letter from the given choices directly."


def prompt(item: Item, scoring: Scoring) -> str:
    """The text that the model is asked with."""
    if scoring == "option_text":
        return item.question
    options = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, item.options, strict=False)]
    return "\n".join([item.question, *options, INSTRUCTION])


def candidates(item: Item, scoring: Scoring) -> tuple[str, ...]:
    """One possible answer per option, in the order of the options."""
    return item.options if scoring == "option_text" else tuple(ascii_uppercase[: len(item.options)])


def predict(item: Item, role: Role, logprobs: Sequence[float]) -> Prediction:
    """The option with the highest log-probability. A tie is no answer and counts as wrong; it is never a guess."""
    if len(logprobs) != len(item.options):
        raise ValueError(f"{item.id} has {len(item.options)} options but {len(logprobs)} log-probabilities")
    best = [i for i, value in enumerate(logprobs) if value == max(logprobs)]
    predicted = best[0] if len(best) == 1 else None
    return _prediction(item, role, PredictionStatus.OK, "", tuple(logprobs), predicted)


def predict_failure(item: Item, role: Role, status: PredictionStatus, detail: str) -> Prediction:
    """An item that could not be asked: wrong, and counted under its status."""
    return _prediction(item, role, status, detail, (), None)


def _prediction(
    item: Item,
    role: Role,
    status: PredictionStatus,
    detail: str,
    logprobs: tuple[float, ...],
    predicted: int | None,
) -> Prediction:
    return Prediction(
        item_id=item.id,
        benchmark=item.benchmark,
        video=item.video,
        duration_group=item.duration_group,
        category=item.category,
        model=role,
        status=status,
        detail=detail,
        option_logprobs=logprobs,
        predicted=predicted,
        gold=item.gold,
        correct=predicted == item.gold,
    )
