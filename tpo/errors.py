"""The one error that means: the user can fix this, and here is how. Shown without a traceback."""

import re

# What stands before the host of an address; what its query calls by such names; passwords among the keywords of a
# database (`host=db password='s3cret'`), in quotes or not. None reaches over the end of a JSON string.
_USER_INFO = re.compile(r"(?<=://)[^/\s]+@")
_IN_QUERY = re.compile(r"(?i)([?&;][^=&\s]*(?:key|token|secret|passw(?:or)?d|pwd|signature)[^=&\s]*=)[^&\s'\"\\]+")
_KEYWORD = re.compile(
    r"""(?ix) ((?<![?&;\w]) \w*(?:passw(?:or)?d|pwd) \s*=\s*) (?!\*\*\*)
    (?: '(?:[^'"\\\n]|\\+[^"\n])*' | \\"[^"\\]*\\" | "[^"\s,:}\]]+" | [^\s"\\]+ )"""
)


class UserError(Exception):
    """Says what was found, what was expected and what to do next."""


class TooLongError(UserError):
    """A prompt and its answer are longer than the decoder can take."""


def redact(text: str) -> str:
    """`text` with users, passwords and keys in every address taken out: errors, tags and logs are read by many."""
    return _KEYWORD.sub(r"\1***", _IN_QUERY.sub(r"\1***", _USER_INFO.sub("***@", text)))
