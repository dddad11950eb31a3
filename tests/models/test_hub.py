"""A hub id is fetched by the hub's own client, from a server on loopback, and only as far as it is needed."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny import load, save_tiny

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPOSITORIES = {"some/model": "llava_video", "some/other": "bert"}
SCRIPT = """
import sys
from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.params import ModelParams

for base in sys.argv[1:]:
    try:
        params = ModelParams(base=base, revision="v1", dtype="float32", device="cpu")
        print("LOADED", load_model(params).id)
    except UserError as error:
        print("REFUSED", error)
"""


class Hub:
    """Folders as repositories of which `v1` is the only revision, and what was asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = request.path.split("?")[0].strip("/")
        kind, _, rest = path.partition("/resolve/") if "/resolve/" in path else ("", "", path)
        if kind:
            revision, _, name = rest.partition("/")
            file = self.root / kind / name
            content = file.read_bytes() if file.is_file() and revision in ("v1", REVISION) else None
            if body:
                self.asked.append((kind, name))
        else:
            content = self.describe(path)
        if content is None:
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("ETag", f'"{hash(content):x}"')
        request.send_header("X-Repo-Commit", REVISION)
        request.end_headers()
        if body:
            request.wfile.write(content)

    def describe(self, path: str) -> bytes | None:
        """`api/models/NAME/revision/v1`, and `…/tree/v1`."""
        for name in REPOSITORIES:
            files = [file.name for file in (self.root / name).iterdir() if file.is_file()]
            if path.startswith(f"api/models/{name}/revision/"):
                told = {"id": name, "sha": REVISION, "siblings": [{"rfilename": file} for file in files]}
                return json.dumps(told).encode()
            if path.startswith(f"api/models/{name}/tree/"):
                sizes = {file: (self.root / name / file).stat().st_size for file in files}
                tree = [{"type": "file", "oid": "0", "size": size, "path": file} for file, size in sizes.items()]
                return json.dumps(tree).encode()
        return None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for name, model_type in REPOSITORIES.items():
        config = save_tiny("llava_video", tmp_path / "hub" / name) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": model_type}))
    hub = Hub(tmp_path / "hub")
    yield hub
    hub.server.shutdown()


def test_weights_are_downloaded_only_for_a_model_that_can_be_run(hub: Hub, tmp_path: Path) -> None:
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server.server_port}", "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "some/other", "some/missing", "some/model"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith(("LOADED", "REFUSED"))]
    assert len(said) == 3, done.stderr
    assert "is a 'bert' model; supported are" in said[0]
    assert "'some/missing' is neither a checkpoint folder nor a reachable hub id" in said[1]
    assert said[2] == f"LOADED {load(tmp_path / 'hub' / 'some/model').id}"
    fetched = {name: {file for repository, file in hub.asked if repository == name} for name in REPOSITORIES}
    assert "config.json" in fetched["some/other"]
    assert "model.safetensors" not in fetched["some/other"]
    assert "model.safetensors" in fetched["some/model"]
