"""The client against a server that is not ours: transformers' own, over a tiny checkpoint, in a process of its own."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_chat import save_image_model, save_text_model
from transformers import AutoTokenizer

from tpo.llm.chat import ChatRequest, Picture, Reply
from tpo.llm.endpoint import Endpoint
from tpo.llm.local import Local
from tpo.params import EndpointParams, LocalParams

_END = 267  # <|im_end|>

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[save_text_model, save_image_model])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = request.param(tmp_path_factory.mktemp("served") / "tiny")
    # Of a Qwen decoder this server gives special tokens that a random model writes as text; a trained one writes none.
    file = folder / "generation_config.json"
    special = [token for token in AutoTokenizer.from_pretrained(folder).added_tokens_decoder if token != _END]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"suppress_tokens": special}))
    return folder


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            until_s = time.monotonic() + 120
            while time.monotonic() < until_s:
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def test_a_server_of_the_library_answers_our_requests(folder: Path, url: str, tmp_path: Path) -> None:
    params = EndpointParams(url=url, model=str(folder), max_reply_tokens=8, max_retries=1)
    endpoint = Endpoint(params)
    parts: list[tuple[str | Picture, ...]] = [("What comes first?",), ("Why?",), ("What was red?",)]
    if "vision_config" in json.loads((folder / "config.json").read_text()):
        pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
        parts = [("At 1.0 s:", Picture.of(one, 64), "What is seen?") for one in pixels]
    found = dict(
        endpoint.replies([(n, ChatRequest("You help.", part)) for n, part in enumerate(parts)], lambda *_: None)
    )
    replies = [found[number] for number in range(3)]
    assert all(isinstance(reply, Reply) for reply in replies), replies
    # The same weights, loaded here, say the same: prompt, pictures and settings arrive as they are meant.
    here = Local(LocalParams(checkpoint=str(folder), dtype="float32", device="cpu", max_reply_tokens=8))
    expected = dict(
        here.replies([(n, ChatRequest("You help.", part)) for n, part in enumerate(parts)], lambda *_: None)
    )
    for number, reply in enumerate(replies):
        assert isinstance(reply, Reply)
        assert reply.text == getattr(expected[number], "text", None)
        assert reply.input_tokens == getattr(expected[number], "input_tokens", None)
        assert 0 < reply.output_tokens <= 8
