"""Asking by rule: questions whose answer follows from a list of captions in time order, without a language model.

The offline stand-in for the paper's GPT-4o-mini query writer (method 2501.13919, section 3): the rules see captions
only, never the video. They speak of captions by name ("the red star"); a caption whose name occurs twice is
ambiguous and never named.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

COLOR_WORDS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "white", "black", "brown", "pink", "gray")
_COLORED_NOUN = re.compile(rf"\b(?:an?|the) ({'|'.join(COLOR_WORDS)}) (?!(?:and|or)\b)(\w+)", re.IGNORECASE)
_SHORT_NOUN_PHRASE = re.compile(r"(?:an?|the) (\w+(?: \w+){0,2})", re.IGNORECASE)
_MAX_COMPARED = 64  # ours: every pair of a film's thousand captions would be half a million questions


@dataclass(frozen=True)
class RuleQuestion:
    """A question and its answer: a lead that restates the question, and the caption or word that fills it in."""

    question_type: str
    question: str
    lead: str
    fill: str

    @property
    def answer(self) -> str:
        return self.answer_with(self.fill)

    def answer_with(self, fill: str) -> str:
        """What the answer would be if `fill` were right."""
        return f"{self.lead} {fill}"


def definite(caption: str) -> str:
    """How a question names what a caption tells: "a red star" → "the red star", a sentence → in quotes."""
    text = caption.strip().rstrip(".")
    short = _SHORT_NOUN_PHRASE.fullmatch(text)
    return f"the {short.group(1)}" if short else '"{}"'.format(text.replace('"', "'"))


def _key(caption: str) -> str:
    """Equal for captions that would be named alike: "A red star." and "a red star"."""
    return definite(caption).casefold()


@lru_cache(maxsize=1)
def _occurrences(whole_video: tuple[str, ...]) -> tuple[Counter[str], Counter[str]]:
    """How often each caption's name occurs, and how often something coloured is spoken of by each noun."""
    colored = (match.group(2).lower() for text in whole_video for match in _COLORED_NOUN.finditer(text))
    return Counter(map(_key, whole_video)), Counter(colored)


def localized_questions(segment: Sequence[str], whole_video: Sequence[str]) -> list[RuleQuestion]:
    """Questions that `segment` (a run of the captions in `whole_video`) is enough to answer."""
    names, nouns = _occurrences(tuple(whole_video))
    questions = []
    for text in segment:
        colored = _COLORED_NOUN.search(text)
        if colored and nouns[colored.group(2).lower()] == 1:
            color, noun = colored.group(1).lower(), colored.group(2)
            questions.append(RuleQuestion("object_reasoning", f"What color is the {noun}?", f"the {noun} is", color))
    for before, after in pairwise(segment):
        for known, side, asked in ((before, "after", after), (after, "before", before)):
            if names[_key(known)] == 1:
                named = definite(known)
                question, lead = f"What comes right {side} {named}?", f"{side} {named} comes"
                questions.append(RuleQuestion("temporal_reasoning", question, lead, asked.rstrip(".")))
    return questions


def comprehensive_questions(whole_video: Sequence[str]) -> list[RuleQuestion]:
    """Questions that need the whole video: what is first, what is last, and which of two comes first."""
    if len(whole_video) < 2:
        return []
    first, last = whole_video[0].rstrip("."), whole_video[-1].rstrip(".")
    questions = [
        RuleQuestion("information_extraction", "What comes first?", "first comes", first),
        RuleQuestion("information_extraction", "What comes last?", "last comes", last),
    ]
    names, _ = _occurrences(tuple(whole_video))
    unique = [text for text in whole_video if names[_key(text)] == 1]
    unique = unique[:: len(unique) // _MAX_COMPARED + 1]
    for i, early in enumerate(unique):
        for late in unique[i + 1 :]:
            # Half of the questions name the later one first, chosen by content so that it never changes.
            pair = (early, late) if (len(early) + len(late) + i) % 2 else (late, early)
            question = f"Which comes first, {definite(pair[0])} or {definite(pair[1])}?"
            questions.append(RuleQuestion("temporal_reasoning", question, "first comes", definite(early)))
    return questions
