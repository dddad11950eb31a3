"""The language models that caption, ask and judge, each opened once per process."""

from flows.replies import replies
from flows.stage import Stage
from tpo.llm.chat import Chat, Usage
from tpo.llm.load import open_chat
from tpo.params import ChatParams

_OPEN: dict[str, Chat] = {}


def chat_with(params: ChatParams) -> Chat:
    """The same for all tasks of this process, so that they share its limit of calls in flight and its counts."""
    key = params.model_dump_json()
    if key not in _OPEN:
        _OPEN[key] = open_chat(params, replies())
    return _OPEN[key]


def watched(params: ChatParams, stage: Stage) -> Chat:
    """A model whose calls are counted from now on, and shown behind the stage's bar."""
    chat = chat_with(params)
    chat.usage = Usage()
    chat.watch = lambda: stage.tell(f"{chat.usage.calls} calls, {chat.usage.remembered} remembered")
    return chat
