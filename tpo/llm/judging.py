"""Judging by rule: the paper's three checks (figure 9), made on words instead of by a language model.

The offline stand-in for GPT-4o-mini. Like the paper's judge it is text only: it sees the captions and the asker's own
answer, never the video.
"""

import re
from collections.abc import Sequence
from typing import Literal

from tpo.records import Verdict

JUDGE = "rule"
_ARTICLES = {"a", "an", "the"}


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles: what two answers are compared by."""
    return [word for word in re.findall(r"\w+", text.lower()) if word not in _ARTICLES]


def agreement(answer: str, reference: str) -> float:
    """Word-level F1 of an answer against the reference, 0 to 1 (the SQuAD measure, arXiv 1606.05250)."""
    said, meant = words(answer), words(reference)
    shared = sum(min(said.count(word), meant.count(word)) for word in set(meant))
    return 2 * shared / (len(said) + len(meant)) if shared else 0.0


def judge(captions: Sequence[str], reference: str, first: str, second: str, *, preferred_first: bool) -> Verdict:
    """Check two answers in the order given.

    better: which one agrees more with the reference. conflict: the preferred answer speaks of something that no
    caption of the video mentions. correct: the preferred answer says what the reference says.
    """
    preferred, other = (first, second) if preferred_first else (second, first)
    mine, theirs = agreement(preferred, reference), agreement(other, reference)
    outcome: Literal["better", "worse", "equal"] = "better" if mine > theirs else "worse" if mine < theirs else "equal"
    known = {word for caption in captions for word in words(caption)} | set(words(reference))
    return Verdict(
        preferred_shown_first=preferred_first,
        preferred_is=outcome,
        conflicts_with_captions=not set(words(preferred)) <= known,
        is_correct=words(preferred) == words(reference),
    )
