"""A model behind any OpenAI-compatible server: vLLM, a provider, `transformers serve`.

What is the request's fault sets the request aside; what is the server's stops the run with what to do, and a run that
is started again goes on, since finished calls are remembered. The two are told apart by asking something trivial.
"""

import base64
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import Lock
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from tpo.errors import UserError
from tpo.llm.chat import ChatRequest, Failed, Keep, Reply
from tpo.params import EndpointParams
from tpo.records import Reason, content_id

_PAGE_RETRIES = 3  # ours: of what is no reply at all, such as a proxy's page; the client retries the rest by itself
_GO_ON = "Finished calls are kept: run the same command again, and it goes on."
_MAX_DETAIL_CHARS = 200
_NO_KEY = "none"  # servers of one's own want none, and the client wants some


class Endpoint:
    """A `Backend`. Its calls in flight, its pace and its budget are shared by all threads that ask it."""

    def __init__(self, params: EndpointParams) -> None:
        changes_replies = (params.max_reply_tokens, params.temperature, params.extra_body)
        self.id = f"{params.model}@{content_id(*changes_replies)}"
        self.max_reply_tokens = params.max_reply_tokens
        self.usd_per_million = (params.usd_per_million_input_tokens, params.usd_per_million_output_tokens)
        self._params = params
        self._key = os.environ.get(params.api_key_env) or _NO_KEY
        self._client = openai.OpenAI(
            base_url=params.url, api_key=self._key, timeout=params.timeout_s, max_retries=params.max_retries
        )
        self._pool = ThreadPoolExecutor(params.concurrency, thread_name_prefix="call")
        self._lock = Lock()
        self._next_start_s = 0.0
        self._spent_usd = 0.0
        self._stopped: str | None = None

    def replies(self, requests: Iterable[tuple[int, ChatRequest]], keep: Keep) -> Iterator[tuple[int, Reply | Failed]]:
        """See `Backend.replies`. Twice as many requests are drawn as are in flight, so that none is waited for.

        Where the run has to stop, calls in flight are waited for and given first: they are paid for.
        """
        drawn = iter(requests)
        at_work: dict[Future[Reply | Failed], int] = {}
        stopped: UserError | None = None
        while True:
            if stopped is None:
                for number, request in islice(drawn, 2 * self._params.concurrency - len(at_work)):
                    at_work[self._pool.submit(self._ask_and_keep, number, request, keep)] = number
            if not at_work:
                break
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                number = at_work.pop(future)
                try:
                    reply = future.result()
                except UserError as error:
                    stopped = error
                else:
                    yield number, reply
            if stopped is not None:
                at_work = {future: number for future, number in at_work.items() if not future.cancel()}
        if stopped is not None:
            raise stopped

    def _ask_and_keep(self, number: int, request: ChatRequest, keep: Keep) -> Reply | Failed:
        """Kept before the thread takes another call: a kill loses what is in flight, and nothing that was done."""
        reply = self._ask(request)
        if isinstance(reply, Reply):
            keep(number, reply)
        return reply

    def _ask(self, request: ChatRequest) -> Reply | Failed:
        if self._stopped is not None:
            raise UserError(self._stopped)
        self._wait_for_turn()
        try:
            reply = self._reply(request)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            name = self._params.api_key_env
            is_set = "is set, but not accepted" if os.environ.get(name) else "is not set"
            raise self._stop(
                f"{self._params.url} wants a key ({error.status_code}). The environment variable {name} {is_set}."
            ) from None
        except openai.NotFoundError as error:
            raise self._stop(
                f"{self._params.url} has no model {self._params.model!r}, or is not the address of its API "
                f"({self._said(error)}). Set url, with its version, and model as the server names it."
            ) from None
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code not in (408, 409, 429):
                return Failed(Reason.REQUEST_FAILED, self._said(error))
            return self._give_up(self._said(error))
        except (openai.APIConnectionError, _NoReplyError) as error:
            return self._give_up(self._said(error))
        self._pay(reply)
        return reply

    def _reply(self, request: ChatRequest) -> Reply:
        for attempt in range(_PAGE_RETRIES):
            try:
                return _read(self._complete(self._client, _messages(request), self.max_reply_tokens, request))
            except _NoReplyError:
                time.sleep(min(0.5 * 2**attempt, self._params.timeout_s))
        return _read(self._complete(self._client, _messages(request), self.max_reply_tokens, request))

    def _complete(self, client: openai.OpenAI, messages: Any, max_tokens: int, request: ChatRequest | None) -> Any:
        params = self._params
        settings: dict[str, Any] = {params.reply_limit_name: max_tokens}
        if request is not None:
            temperature = params.temperature if request.temperature is None else request.temperature
            settings |= {"temperature": temperature, "seed": request.sample, "extra_body": params.extra_body}
        try:
            return client.chat.completions.create(model=params.model, messages=messages, **settings)
        except ValueError as error:  # a body that says that it is JSON and is not
            raise _NoReplyError(str(error)) from error

    def _give_up(self, why: str) -> Failed:
        """Retries are used up. Whose fault it is shows in whether the server answers something trivial."""
        client = self._client.with_options(max_retries=0)
        try:
            _read(self._complete(client, [{"role": "user", "content": "Say yes."}], 1, None))
        except (openai.APIError, _NoReplyError):
            raise self._stop(f"{self._params.url} does not answer: {why}. Is the server up? {_GO_ON}") from None
        return Failed(Reason.REQUEST_FAILED, f"the server answers others, but not this: {why}")

    def _stop(self, why: str) -> UserError:
        """No call is begun after this."""
        self._stopped = why
        return UserError(why)

    def _said(self, error: Exception) -> str:
        status = f"{error.status_code}: " if isinstance(error, openai.APIStatusError) else ""
        text = " ".join(str(error).split()).rstrip(".")
        if self._key != _NO_KEY:
            text = text.replace(self._key, "…")
        return f"{status}{text[:_MAX_DETAIL_CHARS]}"

    def _wait_for_turn(self) -> None:
        """Calls begin evenly spaced, over all threads."""
        if self._params.requests_per_minute is None:
            return
        with self._lock:
            start_s = max(self._next_start_s, time.monotonic())
            self._next_start_s = start_s + 60 / self._params.requests_per_minute
        time.sleep(max(0.0, start_s - time.monotonic()))

    def _pay(self, reply: Reply) -> None:
        price_in, price_out = self.usd_per_million
        with self._lock:
            self._spent_usd += (reply.input_tokens * price_in + reply.output_tokens * price_out) / 1e6
            budget_usd = self._params.budget_usd
            if budget_usd is not None and self._spent_usd >= budget_usd:
                # This reply is still used; the next call is not made.
                cost = f"{self._params.model} has cost {self._spent_usd:.4g} USD, and budget_usd is {budget_usd:g}"
                self._stopped = f"{cost}. Raise it if the stage is worth more. {_GO_ON}"


class _NoReplyError(Exception):
    """The server sent something, and it is no chat completion."""


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    """Text alone goes as text: servers of text models take no lists of parts."""
    if all(isinstance(part, str) for part in request.parts):
        content: Any = "\n".join(part for part in request.parts if isinstance(part, str))
    else:
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_base64(part.jpeg)}"}}
            for part in request.parts
        ]
    return [{"role": "system", "content": request.system}, {"role": "user", "content": content}]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _read(found: Any) -> Reply:
    """A completion's first choice. Tokens are 0 where the server does not count them."""
    if not isinstance(found, ChatCompletion) or not found.choices or found.choices[0].message is None:
        raise _NoReplyError(f"expected a chat completion, got {str(found)[:80]!r}")
    choice, usage = found.choices[0], found.usage
    return Reply(
        text=choice.message.content or "",
        ended=choice.finish_reason != "length",
        refused=bool(choice.message.refusal) or choice.finish_reason == "content_filter",
        input_tokens=usage.prompt_tokens if usage else 0,
        output_tokens=usage.completion_tokens if usage else 0,
    )
