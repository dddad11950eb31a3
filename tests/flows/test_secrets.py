"""Secrets that a user may have are planted everywhere; after real stages they are in no file, database or message."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import all_must_work, edit_params, finish

from tpo.demo.build import build_videos
from tpo.demo.provider import Provider
from tpo.errors import UserError
from tpo.params import load_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
# In these variables and nowhere else. The server's own users and ours must agree, so that one is used in earnest.
PREFECT = "admin:planted-prefect"
SECRETS = {
    "OPENAI_API_KEY": "planted-openai",
    "KEY_OF_MY_PROVIDER": "planted-provider",
    "AWS_ACCESS_KEY_ID": "planted-aws-id",
    "AWS_SECRET_ACCESS_KEY": "planted-aws",
    "HF_TOKEN": "planted-hf",
    "MLFLOW_TRACKING_TOKEN": "planted-mlflow-token",
    "PREFECT_API_AUTH_STRING": PREFECT,
    "PREFECT_SERVER_API_AUTH_STRING": PREFECT,
    "PREFECT_SERVER_DATABASE_PASSWORD": "planted-database",
}
RUN = """
from tpo.params import load_params
from tpo.registry.tracking import log_stage
params = load_params().model_dump(mode="json") | {"by hand": "http://me:planted-param@host/v1?key=planted-query"}
tags = {"data": "s3://me:planted-tag@host/x", "dsn": "host=db password=planted-dsn", "query": "/?password=planted-q"}
print(log_stage("train", "tpo", params=params, metrics={}, tags=tags))
"""


@pytest.fixture(scope="module")
def planted(without_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return without_server | SECRETS | {"PREFECT_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, planted: dict[str, str], provider: Provider) -> Path:
    """Videos captioned and asked about by a model with a key, in a git repository whose remote has a password."""
    folder = tmp_path_factory.mktemp("secrets")
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, by_model(provider.url))
    build_videos(folder / "data/demo/videos", load_params(folder / "params.yaml").demo)
    (folder / "data/demo/benchmarks").mkdir(parents=True)
    for command in (["init", "-q"], ["remote", "add", "origin", "https://me:planted-git@127.0.0.1/x.git"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    said = all_must_work(("ingest", "caption", "ask"), folder, planted)
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, env=planted, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(said + done.stdout + done.stderr)
    return folder


def by_model(url: str) -> Any:
    def edit(settings: dict[str, Any]) -> None:
        model = {"url": url, "model": "demo", "api_key_env": "KEY_OF_MY_PROVIDER"}
        settings["caption"] |= {"source": model, "segment_s": 10}
        settings["ask"] |= {"asker": model, "localized_per_video": 1, "comprehensive_per_video": 1}
        settings["demo"] |= {"num_train_videos": 2}

    return edit


def leaks(*folders: Path) -> list[tuple[str, bytes]]:
    """Files that hold something planted. Git's own note of its remote is the place for it."""
    return [
        (str(path), content[at : at + 30])
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
        for content in [path.read_bytes()]
        if (at := content.find(b"planted-")) >= 0
    ]


def test_after_stages_and_a_logged_run_nothing_planted_is_anywhere(project: Path, planted: dict[str, str]) -> None:
    assert (project / ".tpo/replies.sqlite").is_file()
    assert (project / "mlflow.db").is_file()
    assert (Path(planted["PREFECT_HOME"]) / "prefect.db").is_file(), "or nothing was searched"
    assert leaks(project, Path(planted["PREFECT_HOME"])) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"url": "http://me:planted-url@127.0.0.1:9/v1"}, "a password or key does not belong here"),
        ({"url": "http://127.0.0.1:9/v1?api_key=planted-query"}, "a password or key does not belong here"),
        ({"api_key_env": "planted-as-name"}, "ask.asker.api_key_env"),
    ],
)
def test_a_secret_in_the_settings_is_refused_and_not_repeated(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    """Before anything is kept: DVC would write it to dvc.lock, for git."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    edit_params(tmp_path, by_model("http://127.0.0.1:9/v1"))
    edit_params(tmp_path, lambda settings: settings["ask"]["asker"].update(change))
    with pytest.raises(UserError, match=told) as raised:
        load_params(tmp_path / "params.yaml")
    assert "planted" not in str(raised.value)


def test_a_stage_whose_server_is_away_does_not_say_its_key(
    project: Path, tmp_path: Path, planted: dict[str, str]
) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "project"))
    nowhere = {"url": "http://127.0.0.1:9/v1", "max_retries": 0, "model": "other"}
    edit_params(copy, lambda settings: settings["ask"]["asker"].update(nowhere))
    code, out, err = finish("ask", copy, planted)
    assert (code, "does not answer" in err) == (1, True), err
    (copy / "said.txt").write_text(out + err)
    assert leaks(copy, Path(planted["PREFECT_HOME"])) == []


@pytest.mark.parametrize(
    "uri", ["http://me:planted-password@127.0.0.1:9", "postgresql+a+b://me:planted-password@127.0.0.1:9/mlflow"]
)
def test_a_tracking_server_that_is_away_or_wrong_is_told_without_its_password(
    tmp_path: Path, planted: dict[str, str], uri: str
) -> None:
    away = planted | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=away, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "127.0.0.1" in done.stderr, "it is named"
    assert "planted-password" not in done.stdout + done.stderr
