"""Chat with a model that captions, asks or judges: one request in, one checked reply out, be it served or loaded here.

    chat = Chat(Endpoint(params.judge.judge), ReplyCache(Path(".tpo/replies.sqlite")))
    replies = chat.ask_all([ChatRequest("You judge answers.", ("Which is better?",))])

A backend (`tpo.llm.endpoint`, `tpo.llm.local`) gets replies; everything that is the same for all of them is here: calls
are remembered by content, counted, and what cannot be a reply is a `Failed` with its reason.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np
from PIL import Image
from pydantic import BaseModel

from tpo.records import Reason, content_id
from tpo.replies import ReplyCache

_CHARS_PER_TOKEN = 16  # ours: a server that overlooks the limit of tokens may still not send more than this
_JPEG_QUALITY = 90  # ours
# A refusal is prose where data was asked for. Only how replies begin is looked at: captions may speak of regret.
_REFUSAL = re.compile(
    r"(?:i['’]?m|i am) (?:very |so )?(?:sorry|unable|afraid)\b|(?:sorry|apologies)(?:[,.!]| (?:but )?i\b)"
    r"|unable to (?:help|assist|comply|answer|provide)\b|i (?:can['’]?t|cannot|won['’]?t|apologi[sz]e)\b|as an ai\b",
    re.IGNORECASE,
)
# What tokenizers of chat models take for the end of a turn, a picture, … wherever it stands: <|im_end|>, </s>, <image>,
# <start_of_turn>, <｜User｜>, [INST], [gMASK].
_SPECIAL_TOKEN = re.compile(r"<(?=[^\s<>]+>|[|｜][^<>]*>)|\[(?=/?\w*[A-Z]{3}\w*\])")


@dataclass(frozen=True)
class Picture:
    """A frame for a model to see, as a JPEG file."""

    jpeg: bytes

    @classmethod
    def of(cls, pixels: np.ndarray, max_side_px: int) -> "Picture":
        """From uint8 [h, w, 3] (RGB); scaled down where its longer side is above `max_side_px`."""
        image = Image.fromarray(pixels)
        image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_JPEG_QUALITY)
        return cls(file.getvalue())


@dataclass(frozen=True)
class ChatRequest:
    """One turn: instructions, and text and pictures in the order in which the model sees them.

    What a tokenizer could take for a special token has a space put in, wherever in the text it comes from: servers
    read special tokens in a text as such. `sample` tells apart requests that are otherwise the same, where several
    replies are wanted.
    """

    system: str
    parts: tuple[str | Picture, ...]
    sample: int = 0
    temperature: float | None = field(default=None)  # none = the model's own setting

    def __post_init__(self) -> None:
        plain = (_SPECIAL_TOKEN.sub(r"\g<0> ", part) if isinstance(part, str) else part for part in self.parts)
        object.__setattr__(self, "parts", tuple(plain))

    @property
    def prompt_id(self) -> str:
        """Content id of what the model is asked: text as it is sent, pictures by their bytes."""
        parts = [part if isinstance(part, str) else part.jpeg.hex() for part in self.parts]
        return content_id(self.system, parts)


class Reply(BaseModel, extra="forbid"):
    """What a model wrote. Tokens as the server counts them; `ended` is false if it was cut at the limit."""

    text: str
    ended: bool
    refused: bool = False
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Failed:
    """A request that has no reply to work with. The run goes on; what was asked about is set aside."""

    reason: Reason
    detail: str


Keep = Callable[[int, Reply], None]


class Backend(Protocol):
    """Where replies come from.

    Attributes:
        id: stands for the model and for every setting that changes its replies.
        max_reply_tokens: what a reply may have.
        usd_per_million: prices of input and output tokens.
    """

    id: str
    max_reply_tokens: int
    usd_per_million: tuple[float, float]

    def replies(self, requests: Iterable[tuple[int, ChatRequest]], keep: Keep) -> Iterator[tuple[int, Reply | Failed]]:
        """Each request's number with its reply, as they come in; only as many requests are drawn as are at work.

        Args:
            keep: is called with every reply, in whatever thread, as soon as it is there and before it is yielded.

        Raises:
            UserError: the model cannot be reached or used at all, whatever it is asked.
        """
        ...


class Usage(BaseModel):
    """What a stage's calls came to; in its manifest."""

    calls: int = 0
    remembered: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0


class Chat:
    """A model to ask, whose replies are remembered. Threads may share one. `watch` is called after each reply."""

    def __init__(self, backend: Backend, cache: ReplyCache) -> None:
        self.id = backend.id
        self.usage = Usage()
        self.watch: Callable[[], None] = lambda: None
        self._backend, self._cache, self._lock = backend, cache, Lock()

    def ask_all(self, requests: Iterable[ChatRequest]) -> list[Reply | Failed]:
        """A reply or the reason why there is none for each request, in their order.

        Requests are drawn one after the other as they are needed: a picture lives no longer than its call.

        Raises:
            UserError: see `Backend.replies`; what was answered before is remembered.
        """
        found: dict[int, Reply | Failed] = {}
        keys: dict[int, str] = {}

        def unanswered() -> Iterator[tuple[int, ChatRequest]]:
            for number, request in enumerate(requests):
                keys[number] = content_id(self.id, request.prompt_id, request.sample, request.temperature)
                remembered = self._cache.get(keys[number])
                if remembered is None:
                    yield number, request
                else:
                    found[number] = Reply.model_validate_json(remembered)
                    self._count(remembered=1)

        def keep(number: int, reply: Reply) -> None:
            self._cache.put(keys[number], reply.model_dump_json())
            self._count(reply)

        for number, reply in self._backend.replies(unanswered(), keep):
            found[number] = reply
            self.watch()
        checked = [self._checked(found[number]) for number in range(len(found))]
        self._count(failed=sum(isinstance(one, Failed) for one in checked))
        return checked

    def _count(self, reply: Reply | None = None, remembered: int = 0, failed: int = 0) -> None:
        with self._lock:
            usage = self.usage
            usage.remembered += remembered
            usage.failed += failed
            if reply is not None:
                usage.calls += 1
                usage.input_tokens += reply.input_tokens
                usage.output_tokens += reply.output_tokens
                price_in, price_out = self._backend.usd_per_million
                usage.usd += (reply.input_tokens * price_in + reply.output_tokens * price_out) / 1e6

    def _checked(self, reply: Reply | Failed) -> Reply | Failed:
        """A reply that can be read at all."""
        if isinstance(reply, Failed):
            return reply
        text, limit = reply.text.strip(), self._backend.max_reply_tokens
        if reply.refused or _REFUSAL.match(text):
            return Failed(Reason.REFUSED, f"the model refused: {text[:200]!r}")
        if not text:
            return Failed(Reason.EMPTY_REPLY, "the model wrote nothing")
        if not reply.ended or len(text) > limit * _CHARS_PER_TOKEN:
            return Failed(Reason.RUNAWAY_REPLY, f"{len(text)} characters, more than {limit} tokens: {text[:80]!r}…")
        return reply
