"""What models have said and scored, kept on this machine for all stages and later runs: nothing is paid for twice."""

import functools

from flows.stage import JOURNALS
from tpo.replies import ReplyCache

REPLIES = JOURNALS / "replies.sqlite"


@functools.cache
def replies() -> ReplyCache:
    """Of all models of all stages; one for all tasks of this process."""
    return ReplyCache(REPLIES)
