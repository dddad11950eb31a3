"""Which option a model's words name. It never guesses: what names none, or several, is said to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from tpo.records import PredictionStatus


@dataclass(frozen=True)
class Parsed:
    """The option that was named, an index; none unless the status is `ok`."""

    status: PredictionStatus
    option: int | None = None
    detail: str = ""


def parse_choice(text: str, options: Sequence[str]) -> Parsed:
    """The one option that `text` is: its letter alone, or its text."""
    said = text.strip().rstrip(".").casefold()
    named = [
        number
        for number, option in enumerate(options)
        if said in (ascii_uppercase[number].casefold(), option.strip().rstrip(".").casefold())
    ]
    if len(named) == 1:
        return Parsed(PredictionStatus.OK, named[0])
    if named:
        return Parsed(PredictionStatus.AMBIGUOUS, detail=f"the answer is that of options {named}")
    illegal = re.fullmatch(r"[a-z]", said)
    return Parsed(PredictionStatus.ILLEGAL if illegal else PredictionStatus.NONE, detail="no option is named")
