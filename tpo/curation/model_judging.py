"""judge, by a language model: the paper's three checks (arXiv 2501.13919, figure 9) in both orders of the answers.

Like the paper's judge it is text only: it reads the captions, never the video. A reply that is always the same keeps
nothing: with the answers swapped, the first check must come out the other way.
"""

import re
from collections.abc import Sequence
from typing import Literal

from tpo.curation.judging import Candidate, Drop
from tpo.llm.chat import Chat, ChatRequest, Failed, Reply
from tpo.llm.quoting import DATA_NOTICE, caption_lines, quoted
from tpo.params import JudgeParams
from tpo.records import Reason, Verdict

# The wording is ours; the checks, their answers and that all three are made at once are the paper's.
_INSTRUCTIONS = f"""You check two answers to a question about a video that you cannot see. You are given captions of \
the video with their times. {DATA_NOTICE} An answer is judged by what it says about the video: neither its length nor \
its style makes it better.

Reply with three lines and nothing else:
1: Yes, No or Equally
2: Yes or No
3: Yes or No"""

_CHECKS = """1. Is Answer 1 better than Answer 2?
2. Does the question or Answer {examined} contradict the captions, or could the question have another valid answer?
3. Is Answer {examined} correct, given the question and the captions?"""

_CHECK_LINE = re.compile(r"^\W*([123])\W+(yes|no|equally|equal)\b", re.IGNORECASE | re.MULTILINE)
_FIRST: dict[str, Literal["better", "worse", "equal"]] = {"yes": "better", "no": "worse"}
_SECOND: dict[str, Literal["better", "worse", "equal"]] = {"yes": "worse", "no": "better"}


class ModelJudge:
    """Asks a language model. `id` in the records is the model's."""

    def __init__(self, chat: Chat, params: JudgeParams) -> None:
        self.id = chat.id
        self._chat, self._params = chat, params

    def verdicts(self, candidates: Sequence[Candidate]) -> list[tuple[Verdict, Verdict] | Drop]:
        """See `Judge.verdicts`. Two calls a candidate."""
        requests = [
            judge_request(candidate, self._params, preferred_first=first)
            for candidate in candidates
            for first in (True, False)
        ]
        replies = self._chat.ask_all(requests)
        read = [
            _read(reply, request, preferred_first=number % 2 == 0)
            for number, (reply, request) in enumerate(zip(replies, requests, strict=True))
        ]
        return [_both(first, second) for first, second in zip(read[::2], read[1::2], strict=True)]


def judge_request(candidate: Candidate, params: JudgeParams, *, preferred_first: bool) -> ChatRequest:
    """What the judge is asked about a candidate in one order of its answers."""
    preferred, other, query = candidate.preferred.text, candidate.other.text, candidate.query
    first, second = (preferred, other) if preferred_first else (other, preferred)
    about = f" It was asked about {query.segment.start_s:.1f}-{query.segment.end_s:.1f} s." if query.segment else ""
    lines = [
        "Captions:",
        caption_lines(candidate.captions, params.max_caption_chars, query.segment),
        "",
        f"Question: {quoted(query.question)}{about}",
        f"Answer 1: {quoted(first)}",
        f"Answer 2: {quoted(second)}",
    ]
    if params.show_reference and query.reference_answer is not None:
        lines.append(f"Reference answer, by the one who asked: {quoted(query.reference_answer)}")
    lines += ["", _CHECKS.format(examined=1 if preferred_first else 2)]
    return ChatRequest(_INSTRUCTIONS, ("\n".join(lines),))


def _read(reply: Reply | Failed, request: ChatRequest, *, preferred_first: bool) -> Verdict | Drop:
    """The verdict in a reply, or why there is none. Nothing is guessed: each check is answered once, by its words."""
    if isinstance(reply, Failed):
        return Drop(reply.reason, reply.detail)
    found = _CHECK_LINE.findall(reply.text)
    said = {number: word.lower() for number, word in found}
    if len(found) != len(said) or len(said) != 3 or not {said["2"], said["3"]} <= {"yes", "no"}:
        return Drop(Reason.BAD_REPLY, f"expected three lines like '1: Yes', got {reply.text[:200]!r}")
    return Verdict(
        preferred_shown_first=preferred_first,
        preferred_is=(_FIRST if preferred_first else _SECOND).get(said["1"], "equal"),
        conflicts_with_captions=said["2"] == "yes",
        is_correct=said["3"] == "yes",
        reply=reply.text,
        prompt_id=request.prompt_id,
    )


def _both(first: Verdict | Drop, second: Verdict | Drop) -> tuple[Verdict, Verdict] | Drop:
    if isinstance(first, Drop):
        return first
    return second if isinstance(second, Drop) else (first, second)
