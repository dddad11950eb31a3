"""The one error that means: the user can fix this, and here is how. Shown without a traceback."""

import re

# What stands before the host of an address, and what queries of addresses call by such names.
_USER_INFO = re.compile(r"(?<=://)[^/\s]+@")
_SECRET_FIELD = re.compile(r"(?i)([?&][^=&\s]*(?:key|token|secret|passw(?:or)?d|signature)[^=&\s]*=)[^&\s'\"]+")


class UserError(Exception):
    """Says what was found, what was expected and what to do next."""


def redact(text: str) -> str:
    """`text` with users, passwords and keys in every address taken out: errors, tags and logs are read by many."""
    return _SECRET_FIELD.sub(r"\1***", _USER_INFO.sub("***@", text))
