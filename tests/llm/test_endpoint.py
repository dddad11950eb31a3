"""A real client against a real server that misbehaves on purpose: nothing lost, nothing paid twice, nothing made up."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving_server import Handler, Server, serving

from tpo.errors import UserError
from tpo.llm.chat import Chat, ChatRequest, Failed, Picture, Reply
from tpo.llm.endpoint import Endpoint
from tpo.llm.load import open_chat
from tpo.params import EndpointParams
from tpo.records import Reason
from tpo.replies import ReplyCache


def params(server: Server, **settings: Any) -> EndpointParams:
    return EndpointParams(**{"url": server.url, "model": "m", "max_retries": 4, "timeout_s": 20} | settings)


def asked(server: Server, *texts: str, **settings: Any) -> list[Reply | Failed]:
    """What becomes of one request for each text."""
    requests = [(number, ChatRequest("You help.", (text,))) for number, text in enumerate(texts)]
    found = dict(Endpoint(params(server, **settings)).replies(iter(requests), lambda *_: None))
    return [found[number] for number in range(len(texts))]


def test_a_request_goes_out_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-123")
    picture = Picture.of(np.zeros((40, 60, 3), np.uint8), 30)
    with serving(lambda handler, *_: handler.say()) as server:
        endpoint = Endpoint(
            params(server, api_key_env="MY_KEY", max_reply_tokens=7, temperature=0.5, extra_body={"top_k": 3})
        )
        seen = ChatRequest("You see.", ("At 1.0 s:", picture), sample=2)
        cold = ChatRequest("You help.", ("one", "two"), temperature=0.0)
        replies = dict(endpoint.replies([(0, seen), (1, cold)], lambda *_: None))
    first, second = sorted(server.bodies, key=lambda body: body["messages"][0]["content"], reverse=True)
    assert server.headers[0]["authorization"] == "Bearer secret-123"
    assert (first["model"], first["max_tokens"], first["temperature"], first["seed"], first["top_k"]) == (
        "m", 7, 0.5, 2, 3,
    )  # fmt: skip
    assert first["messages"][0] == {"role": "system", "content": "You see."}
    text, image = first["messages"][1]["content"]
    assert text == {"type": "text", "text": "At 1.0 s:"}
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert second["messages"][1]["content"] == "one\ntwo", "text alone goes as text"
    assert second["temperature"] == 0
    assert replies[0] == Reply(text="fine", ended=True, input_tokens=10, output_tokens=5)


def test_newer_providers_have_another_name_for_the_limit() -> None:
    with serving(lambda handler, *_: handler.say()) as server:
        asked(server, "a", reply_limit_name="max_completion_tokens")
    assert "max_tokens" not in server.bodies[0]
    assert server.bodies[0]["max_completion_tokens"] == 512


def fails_first(handler: Handler, times: int, how: Any) -> None:
    """Fail so often, then answer."""
    handler.say() if len(handler.server.bodies) > times else how(handler)


PASSING = {
    "429": lambda handler: handler.fail(429),
    "500": lambda handler: handler.fail(500),
    "503 with a page": lambda handler: handler.send(503, "<html>Down</html>", "text/html"),
    "a cut connection": lambda handler: handler.cut(),
    "a page instead of a reply": lambda handler: handler.send(200, "<html>Hello</html>", "text/html"),
    "half a reply": lambda handler: handler.send(200, '{"id": "x", "choices": [{"mess'),
    "a reply without choices": lambda handler: handler.send(200, '{"id": "x", "choices": []}'),
    "too slow": lambda _: time.sleep(1.5),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_trouble_that_passes_is_waited_out(trouble: str) -> None:
    slow = {"timeout_s": 0.5} if trouble == "too slow" else {}
    with serving(lambda handler, *_: fails_first(handler, 1, PASSING[trouble])) as server:
        (reply,) = asked(server, "a", **slow)
    assert isinstance(reply, Reply)
    assert reply.text == "fine"
    assert len(server.bodies) == 2


def test_too_many_requests_for_long_are_waited_out_by_default() -> None:
    with serving(lambda handler, *_: fails_first(handler, 14, PASSING["429"])) as server:
        (reply,) = asked(server, "a", max_retries=EndpointParams.model_fields["max_retries"].default)
    assert isinstance(reply, Reply)


@pytest.mark.parametrize("trouble", ["500", "a page instead of a reply", "a cut connection", "429"])
def test_one_request_that_always_fails_is_set_aside_and_the_others_are_answered(trouble: str) -> None:
    def behave(handler: Handler, text: str, _: Any) -> None:
        PASSING[trouble](handler) if text == "poison" else handler.say(text)

    with serving(behave) as server:
        first, poison, last = asked(server, "a", "poison", "b", max_retries=2, concurrency=1)
    assert isinstance(first, Reply)
    assert isinstance(last, Reply)
    assert isinstance(poison, Failed)
    assert poison.reason is Reason.REQUEST_FAILED
    assert "answers others, but not this" in poison.detail


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_as_wrong_is_set_aside_at_once(status: int) -> None:
    with serving(
        lambda handler, text, _: handler.fail(status, "too long") if text == "bad" else handler.say()
    ) as server:
        bad, good = asked(server, "bad", "good")
    assert isinstance(bad, Failed)
    assert bad.reason is Reason.REQUEST_FAILED
    assert bad.detail.startswith(f"{status}: ")
    assert "too long" in bad.detail
    assert isinstance(good, Reply)
    assert len(server.bodies) == 2


@pytest.mark.parametrize("trouble", ["500", "429", "a page instead of a reply", "a cut connection"])
def test_a_server_that_answers_nothing_stops_the_run_and_keeps_what_was_answered(trouble: str, tmp_path: Path) -> None:
    def behave(handler: Handler, text: str, _: Any) -> None:
        handler.say(text) if text in ("a", "b") else PASSING[trouble](handler)

    cache = ReplyCache(tmp_path / "replies.sqlite")
    requests = [ChatRequest("", (text,)) for text in "abcdefgh"]
    with serving(behave) as server:
        chat = Chat(Endpoint(params(server, max_retries=1, concurrency=2)), cache)
        with pytest.raises(UserError, match=r"does not answer: .*Finished calls are kept: run the same command again"):
            chat.ask_all(requests)
        assert chat.usage.calls == 2
        asked_before = len(server.bodies)
        server.behave = lambda handler, text, _: handler.say(text)
        again = Chat(Endpoint(params(server, max_retries=1, concurrency=2)), cache)
        found = again.ask_all(requests)
    assert [reply.text for reply in found if isinstance(reply, Reply)] == list("abcdefgh")
    assert (again.usage.calls, again.usage.remembered) == (6, 2)
    assert len(server.bodies) - asked_before == 6


def test_a_server_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    gone = EndpointParams(url="http://127.0.0.1:9/v1", model="m", max_retries=0)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1 does not answer: Connection error.* Is the server up"):
        open_chat(gone, ReplyCache(tmp_path / "replies.sqlite")).ask_all([ChatRequest("", ("a",))])


def test_a_key_that_is_missing_or_wrong_is_told_by_its_variable_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(lambda handler, *_: handler.fail(401, "Incorrect API key provided: secret-123")) as server:
        with pytest.raises(UserError, match="The environment variable NO_SUCH_KEY is not set"):
            asked(server, "a", api_key_env="NO_SUCH_KEY")
        monkeypatch.setenv("MY_KEY", "secret-123")
        with pytest.raises(UserError, match="The environment variable MY_KEY is set, but not accepted") as caught:
            asked(server, "a", api_key_env="MY_KEY")
        assert "secret" not in str(caught.value)
        server.behave = lambda handler, *_: handler.fail(400, "your key secret-123 is fine, your request is not")
        (failed,) = asked(server, "a", api_key_env="MY_KEY")
        assert isinstance(failed, Failed)
        assert "secret" not in failed.detail
    assert len(server.bodies) == 3, "neither is tried again"


def test_a_model_that_the_server_does_not_have_is_named() -> None:
    with (
        serving(lambda handler, *_: handler.fail(404, "The model `m` does not exist.")) as server,
        pytest.raises(UserError, match=r"has no model 'm', or is not the address of its API .*does not exist"),
    ):
        asked(server, "a")


ODD: dict[str, tuple[dict[str, Any], Reason]] = {
    "nothing": ({"text": ""}, Reason.EMPTY_REPLY),
    "no content": ({"text": None}, Reason.EMPTY_REPLY),
    "100,000 characters": ({"text": "x" * 100_000}, Reason.RUNAWAY_REPLY),
    "cut at the limit": ({"text": "and then", "finish": "length"}, Reason.RUNAWAY_REPLY),
    "a refusal": ({"text": None, "refusal": "No."}, Reason.REFUSED),
    "a filter": ({"text": "x", "finish": "content_filter"}, Reason.REFUSED),
    "a refusal in words": ({"text": "I'm sorry, but I can't help with that."}, Reason.REFUSED),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_reply_to_work_with_is_counted_with_its_reason_and_not_paid_twice(case: str, tmp_path: Path) -> None:
    said, reason = ODD[case]
    with serving(lambda handler, *_: handler.say(**said)) as server:
        chat = open_chat(params(server), ReplyCache(tmp_path / "replies.sqlite"))
        for _ in range(2):
            (failed,) = chat.ask_all([ChatRequest("", ("a",))])
            assert isinstance(failed, Failed)
            assert failed.reason is reason
            assert len(failed.detail) < 400
    assert len(server.bodies) == 1
    assert (chat.usage.calls, chat.usage.remembered, chat.usage.failed) == (1, 1, 2)


def test_tokens_and_money_are_counted_and_a_server_that_does_not_count_gives_zero(tmp_path: Path) -> None:
    with serving(lambda handler, text, _: handler.say(text, usage=text != "uncounted")) as server:
        settings = {"usd_per_million_input_tokens": 1000.0, "usd_per_million_output_tokens": 2000.0}
        chat = open_chat(params(server, **settings), ReplyCache(tmp_path / "replies.sqlite"))
        chat.ask_all([ChatRequest("", (text,)) for text in ("a", "b", "uncounted")])
    assert (chat.usage.calls, chat.usage.input_tokens, chat.usage.output_tokens) == (3, 20, 10)
    assert chat.usage.usd == pytest.approx(0.04)


def test_the_budget_stops_the_run_and_what_was_paid_for_is_kept(tmp_path: Path) -> None:
    settings = {"usd_per_million_input_tokens": 1e5, "budget_usd": 3.0, "concurrency": 2}  # 1 USD a call
    with serving(lambda handler, text, _: handler.say(text)) as server:
        chat = open_chat(params(server, **settings), ReplyCache(tmp_path / "replies.sqlite"))
        with pytest.raises(UserError, match=r"m has cost \d USD, and budget_usd is 3\. .*Finished calls are kept"):
            chat.ask_all([ChatRequest("", (str(number),)) for number in range(20)])
    assert 3 <= len(server.bodies) <= 4, "what was in flight is let finish"
    assert chat.usage.calls == len(server.bodies)


def test_calls_in_flight_reach_the_limit_and_never_pass_it_whoever_asks(tmp_path: Path) -> None:
    def slowly(handler: Handler, text: str, _: Any) -> None:
        time.sleep(0.05)
        handler.say(text)

    with serving(slowly) as server:
        chat = open_chat(params(server, concurrency=8), ReplyCache(tmp_path / "replies.sqlite"))
        batches = [[ChatRequest("", (f"{name}{number}",)) for number in range(64)] for name in "ab"]
        found: dict[int, list[Reply | Failed]] = {}
        threads = [
            threading.Thread(target=lambda at=at: found.update({at: chat.ask_all(batches[at])})) for at in range(2)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - began
    assert server.most_in_flight == 8
    assert took_s < 2 * 128 * 0.05 / 8, "most of the time they are all in flight"
    for at, name in enumerate("ab"):
        assert [one.text for one in found[at] if isinstance(one, Reply)] == [f"{name}{number}" for number in range(64)]


def test_requests_are_drawn_as_they_are_needed() -> None:
    drawn: list[int] = []

    def requests() -> Any:
        for number in range(100):
            drawn.append(number)
            yield number, ChatRequest("", (str(number),))

    with serving(lambda handler, *_: handler.say()) as server:
        replies = Endpoint(params(server, concurrency=4)).replies(requests(), lambda *_: None)
        next(replies)
        assert len(drawn) <= 8, "pictures of requests that wait fill the memory"


def test_calls_begin_evenly_spaced_if_the_server_wants_that() -> None:
    with serving(lambda handler, *_: handler.say()) as server:
        asked(server, *"abcdef", requests_per_minute=600, concurrency=6)
    gaps_s = np.diff(sorted(server.times_s))
    assert gaps_s.min() > 0.05
    assert max(server.times_s) - min(server.times_s) > 0.45


CLIENT = """
import sys
from pathlib import Path
from tpo.llm.chat import ChatRequest
from tpo.llm.load import open_chat
from tpo.params import EndpointParams
from tpo.replies import ReplyCache
chat = open_chat(EndpointParams(url=sys.argv[1], model="m", concurrency=4), ReplyCache(Path(sys.argv[2])))
chat.ask_all([ChatRequest("", (f"number {n}",)) for n in range(40)])
print(chat.usage.calls, chat.usage.remembered)
"""


def test_after_a_kill_no_finished_call_is_made_again(tmp_path: Path) -> None:
    def slowly(handler: Handler, text: str, _: Any) -> None:
        time.sleep(0.03)
        handler.say(text)

    with serving(slowly) as server:
        command = [sys.executable, "-c", CLIENT, server.url, str(tmp_path / "replies.sqlite")]
        with subprocess.Popen(command) as client:
            while server.num_answered < 12:
                assert client.poll() is None
                time.sleep(0.002)
            client.kill()
        time.sleep(0.2)
        before = len(server.bodies)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    calls, remembered = map(int, done.stdout.split())
    assert calls + remembered == 40
    assert calls == len(server.bodies) - before
    assert remembered >= 12 - 4, "but for those whose reply was on its way"
    texts = [body["messages"][-1]["content"] for body in server.bodies]
    assert len(texts) - len(set(texts)) <= 4, "those that were in flight"
