"""Open the model that a section of params.yaml names: `open_chat(params.judge.judge, cache)`."""

from tpo.llm.chat import Chat
from tpo.llm.endpoint import Endpoint
from tpo.params import ChatParams, EndpointParams
from tpo.replies import ReplyCache


def open_chat(params: ChatParams, cache: ReplyCache) -> Chat:
    """A served model, or one that is loaded here.

    Raises:
        UserError: the model that should be loaded is not there or is of no use. A server is first asked when needed.
    """
    if isinstance(params, EndpointParams):
        return Chat(Endpoint(params), cache)
    from tpo.llm.local import Local  # torch and transformers take seconds to import

    return Chat(Local(params), cache)
