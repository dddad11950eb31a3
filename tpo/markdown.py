"""Text from elsewhere, shown in Markdown as it is."""

import re


def escaped(text: str) -> str:
    """One line in which no character means anything in Markdown or HTML."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
