"""Free answers (MLVU's sub-scene captioning and video summary), marked by a language model of your own.

    predictions = judge_answers(chat, "tuned", [(item, model_says), …])
    numbers = free_answer_metrics(predictions, chat.id)

As MLVU's authors do (arXiv 2406.04264), each answer gets two marks from 1 to 5: accuracy and relevance where the points
that it should mention are listed, else completeness and reliability. Their judge is GPT-4 Turbo with their wording;
another judge with other words gives other marks, so these are not comparable with the official judge's. Base and tuned
model, marked by the same judge, are comparable with each other.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tpo.evaluation.scoring import prediction
from tpo.llm.chat import Chat, ChatRequest, Failed, Reply
from tpo.llm.quoting import DATA_NOTICE, quoted
from tpo.progress import waiting
from tpo.records import Condition, Item, Method, Prediction, PredictionStatus, Role, Task

NOT_COMPARABLE = "not comparable with the official judge"
CORRECT_SCORE = 0.5
_LOWEST, _HIGHEST = 1, 5
# Not "-1", not ".5", not "4 or 5".
_MARK = re.compile(rf"\W*(?<![-.])([{_LOWEST}-{_HIGHEST}])(?: ?/ ?{_HIGHEST})?\W*")

# The wording is ours; what is marked, and from what, is MLVU's.
_MEANING = {
    "accuracy": "does the answer mention the points listed, and say them right? 5 = all of them, 1 = none",
    "relevance": "is the answer about what was asked, without anything else? 5 = wholly, 1 = not at all",
    "completeness": "does the answer have the main points of the reference answer? 5 = all of them, 1 = none",
    "reliability": "is what the answer says free of contradictions to the reference answer, and of what is made up? "
    "5 = wholly, 1 = not at all",
}


def judge_answers(
    chat: Chat, role: Role, answers: Sequence[tuple[Item, str]], condition: Condition = Condition.FULL
) -> list[Prediction]:
    """A prediction for each open item and what the model `role` wrote, in their order; one call each.

    The score is (sum of both marks - 2) / 8. An empty answer scores 0 and is not sent. Where the judge gives no two
    marks the status is `not_judged`, the score 0 and the detail says why.

    Raises:
        UserError: the judge cannot be reached or used at all; what was answered before is remembered.
    """
    with waiting(f"{chat.id} marks {len(answers)} answers"):
        replies = iter(chat.ask_all(judge_request(item, text) for item, text in answers if text.strip()))
    return [
        _predict(item, role, text, condition, next(replies) if text.strip() else None, chat.id)
        for item, text in answers
    ]


def judged(chat: Chat, items: Sequence[Item], predictions: Sequence[Prediction]) -> list[Prediction]:
    """`predictions`, with a judge's marks in those of open items that were written and not judged yet."""
    by_id = {item.id: item for item in items}
    waiting = [n for n, one in enumerate(predictions) if one.status is PredictionStatus.NOT_JUDGED and not one.score]
    result = list(predictions)
    for role in dict.fromkeys(predictions[n].model for n in waiting):
        own = [n for n in waiting if predictions[n].model == role]
        marked = judge_answers(chat, role, [(by_id[predictions[n].item_id], predictions[n].text) for n in own])
        for n, one in zip(own, marked, strict=True):
            result[n] = one.model_copy(update={"video_id": predictions[n].video_id})
    return result


