"""The one error that means: the user can fix this, and here is how. Shown without a traceback."""


class UserError(Exception):
    """Says what was found, what was expected and what to do next."""
