"""Which questions can be answered without their video: a language model is asked them with nothing else to go by.

A question that it answers rightly teaches nothing about looking. The score is kept with the query; setting such queries
aside is a parameter (`ask.max_blind_score`).
"""

import re
from collections.abc import Sequence

from tpo.llm.chat import Chat, ChatRequest, Failed, Reply
from tpo.llm.quoting import DATA_NOTICE, quoted
from tpo.params import AskParams
from tpo.records import BlindCheck, Query, Reason, Rejection

_STAGE = "ask"
_TEMPERATURE = 1.0  # ours: of several guesses; a single one is the most probable

# Both prompts are ours; the paper has no such check.
_GUESS = f"""You are asked a question about a video that you cannot see. {DATA_NOTICE} Give the answer that is most \
likely from the question alone, as one short sentence. Always guess; never say that you cannot know."""
_COMPARE = f"""You compare answers with a reference answer to the same question. {DATA_NOTICE} For each answer say \
whether it says the same as the reference, in whatever words. Reply with one line for each answer and nothing else, \
like this:
1: Yes or No"""
_VERDICT = re.compile(r"^\W*(\d+)\W+(yes|no)\b", re.IGNORECASE | re.MULTILINE)


def check_blind(chat: Chat, queries: Sequence[Query], params: AskParams) -> dict[str, Query | Rejection]:
    """Each query by its id, with what came of asking it blind, or a rejection if that went too well.

    A query whose check failed, as when a reply cannot be read, stays without one: nothing is known against it.
    """
    samples = params.blind_samples
    if not samples:
        return {query.id: query for query in queries}
    temperature = 0.0 if samples == 1 else _TEMPERATURE
    guesses = chat.ask_all(guess_request(query, n, temperature) for query in queries for n in range(samples))
    told = [_texts(guesses[first : first + samples]) for first in range(0, len(guesses), samples)]
    guessed = [(query, answers) for query, answers in zip(queries, told, strict=True) if answers]
    compared = chat.ask_all(compare_request(query, answers) for query, answers in guessed)
    checked: dict[str, Query | Rejection] = {query.id: query for query in queries}
    for (query, answers), reply in zip(guessed, compared, strict=True):
        score = _score(reply, len(answers))
        if score is not None:
            checked[query.id] = _with_score(query, BlindCheck(answers=answers, score=score, model_id=chat.id), params)
    return checked


def guess_request(query: Query, sample: int, temperature: float) -> ChatRequest:
    """The question, and nothing else."""
    return ChatRequest(_GUESS, (f"Question: {quoted(query.question)}",), sample, temperature)


def compare_request(query: Query, answers: Sequence[str]) -> ChatRequest:
    """Which of the answers say what the reference says."""
    lines = [f"Question: {quoted(query.question)}", f"Reference answer: {quoted(query.reference_answer or '')}"]
    lines += [f"Answer {number}: {quoted(answer)}" for number, answer in enumerate(answers, start=1)]
    return ChatRequest(_COMPARE, ("\n".join(lines),), temperature=0.0)


def _texts(replies: Sequence[Reply | Failed]) -> tuple[str, ...]:
    return tuple(" ".join(reply.text.split()) for reply in replies if isinstance(reply, Reply))


def _score(reply: Reply | Failed, count: int) -> float | None:
    """Share of Yes, or none where the reply does not speak of every answer once."""
    if isinstance(reply, Failed):
        return None
    found = [(int(match[1]), match[2].lower()) for match in _VERDICT.finditer(reply.text)]
    if sorted(number for number, _ in found) != list(range(1, count + 1)):
        return None
    return float(sum(word == "yes" for _, word in found)) / count


def _with_score(query: Query, blind: BlindCheck, params: AskParams) -> Query | Rejection:
    if params.max_blind_score is not None and blind.score > params.max_blind_score:
        often = f"{blind.score:.0%} of {len(blind.answers)} times"
        detail = f"{query.question!r} was answered without the video {often}: {blind.answers[0]!r}"
        return Rejection(stage=_STAGE, item=query.id, reason=Reason.BLIND_ANSWERABLE, detail=detail)
    return query.model_copy(update={"blind": blind})
