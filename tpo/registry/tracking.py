"""MLflow runs: every stage leaves one, with its parameters, figures, manifest and where its code and data came from.

    run_id = log_stage("train", "tpo", params=params, metrics=metrics, history=trainer.state.log_history)

The server is `MLFLOW_TRACKING_URI`; without it, `mlflow.db` in the current folder. Look with
`mlflow ui --backend-store-uri sqlite:///mlflow.db`.
"""

import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tpo.errors import UserError
from tpo.errors import redact as redact

DEFAULT_URI = "sqlite:///mlflow.db"
_MOST_METRICS = 1000  # MLflow refuses larger batches
_MOST_PARAMS = 100
# What every run changes, and what travels with a registered version: settings, and DVC's records of stages and data.
_RECORDED = ("params.yaml", "dvc.lock", "*/dvc.lock", "*.dvc")


def tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def connect() -> None:
    """Point MLflow, its registry too, at `tracking_uri()`.

    A server's user and password go to MLflow apart from its address, which it prints.

    Raises:
        UserError: the address has one of the two alone.
    """
    import mlflow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for every load of a few files
    # Among the facts that a command prints, as JSON for one, it would print where the run can be seen.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # forty lines for a new database
    uri = tracking_uri()
    server = urlsplit(uri)
    if server.scheme in ("http", "https") and "@" in server.netloc:
        if not (server.username and server.password):
            raise UserError(
                f"MLFLOW_TRACKING_URI {redact(uri)} has a user or a password alone. Take it out, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
            )
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(server.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(server.password)
        uri = server._replace(netloc=server.netloc.rpartition("@")[2]).geturl()
    mlflow.set_tracking_uri(uri)


@contextmanager
def readable_errors(what: str, *others: type[Exception]) -> Iterator[None]:
    """What MLflow refuses, and a server that is away, as a message.

    Args:
        what: was tried, to be said behind "could not".
        others: of the programs of the store where files are (S3 and others), whose errors have nothing in common.

    Raises:
        UserError: in the place of MLflow's errors, those of the connection to it, and `others`.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    told: tuple[type[Exception], ...] = (MlflowException, RequestException, *others)
    try:
        yield
    except told as error:
        said = (redact(str(error)).splitlines() or [type(error).__name__])[0].removesuffix(".")
        raise UserError(
            f"MLflow ({redact(tracking_uri())}) could not {what}: {said}. Is "
            "MLFLOW_TRACKING_URI right, and does the server run? Then run the same command again."
        ) from error


def provenance() -> dict[str, str]:
    """Tags that say where this comes from, as far as it is known.

    Git commit, whether files were edited since (settings and DVC's records apart), sha256 of `dvc.lock`, and the id of
    the scheduled pipeline that runs it (`TPO_PIPELINE_ID`).
    """
    tags = {}
    commit = _git("rev-parse", "HEAD")
    if commit:
        edited = _git("status", "--porcelain", "-uno", "--", ".", *(f":(exclude){path}" for path in _RECORDED))
        tags = {"git_sha": commit, "git_edited": str(bool(edited)).lower()}
    lock = Path("dvc.lock")
    if lock.is_file():
        tags["dvc_lock_sha256"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    if pipeline := os.environ.get("TPO_PIPELINE_ID"):
        tags["pipeline_id"] = pipeline
    return tags


def recorded() -> list[Path]:
    """The files that, with the commit, bring code and data back: settings, and DVC's records of stages and data."""
    # -z: git would quote names that are not ASCII.
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_RECORDED)
    names = {"params.yaml", "dvc.lock", *listed.split("\0")}
    return [path for path in map(Path, sorted(names)) if path.is_file()]


def locked_inputs(stage: str) -> dict[str, str]:
    """What a stage last read, by path: DVC's hashes in `dvc.lock`; nothing where DVC did not run it."""
    lock = Path("dvc.lock")
    if not lock.is_file():
        return {}
    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
    return {dep["path"]: dep["md5"] for dep in stages.get(stage, {}).get("deps", []) if "md5" in dep}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:  # a container without git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"train": {"beta": 0.3}} → {"train.beta": "0.3"}, redacted."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = redact(str(value))
    return flat


def flatten_metrics(numbers: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"mlvu": {"difference": 0.1, "note": "…"}} → {"mlvu.difference": 0.1}: what MLflow can draw."""
    flat: dict[str, float] = {}
    for key, value in numbers.items():
        if isinstance(value, Mapping):
            flat |= flatten_metrics(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = float(value)
    return flat


@contextmanager
def start_run(
    stage: str, experiment: str, *, params: Mapping[str, Any], tags: Mapping[str, str] | None = None
) -> Iterator[str]:
    """An MLflow run named `stage` around a block; gives its id. It is marked failed when the block raises.

    Raises:
        UserError: the server is away, or its address is none.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    connect()
    try:
        mlflow.set_experiment(experiment)
    except MlflowException as error:
        raise UserError(
            f"MLflow at {redact(tracking_uri())} cannot be used: {redact(error.message)} Is MLFLOW_TRACKING_URI right, "
            "and the server up? Run the same command again then; it goes on where it stopped."
        ) from None
    all_tags = {"stage": stage, **provenance(), **(tags or {})}
    with mlflow.start_run(run_name=stage, tags={key: redact(value) for key, value in all_tags.items()}) as run:
        flat = list(flatten(params).items())
        for first in range(0, len(flat), _MOST_PARAMS):
            mlflow.log_params(dict(flat[first : first + _MOST_PARAMS]))
        yield run.info.run_id


def log_stage(
    stage: str,
    experiment: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    artifacts: Sequence[Path] = (),
    history: Iterable[Mapping[str, Any]] = (),
    tags: Mapping[str, str] | None = None,
) -> str:
    """Record a finished stage as one run and return the run's id.

    Args:
        artifacts: text files (manifests, reports); stored under their folder's name, redacted.
        history: a trainer's `state.log_history`; every number in it becomes a point of a curve at its step.
    """
    with start_run(stage, experiment, params=params, tags=tags) as run_id:
        _log_curves(run_id, history)
        log_outcome(metrics, artifacts)
    return run_id


def log_outcome(metrics: Mapping[str, float], artifacts: Sequence[Path] = ()) -> None:
    """Figures and text files of what a run came to, to the run that is active; see `log_stage`."""
    import mlflow

    mlflow.log_metrics(dict(metrics))
    for path in artifacts:
        mlflow.log_text(redact(path.read_text(encoding="utf-8")), f"{path.absolute().parent.name}/{path.name}")


def _log_curves(run_id: str, history: Iterable[Mapping[str, Any]]) -> None:
    import mlflow
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    points = [
        Metric(key, value, now_ms, int(entry["step"]))
        for entry in history
        for key, value in flatten_metrics(entry).items()
        if key != "step"
    ]
    client = mlflow.MlflowClient()
    for first in range(0, len(points), _MOST_METRICS):
        client.log_batch(run_id, metrics=points[first : first + _MOST_METRICS])
