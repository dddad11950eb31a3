"""A real HTTP server on loopback that answers chats as told, also wrongly, late, or not at all."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tpo.llm.chat import ChatRequest, Failed, Reply
from tpo.llm.endpoint import Endpoint
from tpo.params import EndpointParams

# The client honours this header, so that its backoff takes no time in tests.
SOON = {"retry-after-ms": "1"}


def completion(
    text: str | None, finish: str = "stop", refusal: str | None = None, usage: bool = True
) -> dict[str, Any]:
    counted = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    fields = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return fields | ({"usage": counted} if usage else {})


class Server(ThreadingHTTPServer):
    """`behave` answers each request by its handler, given the text of the user's turn and the body."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, behave: Callable[["Handler", str, dict[str, Any]], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times_s: list[float] = []
        self.num_answered = 0
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body go out apart, and would wait 40 ms for each other
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.times_s.append(time.monotonic())
        try:
            server.behave(self, text_of(body), body)
        finally:
            with server.lock:
                server.in_flight -= 1

    def say(self, text: str | None = "fine", **more: Any) -> None:
        self.send(200, json.dumps(completion(text, **more)))
        with self.server.lock:
            self.server.num_answered += 1

    def send(self, status: int, content: str, kind: str = "application/json", headers: dict[str, str] = SOON) -> None:
        data = content.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status: int, message: str = "no") -> None:
        self.send(status, json.dumps({"error": {"message": message}}))

    def cut(self) -> None:
        """Promise a body, send half of it, and hang up."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"id": "x", "cho')
        self.wfile.flush()
        self.close_connection = True

    def drip(self, duration_s: float) -> None:
        """Blanks, as some servers send them while they think, so that every single wait is short."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000")
        self.end_headers()
        until_s = time.monotonic() + duration_s
        while time.monotonic() < until_s:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.05)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def text_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "[picture]") for part in content)


@contextmanager
def serving(behave: Callable[[Handler, str, dict[str, Any]], None]) -> Iterator[Server]:
    with Server(behave) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def fails_first(handler: Handler, times: int, how: Any) -> None:
    """Fail so often, then answer."""
    handler.say() if len(handler.server.bodies) > times else how(handler)


def params(server: Server, **settings: Any) -> EndpointParams:
    return EndpointParams(**{"url": server.url, "model": "m", "max_retries": 4, "timeout_s": 20} | settings)


def asked(server: Server, *texts: str, **settings: Any) -> list[Reply | Failed]:
    """What becomes of one request for each text."""
    requests = [(number, ChatRequest("You help.", (text,))) for number, text in enumerate(texts)]
    found = dict(Endpoint(params(server, **settings)).replies(iter(requests), lambda *_: None))
    return [found[number] for number in range(len(texts))]
