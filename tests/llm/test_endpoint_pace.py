"""How fast requests go out, and that a killed client goes on: the limits hold whoever asks."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from misbehaving_server import Handler, asked, fails_first, params, serving

from tpo.llm.chat import ChatRequest, Failed, Reply
from tpo.llm.endpoint import Endpoint
from tpo.llm.load import open_chat
from tpo.replies import ReplyCache


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
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.most_in_flight == 8
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


def test_what_is_tried_again_waits_for_its_turn_too() -> None:
    with serving(lambda handler, *_: fails_first(handler, 3, lambda handler: handler.fail(429))) as server:
        asked(server, "a", requests_per_minute=600)
    assert np.diff(server.times_s).min() > 0.05


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
