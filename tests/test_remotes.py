"""Data and models by `dvc push` and `dvc pull`, under the shipped .dvc/config: to a folder, and to an S3 server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
KEY, SECRET = "planted-key-id", "planted-secret-key"
# A pipeline of the project's shape: added videos, a stage with cached outputs, one with a report that git keeps.
PIPELINE = """
stages:
  train:
    cmd: mkdir -p models/tuned && cat data/videos/*.mp4 > models/tuned/model.safetensors
    deps: [data/videos]
    outs: [models/tuned]
  evaluate:
    cmd: mkdir -p reports && wc -c < models/tuned/model.safetensors > reports/metrics.json
    deps: [models/tuned]
    metrics:
      - reports/metrics.json: {cache: false}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "AWS_"))}
    site = str(tmp_path_factory.mktemp("dvc"))
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return kept | author | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": site, "PATH": path}


def say(folder: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A project whose videos are added and whose stages have run, committed."""
    folder = tmp_path_factory.mktemp("remotes") / "project"
    (folder / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.yaml").write_text(PIPELINE)
    videos = folder / "data/videos"
    videos.mkdir(parents=True)
    for number in range(3):
        (videos / f"{number}.mp4").write_bytes(os.urandom(10_000))
    say(folder, environment, "git", "init", "-q")
    say(folder, environment, "dvc", "add", "-q", "data/videos")
    say(folder, environment, "dvc", "repro", "-q")
    say(folder, environment, "git", "add", ".")
    say(folder, environment, "git", "add", "-f", "reports/metrics.json")
    say(folder, environment, "git", "commit", "-qm", "run")
    return folder


def comes_back(project: Path, clone: Path, environment: dict[str, str]) -> None:
    """Pushed from the one, a fresh clone with the same remote pulls all of it and has nothing to do."""
    pushed = say(project, environment, "dvc", "push")
    assert "6 files pushed" in pushed, "three videos, a model, two folders"
    say(clone, environment, "dvc", "pull")
    for name in ("data/videos/0.mp4", "models/tuned/model.safetensors"):
        assert (clone / name).read_bytes() == (project / name).read_bytes()
    assert "up to date" in say(clone, environment, "dvc", "status")
    assert "in sync" in say(clone, environment, "dvc", "status", "--cloud")


def set_remote(*projects: Path, **settings: str) -> None:
    """As `dvc remote add --local -d store` and `dvc remote modify --local` write it, without a process for each."""
    lines = [
        "[core]",
        "    remote = store",
        "['remote \"store\"']",
        *(f"    {key} = {settings[key]}" for key in settings),
    ]
    for project in projects:
        (project / ".dvc/config.local").write_text("\n".join(lines) + "\n")


def cloned(project: Path, tmp_path: Path, environment: dict[str, str]) -> Path:
    say(tmp_path, environment, "git", "clone", "-q", str(project), "clone")
    return tmp_path / "clone"


def test_a_fresh_clone_gets_data_and_models_from_a_folder(
    project: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    clone = cloned(project, tmp_path, environment)
    set_remote(project, clone, url=str(tmp_path / "store"))
    comes_back(project, clone, environment)


@pytest.fixture
def s3() -> Iterator[str]:
    """A server on loopback that speaks S3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            ends_at = time.monotonic() + 100
            while not _is_up(f"http://127.0.0.1:{port}"):
                assert time.monotonic() < ends_at
                assert server.poll() is None
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_a_fresh_clone_gets_data_and_models_from_s3_and_the_keys_are_written_nowhere(
    project: Path, tmp_path: Path, environment: dict[str, str], s3: str
) -> None:
    import boto3

    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    boto3.client(
        "s3", endpoint_url=s3, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    ).create_bucket(Bucket="videos")
    clone = cloned(project, tmp_path, environment)
    set_remote(project, clone, url="s3://videos/dvc", endpointurl=s3)
    comes_back(project, clone, environment | keys)
    for folder in (project, clone, Path(environment["DVC_SITE_CACHE_DIR"])):
        for path in folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert not {key for key in (KEY, SECRET) if key.encode() in content}, path
    assert say(clone, environment, "git", "status", "--porcelain") == "", ".dvc/config.local is no part of the commit"