def judge_request(item: Item, answer: str) -> ChatRequest:
    """What the judge is asked about an answer to an open item.

    Raises:
        ValueError: there is nothing that the answer could be compared with.
    """
    if item.task is not Task.OPEN or not (item.reference or item.scoring_points):
        raise ValueError(f"{item.id} is not an open item with a reference or points to compare an answer with")
    first, second = _marks(item)
    instructions = (
        f"You mark an answer to a question about a video that you cannot see, from what is known of the video. "
        f"{DATA_NOTICE} Neither length nor style makes an answer better.\n\n"
        f"Give two marks, whole numbers from {_LOWEST} to {_HIGHEST}:\n"
        f"{first}: {_MEANING[first]}\n{second}: {_MEANING[second]}\n\n"
        f"Reply with two lines and nothing else:\n{first}: a number\n{second}: a number"
    )
    lines = [f"Question: {quoted(item.question)}", f"Reference answer: {quoted(item.reference)}"]
    lines += [f"Point {number}: {quoted(point)}" for number, point in enumerate(item.scoring_points, start=1)]
    lines.append(f"Answer to mark: {quoted(answer)}")
    return ChatRequest(instructions, ("\n".join(lines),))


def _marks(item: Item) -> tuple[str, str]:
    return ("accuracy", "relevance") if item.scoring_points else ("completeness", "reliability")


def _predict(
    item: Item, role: Role, text: str, condition: Condition, reply: Reply | Failed | None, judge: str
) -> Prediction:
    marks: tuple[int, int] | None = None
    if reply is None:
        status, detail = PredictionStatus.NONE, "the model wrote nothing"
    elif isinstance(reply, Failed):
        status, detail = PredictionStatus.NOT_JUDGED, f"{reply.reason}: {reply.detail}"
    elif marks := _read(reply.text, _marks(item)):
        first, second = _marks(item)
        status = PredictionStatus.OK
        detail = f"{first} {marks[0]}, {second} {marks[1]} of {_HIGHEST} by {judge}, {NOT_COMPARABLE}"
    else:
        status = PredictionStatus.NOT_JUDGED
        detail = f"expected two lines like '{_marks(item)[0]}: 3', got {reply.text[:200]!r}"
    score = (sum(marks) - 2 * _LOWEST) / (2 * (_HIGHEST - _LOWEST)) if marks else 0.0
    return prediction(
        item,
        role,
        condition=condition,
        method=Method.GENERATION,
        status=status,
        detail=detail,
        text=text,
        score=score,
        correct=score >= CORRECT_SCORE,
    )


def _read(reply: str, names: tuple[str, str]) -> tuple[int, int] | None:
    """Both marks, each given once, on a line of its own, as a whole number in range; else none."""
    lines = re.findall(rf"^\W*({'|'.join(names)})\b(.*)$", reply, re.IGNORECASE | re.MULTILINE)
    said = {name.lower(): _MARK.fullmatch(mark) for name, mark in lines}
    first, second = (said.get(name) for name in names)
    return (int(first[1]), int(second[1])) if first and second and len(lines) == 2 else None


def free_answer_metrics(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What one model's open answers come to under one condition; `{}` if there are none.

    `{"judge": "not comparable with the official judge", "num_items": …, "num_not_judged": …, "total":
    {"sub_scene": …, "summary": …}, "total_judged": {…}, "g_avg_ours": …}`. A total is the mean sum of both marks, 2 to
    10: over all answers, those without marks at the lowest, and over those that have marks. `g_avg_ours` is the mean
    of the totals over all, as MLVU's G-Avg is of the official ones.
    """
    answers = [one for one in predictions if one.task is Task.OPEN]
    if not answers:
        return {}
    judged = [one for one in answers if one.status is PredictionStatus.OK]
    totals = _totals(answers)
    return {
        "judge": NOT_COMPARABLE,
        "num_items": len(answers),
        "num_not_judged": sum(one.status is PredictionStatus.NOT_JUDGED for one in answers),
        "total": totals,
        "total_judged": _totals(judged),
        "g_avg_ours": sum(totals.values()) / len(totals),
    }


def _totals(answers: Iterable[Prediction]) -> dict[str, float]:
    by_category: dict[str, list[float]] = {}
    for one in answers:
        by_category.setdefault(one.category, []).append(2 * _LOWEST + one.score * 2 * (_HIGHEST - _LOWEST))
    return {category: sum(totals) / len(totals) for category, totals in sorted(by_category.items())}
