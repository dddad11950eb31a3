"""A model that says what a test wants: a backend like any other, so that all else is the real thing."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tpo.llm.chat import Chat, ChatRequest, Failed, Keep, Reply
from tpo.replies import ReplyCache


class Scripted:
    """Answers each request by a function of its instructions and text, and remembers what it was asked."""

    id = "scripted"
    max_reply_tokens = 100
    usd_per_million = (1.0, 2.0)

    def __init__(self, say: Callable[[str, str], str | Failed]) -> None:
        self.asked: list[ChatRequest] = []
        self._say = say

    def replies(self, requests: Iterable[tuple[int, ChatRequest]], keep: Keep) -> Iterator[tuple[int, Reply | Failed]]:
        for number, request in requests:
            self.asked.append(request)
            said = self._say(request.system, text_of(request))
            if isinstance(said, str):
                reply = Reply(text=said, ended=True, input_tokens=10, output_tokens=5)
                keep(number, reply)
                yield number, reply
            else:
                yield number, said


def text_of(request: ChatRequest) -> str:
    return "\n".join(part for part in request.parts if isinstance(part, str))


def chat_that(folder: Path, say: Callable[[str, str], str | Failed]) -> tuple[Chat, Scripted]:
    """A chat with such a model, and the model."""
    model = Scripted(say)
    return Chat(model, ReplyCache(folder / "replies.sqlite")), model
