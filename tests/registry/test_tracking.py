"""What lands in MLflow: parameters, figures, curves, provenance, and no secrets."""

import json
import subprocess
from pathlib import Path

import pytest

from tpo.errors import UserError
from tpo.registry.tracking import (
    connect,
    flatten,
    flatten_metrics,
    locked_inputs,
    log_stage,
    provenance,
    readable_errors,
    redact,
    start_run,
)


def test_users_and_passwords_of_addresses_are_taken_out():
    assert redact("postgresql://me:s3cret@db.example/mlflow") == "postgresql://***@db.example/mlflow"
    assert redact("a https://tok3n@host/x and s3://bucket/key@2") == "a https://***@host/x and s3://bucket/key@2"
    assert redact("http://u:p@ss@host/") == "http://***@host/"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host=db user=me password=s3cret dbname=mlflow", "host=db user=me password=*** dbname=mlflow"),
        (r"password = 's3cret \' of two' host=db", "password = *** host=db"),
        ('{"dsn": "host=db password=s3cret"}', '{"dsn": "host=db password=***"}'),
        ("Server=db;UID=me;PWD=s3cret;Database=x", "Server=db;UID=me;PWD=***"),
        ("host=db password=s,3;c&r)e't port=1", "host=db password=*** port=1"),
        ("AccountName=me;AccountKey=s3cret==;Suffix=x", "AccountName=me;AccountKey=***"),
        ('connect(password="s3cret")', "connect(password=***)"),
        ("PGPASSWORD=s3cret psql", "PGPASSWORD=*** psql"),
        ("postgresql://db/x?user=me&password=s3cret", "postgresql://db/x?user=me&password=***"),
        ("connect(password='s3cret', host='db')", "connect(password=***, host='db')"),
        ("http://h/x?password=s3cret&page=2", "http://h/x?password=***&page=2"),
        ("http://h/x?page=2&token=s3cret#part", "http://h/x?page=2&token=***"),
        ("the password is asked for", "the password is asked for"),
        ("max_new_tokens=12 passed=3", "max_new_tokens=12 passed=3"),
    ],
)
def test_passwords_and_tokens_in_queries_and_among_keywords_are_taken_out(text: str, shown: str):
    assert redact(text) == shown
    assert redact(shown) == shown
    assert json.loads(redact(json.dumps([text, "its next"]))) == [shown, "its next"]


def test_parameters_are_flattened_with_dots_and_redacted():
    params = {"train": {"beta": 0.3, "lora": {"r": 8}}, "url": "http://u:p@host"}
    assert flatten(params) == {"train.beta": "0.3", "train.lora.r": "8", "url": "http://***@host"}


def test_nested_figures_are_flattened_and_what_is_no_number_is_left_out():
    tree = {"mlvu": {"difference": 0.1, "num_items": 3, "note": "text", "complete": True}, "seconds": 2}
    assert flatten_metrics(tree) == {"mlvu.difference": 0.1, "mlvu.num_items": 3.0, "seconds": 2.0}


def test_provenance_names_the_commit_and_the_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance() == {}
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    (tmp_path / "code.py").write_text("one\n")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "."], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, "commit", "-qm", "first"], check=True)
    tags = provenance()
    assert len(tags["git_sha"]) == 40
    assert tags["git_edited"] == "false"
    (tmp_path / "dvc.lock").write_text("schema: '2.1'\n")
    assert provenance()["git_edited"] == "false", "that is what DVC writes while it runs"
    assert provenance()["dvc_lock_sha256"] != tags["dvc_lock_sha256"]
    (tmp_path / "code.py").write_text("two\n")
    assert provenance()["git_edited"] == "true"
    monkeypatch.setenv("TPO_PIPELINE_ID", "nightly-7")
    assert provenance()["pipeline_id"] == "nightly-7"


def test_what_a_stage_read_is_named_by_dvcs_hashes_where_dvc_ran_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locked_inputs("train") == {}
    deps = "deps: [{path: data/videos, md5: abc.dir, size: 3}, {path: elsewhere, etag: x}]"
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  train: {{cmd: x, {deps}}}\n")
    assert locked_inputs("train") == {"data/videos": "abc.dir"}
    assert locked_inputs("evaluate") == {}


def test_a_server_that_is_away_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # `connect` sets them, and this brings back what was there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = mlflow.get_tracking_uri()
    try:
        connect()
        with pytest.raises(UserError, match=r"could not look: .*same command") as raised, readable_errors("look"):
            mlflow.MlflowClient().search_experiments()
    finally:
        mlflow.set_tracking_uri(uri)
    assert "s3cret" not in str(raised.value)
    assert "127.0.0.1:9" in str(raised.value)


def test_a_stage_leaves_a_run_with_parameters_curves_and_a_redacted_manifest(tracking_folder: Path):
    import mlflow

    (tracking_folder / "tuned").mkdir()
    manifest = tracking_folder / "tuned" / "manifest.json"
    manifest.write_text('{"remote": "https://me:s3cret@host/x"}')
    history = [
        {"loss": 0.9, "epoch": 0.5, "step": 1, "note": "text is no point of a curve"},
        {"loss": 0.4, "grad_norm": float("nan"), "step": 2},
    ]
    many = {f"p{i}": i for i in range(150)}  # more than MLflow takes at once
    run_id = log_stage(
        "train", "tpo", params={"train": {"beta": 0.3}} | many, metrics={"seconds": 3.5}, artifacts=[manifest],
        history=history, tags={"remote": "http://u:p@host"},
    )  # fmt: skip
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.beta"] == "0.3"
    assert len(run.data.params) == 151
    assert run.data.metrics["seconds"] == 3.5
    assert run.data.tags["stage"] == "train"
    assert run.data.tags["remote"] == "http://***@host"
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")] == [(1, 0.9), (2, 0.4)]
    assert (
        mlflow.artifacts.load_text(f"{run.info.artifact_uri}/tuned/manifest.json") == '{"remote": "https://***@host/x"}'
    )


def test_a_run_whose_block_raises_is_marked_failed(tracking_folder: Path):
    import mlflow

    with pytest.raises(RuntimeError), start_run("train", "tpo", params={}) as run_id:
        raise RuntimeError("out of memory")
    assert mlflow.MlflowClient().get_run(run_id).info.status == "FAILED"
