"""An OpenAI-compatible server that captions, asks and judges the demo world by rule: `python -m tpo.demo.provider`.

It stands in for a provider where there is none: it looks at the pictures it is sent, reads the captions, questions and
answers in the prompts, and replies in the form that is asked for. So everything between params.yaml and the server can
be tried offline. It knows coloured shapes and nothing else.
"""

import argparse
import base64
import hashlib
import io
import json
import re
import sys
import time
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from scipy.signal import fftconvolve

from tpo.curation.model_queries import TASKS
from tpo.demo.world import BACKGROUND, COLORS, SHAPES, SIZE_PX, Event, shape_mask
from tpo.llm.judging import agreement, words
from tpo.llm.rules import comprehensive_questions, localized_questions

_CAPTION = re.compile(r'^[\d.]+-[\d.]+ s: (".*")$', re.MULTILINE)
_CHARS_PER_TOKEN = 4


class Provider(ThreadingHTTPServer):
    """Serves until it is shut down. Counts what it was asked, and how much of it at once."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0, latency_s: float = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.latency_s = latency_s
        self.prompts: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.busy_s = 0.0
        self.lock = Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no error of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body go out apart, and would wait 40 ms for each other
    server: Provider

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        began = time.monotonic()
        with self.server.lock:
            self.server.in_flight += 1
            self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        prompt, pictures = _read(body["messages"][-1]["content"])
        text = reply(prompt, pictures)
        time.sleep(max(0.0, self.server.latency_s - (time.monotonic() - began)))
        with self.server.lock:
            self.server.in_flight -= 1
            self.server.busy_s += time.monotonic() - began
            self.server.prompts.append(prompt)
        self._send(_completion(body["model"], prompt, text))

    def _send(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Calls are counted, not printed."""


def _completion(model: str, prompt: str, text: str) -> dict[str, Any]:
    used = {"prompt_tokens": len(prompt) // _CHARS_PER_TOKEN, "completion_tokens": len(text) // _CHARS_PER_TOKEN}
    return {
        "id": "demo",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": used | {"total_tokens": sum(used.values())},
    }


def _read(content: str | list[dict[str, Any]]) -> tuple[str, list[np.ndarray]]:
    """The text of a message, its pictures named by their content, and the pictures as uint8 [h, w, 3]."""
    if isinstance(content, str):
        return content, []
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    files = [base64.b64decode(url.split(",", 1)[1]) for url in urls]
    texts = [part["text"] for part in content if part["type"] == "text"]
    text = "\n".join([*texts, *(f"[picture {hashlib.sha256(file).hexdigest()}]" for file in files)])
    return text, [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


def reply(prompt: str, pictures: list[np.ndarray]) -> str:
    """What is said to a caption's, an asker's, a judge's or a blind prompt."""
    if pictures:
        return ", then ".join(dict.fromkeys(map(see, pictures)))
    if "Wanted: " in prompt:
        return _ask(prompt)
    if "1. Is Answer 1 better" in prompt:
        return _judge(prompt)
    if "Reference answer: " in prompt:
        reference, *answers = (_quoted(prompt, f"{name}: ") for name in _compared(prompt))
        same = ("Yes" if agreement(answer, reference) == 1 else "No" for answer in answers)
        return "\n".join(f"{number}: {one}" for number, one in enumerate(same, start=1))
    return f"{sorted(SHAPES)[len(prompt) % len(SHAPES)]}"


def see(pixels: np.ndarray) -> str:
    """The one thing in a picture: its colour by the mean, its shape by the best match of all shapes at all places."""
    image = np.asarray(Image.fromarray(pixels).resize((SIZE_PX, SIZE_PX)), np.float32)
    distance = np.linalg.norm(image - np.asarray(BACKGROUND, np.float32), axis=-1)
    thing = distance > distance.max() / 2
    color = min(COLORS, key=lambda name: float(np.linalg.norm(image[thing].mean(0) - COLORS[name])))
    cover = np.clip(distance / np.linalg.norm(np.subtract(COLORS[color], BACKGROUND)), 0, 1)
    shape = max(SHAPES, key=lambda name: float(fftconvolve(cover - 0.3, _template(name), mode="same").max()))
    return Event(0, 1, color, shape).caption


@lru_cache(maxsize=len(SHAPES))
def _template(shape: str) -> np.ndarray:
    """Of norm 1 and mean 0, turned over for a convolution."""
    mask = shape_mask(shape, SIZE_PX * 5 // 8)[::-1, ::-1]
    mask = mask - mask.mean()
    normed: np.ndarray = mask / np.linalg.norm(mask)
    return normed


def _ask(prompt: str) -> str:
    captions = [json.loads(text) for text in _CAPTION.findall(prompt)]
    kind = next(kind for kind, task in TASKS.items() if task in prompt)
    whole = "about the whole video" in prompt
    questions = comprehensive_questions(captions) if whole else localized_questions(captions, captions)
    wanted = [one for one in questions if one.question_type == kind]
    if not wanted:
        return "None"
    chosen = wanted[len(prompt) % len(wanted)]
    return f"Q: {chosen.question}\nA: {chosen.answer}"


def _judge(prompt: str) -> str:
    """What the rule judge says, of the answer that is examined."""
    examined = 2 if "Answer 2 correct" in prompt else 1
    first, second = _quoted(prompt, "Answer 1: "), _quoted(prompt, "Answer 2: ")
    reference = _quoted(prompt, "Reference answer, by the one who asked: ")
    mine, theirs = agreement(first, reference), agreement(second, reference)
    better = "Equally" if mine == theirs else "Yes" if mine > theirs else "No"
    answer = first if examined == 1 else second
    known = {word for text in [*_CAPTION.findall(prompt), reference] for word in words(text)}
    conflict = "No" if set(words(answer)) <= known else "Yes"
    return f"1: {better}\n2: {conflict}\n3: {'Yes' if words(answer) == words(reference) else 'No'}"


def _compared(prompt: str) -> list[str]:
    return ["Reference answer", *re.findall(r"^(Answer \d+): ", prompt, re.MULTILINE)]


def _quoted(prompt: str, label: str) -> str:
    """The text in quotes behind a label at the beginning of a line."""
    found = re.search(rf'^{re.escape(label)}(".*?(?<!\\)")', prompt, re.MULTILINE)
    return str(json.loads(found[1])) if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--latency-s", type=float, default=0, help="that a call takes at least")
    args = parser.parse_args()
    with Provider(args.port, args.latency_s) as server:
        print(f"Serving at {server.url}; end it with Ctrl-C.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"{len(server.prompts)} calls.")


if __name__ == "__main__":
    main()
