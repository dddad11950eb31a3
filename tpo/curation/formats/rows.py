"""A preference pair as other tools write it: one video, one question, two answers."""

import re

from tpo.records import Granularity, QuestionType, Reason, Record

# Where the formats say that a video stands in the prompt. Ours stands before the question, always.
_PLACEHOLDER = re.compile(r"<(?:video|image)>\n?")
_ANY_PLACEHOLDER = re.compile(r"<(video|image|audio)>")


class Row(Record):
    """What all formats hold, and what ours adds where a format takes further keys. `number` counts from 1."""

    number: int
    video: str
    question: str
    chosen: str
    rejected: str
    granularity: Granularity | None = None
    question_type: QuestionType | None = None


class BadRowError(Exception):
    """A row that is no preference pair about one video, and why."""

    def __init__(self, detail: str, reason: Reason = Reason.BAD_ROW) -> None:
        super().__init__(detail)
        self.reason = reason


def without_placeholder(prompt: str) -> str:
    """A prompt without the placeholder of its one video, at whichever end it stands.

    Raises:
        BadRowError: there is more than one, or it stands inside.
    """
    found = list(_PLACEHOLDER.finditer(prompt))
    if not found:
        return prompt
    (only, *more) = found
    if more or (only.start() > 0 and only.end() < len(prompt)):
        raise BadRowError(f"{len(found)} placeholders in {prompt[:80]!r}; expected one, before or behind the question")
    before, behind = prompt[: only.start()], prompt[only.end() :]
    return behind or before.rstrip("\n")


def plain(text: str) -> str:
    """Text whose placeholders are words: tools that count them would look for another video."""
    return _ANY_PLACEHOLDER.sub(r"< \1>", text)


def checked(row: Row) -> Row:
    """The row, if it can be trained on.

    Raises:
        BadRowError: a text is empty or no Unicode, or both answers are the same.
    """
    for name in ("video", "question", "chosen", "rejected"):
        _check_unicode(name, getattr(row, name))
    if not row.video.strip() or not row.question.strip():
        raise BadRowError(f"video {row.video[:80]!r}, question {row.question[:80]!r}: one of them is empty")
    if not row.chosen.strip() or not row.rejected.strip():
        raise BadRowError(f"chosen {row.chosen[:80]!r}, rejected {row.rejected[:80]!r}", Reason.EMPTY_ANSWER)
    if row.chosen.strip() == row.rejected.strip():
        raise BadRowError(f"both answers are {row.chosen[:200]!r}", Reason.IDENTICAL_ANSWERS)
    return row


def _check_unicode(name: str, text: str) -> None:
    # JSON may spell half of a character ("\\ud800"). No file in UTF-8 can hold that.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRowError(f"{name} is no Unicode text: {error}") from error
