"""A registered model behind `mlflow models serve`: a real server, asked over HTTP, well and badly."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video
from tpo.models.load import load_model
from tpo.params import ModelParams
from tpo.registry.ask import answer_file
from tpo.registry.package import register
from tpo.registry.tracking import log_stage
from tpo.video.probe import Prober

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
QUESTION, OTHER = "Which color is the star?", "What comes first?"
MEASURED_WITH = {"num_frames": 4, "max_new_tokens": 5, "model": {"dtype": "float32", "max_tokens": 200}}


@pytest.fixture(scope="module")
def project(tracking_folder: Path) -> Path:
    """Two versions of `demo`, the first of them champion; a folder of videos, and others outside of it."""
    import mlflow

    tokenizer = build_tokenizer()
    for seed, name in enumerate(("first", "second")):
        save_checkpoint(build_model(tokenizer, seed), tokenizer, tracking_folder / name)
    videos = tracking_folder / "videos"
    videos.mkdir()
    for number, path in enumerate((videos / "clip.mp4", videos / "other.mp4", tracking_folder / "secret.mp4")):
        write_video(path, plan_events(np.random.default_rng(number), 4), 0.0)
    (videos / "link.mp4").symlink_to(tracking_folder / "secret.mp4")
    (videos / "out").symlink_to(tracking_folder)
    (videos / "text.mp4").write_text("not a video")
    (videos / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:60\n#EXTINF:60,\n../secret.mp4\n#EXT-X-ENDLIST\n")
    for name in ("first", "second"):
        register(
            tracking_folder / name,
            base="base",
            base_revision=None,
            name="demo",
            measured_with=MEASURED_WITH,
            tags={},
            metrics={},
            run_id=log_stage("train", "tpo", params={}, metrics={}),
            example={"video": str(videos / "clip.mp4"), "question": QUESTION},
        )
    mlflow.MlflowClient().set_registered_model_alias("demo", "champion", "1")
    return tracking_folder


@contextmanager
def served(folder: Path, **variables: str) -> Iterator[str]:
    """`mlflow models serve` of the champion, as the README has it; this checkout is importable where it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/demo@champion"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path, "OMP_NUM_THREADS": "1"} | variables
    options = ["--env-manager", "local", "--port", str(port)]
    with (
        (folder / "server.log").open("w+") as log,
        subprocess.Popen(
            command + options, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as server,
    ):
        try:
            ends_at = time.monotonic() + 200
            while not _answers_ping(port):
                assert server.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < ends_at, (folder / "server.log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def _answers_ping(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ping").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[str]:
    with served(project, TPO_VIDEO_ROOT="videos") as url:
        yield url


def ask(url: str, body: Any) -> tuple[int, Any]:
    """Status and content of the response to a body, which is sent as it is if it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(url, content=content, headers={"Content-Type": "application/json"}, timeout=60)
    return response.status_code, response.json()


def about(video: str, question: str = QUESTION) -> dict[str, str]:
    return {"video": video, "question": question}


def answers_of(project: Path, model: str, *asked: dict[str, str]) -> list[str]:
    loaded = load_model(ModelParams(base=str(project / model), dtype="float32", device="cpu"))
    with Prober(project / "frames") as prober:
        return [
            answer_file(loaded, prober, str(project / "videos" / one["video"]), one["question"], 4, 5) for one in asked
        ]


def test_it_answers_in_the_order_of_the_rows_what_the_measured_model_answers(project: Path, server: str) -> None:
    asked = [about("clip.mp4"), about("other.mp4"), about("clip.mp4", OTHER), about("./clip.mp4")]
    status, said = ask(server, {"inputs": asked})
    assert (status, said) == (200, {"predictions": answers_of(project, "first", *asked)})
    absolute = [about(str(project / "videos/clip.mp4"))]
    assert ask(server, {"inputs": absolute})[1]["predictions"] == said["predictions"][:1]
    assert ask(server, {"inputs": []}) == (200, {"predictions": []})


def test_callers_at_the_same_time_get_what_each_gets_alone(project: Path, server: str) -> None:
    asked = [about(video, question) for video in ("clip.mp4", "other.mp4") for question in (QUESTION, OTHER)] * 3
    with ThreadPoolExecutor(12) as callers:
        said = list(callers.map(lambda one: ask(server, {"inputs": [one]}), asked))
    assert said == [(200, {"predictions": [answer]}) for answer in answers_of(project, "first", *asked)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([about("clip.mp4"), about("nowhere.mp4")], "Row 1: There is no video file 'nowhere.mp4'"),
        ([about("clip.mp4"), about("text.mp4")], "Row 1: 'text.mp4' cannot be used (unreadable)"),
        ([about("")], "Row 0: the video is empty"),
        ([about("clip.mp4", " ")], "Row 0: the question is empty"),
        ([about("clip.mp4", "\ud800")], "Row 0: the question holds half a character"),
        ([about("clip.mp4"), about("clip.mp4", "star " * 300)], "Row 1: the question (1500 characters) is longer than"),
        ([{"video": "clip.mp4"}], 'Row 0: expected the keys "video" and "question", got [\'video\']'),
        ([about("clip.mp4") | {"frames": "8"}], "got ['frames', 'question', 'video']"),
        ([{"video": "clip.mp4", "question": 3}], "Expected type str, but got int"),
        (["clip.mp4"], "Expected dict, but got str"),
        (about("clip.mp4"), "Expected list, but got dict"),
        ([about("c" * 5000)], "Row 0: There is no video file"),
        ([about("clip.mp4\0")], "Row 0: There is no video file"),
        ([about("out")], "Row 0: There is no video file"),
    ],
)
def test_a_callers_mistake_is_told_with_its_row_and_without_a_traceback(server: str, rows: Any, message: str) -> None:
    status, said = ask(server, {"inputs": rows})
    assert status == 400
    assert message in said["message"]
    assert "stack_trace" not in said


@pytest.mark.parametrize("body", [b"{", b"\xff", {"rows": []}, {"instances": [about("clip.mp4")]}, [], "text"])
def test_what_is_no_list_of_inputs_is_refused(server: str, body: Any) -> None:
    status, said = ask(server, body)
    assert status == 400
    assert "stack_trace" not in said


@pytest.mark.parametrize(
    "video", ["../secret.mp4", "link.mp4", "out/secret.mp4", "{project}/secret.mp4", "../nowhere.mp4", "/etc/passwd"]
)
def test_files_outside_the_folder_of_videos_are_not_looked_at(project: Path, server: str, video: str) -> None:
    """Nor is it told whether they are there."""
    name = video.format(project=project)
    status, said = ask(server, {"inputs": [about(name)]})
    assert status == 400
    assert f"There is no video file {name!r} in the folder that may be asked about." in said["message"]


def test_a_playlist_does_not_lead_out_of_the_folder(server: str) -> None:
    status, said = ask(server, {"inputs": [about("list.m3u8")]})
    assert status == 400
    assert "Row 0: 'list.m3u8' cannot be used (unreadable): a playlist, or in another format" in said["message"]


def test_moving_the_alias_and_restarting_serves_the_new_one_with_its_own_code_in_the_folder_it_starts_in(
    project: Path,
) -> None:
    """The code that travels with the second version says one thing in other words; this checkout is importable too."""
    import mlflow

    client = mlflow.MlflowClient()
    client.set_registered_model_alias("demo", "champion", "2")
    model_id = client.get_model_version("demo", "2").source.rpartition("/")[2]
    (code,) = project.glob(f"mlruns/*/models/{model_id}/artifacts/code/tpo/registry/ask.py")
    code.write_text(code.read_text().replace("There is no video file", "Nowhere is a video file"))
    shutil.copy(project / "videos/clip.mp4", project / "beside.mp4")
    with served(project) as url:
        expected = answers_of(project, "second", about("clip.mp4"))
        assert expected != answers_of(project, "first", about("clip.mp4")), "or nothing would be shown"
        assert ask(url, {"inputs": [about("beside.mp4")]}) == (200, {"predictions": expected})
        status, said = ask(url, {"inputs": [about("/etc/passwd")]})
    assert (status, "Row 0: Nowhere is a video file '/etc/passwd'" in said["message"]) == (400, True)
