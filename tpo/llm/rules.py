"""Asking by rule: questions whose answer follows from a list of captions in time order, without a language model.

The offline stand-in for the paper's GPT-4o-mini query writer (method 2501.13919, section 3): the rules see captions
only, never the video. They speak of captions by name ("the red star"); a caption that occurs twice cannot be named
and is never asked about.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

COLOR_WORDS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "white", "black", "brown", "pink", "gray")
_COLORED_NOUN = re.compile(rf"\b(?:an?|the) ({'|'.join(COLOR_WORDS)}) (\w+)", re.IGNORECASE)
_SHORT_NOUN_PHRASE = re.compile(r"(?:an?|the) (\w+(?: \w+){0,2})", re.IGNORECASE)


@dataclass(frozen=True)
class RuleQuestion:
    question_type: str
    question: str
    answer: str


def definite(caption: str) -> str:
    """How a question names what a caption tells: "a red star" → "the red star", a sentence → in quotes."""
    text = caption.strip().rstrip(".")
    short = _SHORT_NOUN_PHRASE.fullmatch(text)
    return f"the {short.group(1)}" if short else f'"{text}"'


def localized_questions(segment: Sequence[str], whole_video: Sequence[str]) -> list[RuleQuestion]:
    """Questions that `segment` (a run of the captions in `whole_video`) is enough to answer."""
    counts = Counter(whole_video)
    nouns = Counter(match.group(2).lower() for text in whole_video for match in _COLORED_NOUN.finditer(text))
    questions = []
    for text in segment:
        colored = _COLORED_NOUN.search(text)
        if colored and nouns[colored.group(2).lower()] == 1:
            color, noun = colored.group(1).lower(), colored.group(2)
            questions.append(RuleQuestion("object_reasoning", f"What color is the {noun}?", color))
    for before, after in zip(segment, segment[1:], strict=False):
        if counts[before] == 1 and before != after:
            questions.append(
                RuleQuestion("temporal_reasoning", f"What comes right after {definite(before)}?", after.rstrip("."))
            )
        if counts[after] == 1 and before != after:
            questions.append(
                RuleQuestion("temporal_reasoning", f"What comes right before {definite(after)}?", before.rstrip("."))
            )
    return questions


def comprehensive_questions(whole_video: Sequence[str]) -> list[RuleQuestion]:
    """Questions that need the whole video: what is first, what is last, and which of two comes first."""
    if len(whole_video) < 2:
        return []
    questions = [
        RuleQuestion("information_extraction", "What comes first?", whole_video[0].rstrip(".")),
        RuleQuestion("information_extraction", "What comes last?", whole_video[-1].rstrip(".")),
    ]
    counts = Counter(whole_video)
    unique = [text for text in whole_video if counts[text] == 1]
    for i, early in enumerate(unique):
        for late in unique[i + 1 :]:
            # Half of the questions name the later one first, chosen by content so that it never changes.
            pair = (early, late) if (len(early) + len(late) + i) % 2 else (late, early)
            question = f"Which comes first, {definite(pair[0])} or {definite(pair[1])}?"
            questions.append(RuleQuestion("temporal_reasoning", question, definite(early)))
    return questions
