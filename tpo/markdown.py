"""Text from elsewhere, shown in Markdown as it is."""

import re

# What marks something up wherever it stands; what makes a link of an address; what makes a list at the beginning.
_MARKS = re.compile(r"([\\`*_{}\[\]()<>|&~!#$^=@]|:(?=//)|(?<=www)\.|^[-+]|(?<=^\d)[.)]|(?<=^\d\d)[.)])")


def escaped(text: str) -> str:
    """One line in which no character means anything in Markdown or HTML."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
