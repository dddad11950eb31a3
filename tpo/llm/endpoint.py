"""A model behind any OpenAI-compatible server: vLLM, a provider, `transformers serve`.

What is the request's fault sets the request aside; what is the server's stops the run with what to do, and a run that
is started again goes on, since finished calls are remembered. The two are told apart by asking something trivial.
"""

import asyncio
import base64
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpx2  # what the client speaks HTTP with
import numpy as np
import openai
from pydantic import BaseModel, Field, ValidationError

from tpo.errors import UserError
from tpo.llm.chat import ChatRequest, Failed, Keep, Picture, Reply
from tpo.params import EndpointParams
from tpo.records import Reason, content_id

_GO_ON = "Finished calls are kept: run the same command again, and it goes on."
_CONNECT_S = 10  # ours: a server that is there takes a connection much sooner than it replies
_MAX_DETAIL_CHARS = 200
_NO_KEY = "none"  # servers of one's own want none, and the client wants some
# Other 4xx are about the request.
_PASSING = (408, 409, 429)
_ABOUT_THE_ACCOUNT = (401, 402, 403, 404)

for _name in ("openai", "httpx2", "httpcore2"):  # they tell of every call
    logging.getLogger(_name).setLevel(logging.WARNING)


class Endpoint:
    """A `Backend`. Its calls in flight, its pace and its budget are shared by all threads that ask it.

    Calls live in an event loop of their own, in a thread that ends with the process: there they can be let go in the
    middle, be they waiting for a reply or for the next try.
    """

    def __init__(self, params: EndpointParams) -> None:
        """Raises UserError if the key is none. The server is first asked when needed."""
        changes_replies = (params.max_reply_tokens, params.temperature, params.extra_body)
        self.id = f"{params.model}@{content_id(*changes_replies)}"
        self.max_reply_tokens = params.max_reply_tokens
        self.usd_per_million = (params.usd_per_million_input_tokens, params.usd_per_million_output_tokens)
        self._params = params
        self._key = _read_key(params.api_key_env)
        self._client = openai.AsyncOpenAI(
            base_url=params.url,
            api_key=self._key,
            timeout=openai.Timeout(params.timeout_s, connect=min(_CONNECT_S, params.timeout_s)),
            max_retries=params.max_retries,
            http_client=openai.DefaultAsyncHttpxClient(
                event_hooks={"request": [self._wait_for_turn], "response": [self._read_whole]}
            ),
        )
        self._free = asyncio.Semaphore(params.concurrency)
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._next_start_s = 0.0
        self._spent_usd = 0.0
        self._stopped: str | None = None
        self._answered: set[bool] = set()  # requests with pictures, or without
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="calls", daemon=True).start()

    def replies(self, requests: Iterable[tuple[int, ChatRequest]], keep: Keep) -> Iterator[tuple[int, Reply | Failed]]:
        """See `Backend.replies`. Twice as many requests are drawn as are in flight, so that none is waited for.

        When the budget is spent, calls in flight are waited for and given first: they are paid for. When the server is
        of no use they are let go, in all threads.
        """
        drawn = iter(requests)
        arrived: SimpleQueue[Future[Reply | Failed]] = SimpleQueue()
        at_work: dict[Future[Reply | Failed], int] = {}
        lost = False
        try:
            while True:
                room = 0 if lost else 2 * self._params.concurrency - len(at_work)
                for number, request in islice(drawn, room):
                    call = asyncio.run_coroutine_threadsafe(self._call(number, request, keep), self._loop)
                    at_work[call] = number
                    call.add_done_callback(arrived.put)
                if not at_work:
                    break
                call = arrived.get()
                number = at_work.pop(call)
                if call.cancelled() or isinstance(call.exception(), UserError):
                    lost = True
                else:
                    yield number, call.result()
        finally:
            for call in reversed(at_work):  # those that have not begun first, or they would take the others' places
                call.cancel()
        if lost:
            raise UserError(self._stopped)

    async def _call(self, number: int, request: ChatRequest, keep: Keep) -> Reply | Failed:
        """Kept before another call takes its place: a kill loses what is in flight, and nothing that was done."""
        async with self._free:
            if self._stopped is not None:
                raise UserError(self._stopped)
            task = asyncio.current_task()
            assert task is not None
            self._in_flight.add(task)
            try:
                reply = await self._ask(request)
                if isinstance(reply, Reply):
                    await asyncio.to_thread(keep, number, reply)
                return reply
            finally:
                self._in_flight.discard(task)

    async def _ask(self, request: ChatRequest) -> Reply | Failed:
        try:
            reply = await self._complete(self._client, request)
        except openai.APIError as error:
            return await self._fault(error, request)
        self._answered.add(_has_pictures(request))
        self._pay(reply)
        return reply

    async def _complete(self, client: openai.AsyncOpenAI, request: ChatRequest) -> Reply:
        """The reply to a request, tried again as often as the client may."""
        params = self._params
        temperature = params.temperature if request.temperature is None else request.temperature
        settings: dict[str, Any] = {params.reply_limit_name: self.max_reply_tokens, "temperature": temperature}
        if temperature:  # not every server knows seeds, and without chance nobody needs one
            settings["seed"] = request.sample
        messages: Any = _messages(request)
        sent = client.chat.completions.with_raw_response.create(
            model=params.model, messages=messages, extra_body=params.extra_body, **settings
        )
        return _Completion.model_validate_json((await sent).content).reply()

    async def _wait_for_turn(self, request: httpx2.Request) -> None:
        """Tries begin evenly spaced, over all threads; each has until then to be over."""
        if self._params.requests_per_minute is not None:
            start_s = max(self._next_start_s, self._loop.time())
            self._next_start_s = start_s + 60 / self._params.requests_per_minute
            await asyncio.sleep(start_s - self._loop.time())
        request.extensions["until_s"] = self._loop.time() + self._params.timeout_s

    async def _read_whole(self, response: httpx2.Response) -> None:
        """A page or half a reply is trouble like a cut connection: the client, to which it is told so, tries again.

        Some servers send blanks while they think, so that no single wait is too long: all of them together may be.
        """
        try:
            async with asyncio.timeout_at(response.request.extensions["until_s"]):
                await response.aread()
        except TimeoutError as error:
            raise httpx2.ReadTimeout(f"no whole reply within {self._params.timeout_s:g} s") from error
        if not response.is_success:
            return
        try:
            _Completion.model_validate_json(response.content)
        except ValidationError as error:
            raise httpx2.DecodingError(f"expected a chat completion, got {response.text[:80]!r}") from error

    async def _fault(self, error: openai.APIError, request: ChatRequest) -> Failed:
        """Whose fault it is that there is no reply shows in whether the server answers something trivial.

        That is asked with the same settings, and with a picture if the request has some. Of a request that the server
        calls wrong it is not asked when others of its kind were answered.
        """
        pictures = _has_pictures(request)
        status = getattr(error, "status_code", 0)
        about_request = 400 <= status < 500 and status not in (*_PASSING, *_ABOUT_THE_ACCOUNT)
        if about_request and pictures in self._answered:
            return Failed(Reason.REQUEST_FAILED, self._said(error))
        trivial = ChatRequest("", ("Say yes.", *([_gray()] if pictures else [])))
        try:
            await self._complete(self._client.with_options(max_retries=0), trivial)
        except openai.APIError as same:
            raise self._stop(self._what_to_do(same, pictures)) from None
        return Failed(Reason.REQUEST_FAILED, f"the server answers others, but not this: {self._said(error)}")

    def _what_to_do(self, error: openai.APIError, pictures: bool) -> str:
        """About a server that does not answer the simplest request."""
        url, model, key, said = self._params.url, self._params.model, self._params.api_key_env, self._said(error)
        status = getattr(error, "status_code", 0)
        if status in (401, 403):
            is_set = "is not set" if self._key == _NO_KEY else "is set, but not accepted"
            return f"{url} wants a key ({said}). The environment variable {key} {is_set}. {_GO_ON}"
        if status == 404:
            return (
                f"{url} has no model {model!r}, or is not the address of its API ({said}). Set url, with its version, "
                "and model as the server names it."
            )
        if 400 <= status < 500 and status not in _PASSING:
            what = "anything with a picture" if pictures else "anything"
            return (
                f"{url} does not take {what} for {model!r}: {said}. Do model, temperature, reply_limit_name and "
                f"extra_body suit it? {_GO_ON}"
            )
        return f"{url} does not answer: {said}. Is the server up? {_GO_ON}"

    def _stop(self, why: str) -> UserError:
        """No call is begun after this, and the others in flight are let go."""
        self._stopped = why
        for task in self._in_flight - {asyncio.current_task()}:
            task.cancel()
        return UserError(why)

    def _said(self, error: openai.APIError) -> str:
        """What the server said, or what became of the connection, without the key."""
        if isinstance(error, openai.APIStatusError):
            body = error.body if isinstance(error.body, dict) else {}
            text = f"{error.status_code}: {body.get('message') or error.message}"
        else:
            text = str(error.__cause__ or "") or error.message
        if self._key != _NO_KEY:
            text = text.replace(self._key, "…")
        return " ".join(text.split()).rstrip(".")[:_MAX_DETAIL_CHARS]

    def _pay(self, reply: Reply) -> None:
        """This reply is still used if it is the one that is too much; the next call is not made."""
        price_in, price_out = self.usd_per_million
        cost_usd = (reply.input_tokens * price_in + reply.output_tokens * price_out) / 1e6
        self._spent_usd += cost_usd
        model, budget_usd = self._params.model, self._params.budget_usd
        if budget_usd is None:
            return
        if not cost_usd:
            self._stopped = (
                f"budget_usd is {budget_usd:g}, but nothing says what {model} costs: give its "
                "usd_per_million_input_tokens and usd_per_million_output_tokens. If they are there, the server does "
                f"not count tokens, and budget_usd must be null. {_GO_ON}"
            )
        elif self._spent_usd >= budget_usd:
            cost = f"{model} has cost {self._spent_usd:.4g} USD, and budget_usd is {budget_usd:g}"
            self._stopped = f"{cost}. Raise it if the stage is worth more. {_GO_ON}"


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """What we need of a chat completion; the client's own class checks nothing."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None

    def reply(self) -> Reply:
        """The first choice. Tokens are 0 where the server does not count them."""
        choice, usage = self.choices[0], self.usage or _Usage()
        return Reply(
            text=choice.message.content or choice.message.refusal or "",
            ended=choice.finish_reason != "length",
            refused=bool(choice.message.refusal) or choice.finish_reason == "content_filter",
            input_tokens=usage.prompt_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
        )


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"The environment variable {variable} holds what cannot be a key: it has odd characters.")
    return key or _NO_KEY


def _has_pictures(request: ChatRequest) -> bool:
    return any(isinstance(part, Picture) for part in request.parts)


def _gray() -> Picture:
    return Picture.of(np.full((64, 64, 3), 127, np.uint8), 64)


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    """Text alone goes as text: servers of text models take no lists of parts."""
    if _has_pictures(request):
        content: Any = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_base64(part.jpeg)}"}}
            for part in request.parts
        ]
    else:
        content = "\n".join(part for part in request.parts if isinstance(part, str))
    system = [{"role": "system", "content": request.system}] if request.system else []
    return [*system, {"role": "user", "content": content}]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
