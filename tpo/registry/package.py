"""The model registry: package a tuned model for MLflow, make it challenger, and move `champion` when the gate says so.

    version = register(Path("models/tuned"), base="demo/checkpoint", name="tpo-demo", ..., run_id=run_id)
    challenge("tpo-demo", version)
    promotion = promote("tpo-demo", version, decision)

Aliases: `challenger` is the newest candidate, `champion` the promoted one, `previous` the champion before it (moving
`champion` back there is the rollback). Whoever loads a registered model runs the `tpo` code that travels with it.
"""

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tpo.errors import UserError
from tpo.records import GateDecision, Record
from tpo.registry.champion import CHAMPION
from tpo.registry.tracking import connect, provenance, redact
from tpo.store import digest

CHALLENGER, PREVIOUS = "challenger", "previous"
# What `tpo.models`, `tpo.video` and `tpo.params` import; pinned to the versions the model was measured with.
_REQUIREMENTS = ("av", "mlflow", "numpy", "peft", "pydantic", "pyyaml", "safetensors", "torch", "transformers")
_NEEDED_TO_SERVE = ("num_frames", "max_new_tokens", "model")
_PACKAGE = Path(__file__).parents[1]


class Promotion(Record):
    """What became of the aliases."""

    promoted: bool
    version: str
    champion: str | None
    previous: str | None
    reason: str


class RegisteredVersion(Record):
    version: str
    aliases: tuple[str, ...]
    run_id: str | None
    tags: dict[str, str]


def register(
    model_dir: Path,
    *,
    base: str,
    base_revision: str | None,
    name: str,
    measured_with: Mapping[str, Any],
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    run_id: str,
    example: Mapping[str, str],
) -> str:
    """Package a tuned model, prove that the package answers, and register it as a new version.

    Args:
        model_dir: a full checkpoint, or an adapter; an adapter's base is recorded, not uploaded.
        base: hub id or folder of the base model; of a folder the content digest is recorded too.
        measured_with: how the model was evaluated, JSON values; at least num_frames, max_new_tokens and model (the
            settings it was loaded with), which the served model then uses.
        tags: of the version, such as validation_status.
        metrics: logged to the run, linked to the model.
        run_id: the run that made the model; the packaged model is stored in it.
        example: a real row {"video": path, "question": text}. MLflow's own `input_example` only warns when the model
            cannot answer it; here that is an error, before anything is registered.

    Returns:
        The new version.

    Raises:
        UserError: the folder holds no model, the adapter belongs to another base, or the example's video is unusable.
    """
    import mlflow

    missing = [key for key in _NEEDED_TO_SERVE if key not in measured_with]
    if missing:
        raise ValueError(f"measured_with lacks {missing}")
    os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")  # it would ask the package index
    connect()
    with _artifact(model_dir, base, base_revision) as (folder, base_digest), mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("serving_model.py")),
            artifacts={"checkpoint": str(folder)},
            code_paths=[str(_PACKAGE)],
            pip_requirements=_requirements(),
            model_config={**measured_with, "base": base, "base_revision": base_revision, "base_digest": base_digest},
        )
        mlflow.log_metrics(dict(metrics), model_id=logged.model_id)
    mlflow.pyfunc.load_model(logged.model_uri).predict([dict(example)])
    version = mlflow.register_model(
        logged.model_uri,
        name,
        tags={
            **provenance(),
            **{key: redact(value) for key, value in tags.items()},
            "train_run_id": run_id,
            "measured_with": redact(json.dumps(dict(measured_with), sort_keys=True)),
            "base": redact(base),
        },
    ).version
    return str(version)


def challenge(name: str, version: str) -> None:
    """Make a version the `challenger`."""
    import mlflow

    connect()
    mlflow.MlflowClient().set_registered_model_alias(name, CHALLENGER, version)


def promote(name: str, version: str, decision: GateDecision) -> Promotion:
    """Move `champion` to a version if the gate's decision says so; the decision is kept on the version either way.

    `previous` is set before `champion` moves: killed in between, the same call simply finishes.

    Raises:
        UserError: there is no such version.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    connect()
    client = mlflow.MlflowClient()
    try:
        client.get_model_version(name, version)
    except MlflowException as error:
        raise UserError(f"The registered model {name!r} has no version {version}. See `tpo registry`.") from error
    client.set_model_version_tag(name, version, "gate_promote", str(decision.promote).lower())
    client.set_model_version_tag(name, version, "gate_summary", redact(decision.summary))
    client.set_model_version_tag(name, version, "gate_decision", redact(decision.model_dump_json()))
    aliases = {alias: str(held) for alias, held in client.get_registered_model(name).aliases.items()}
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    if decision.promote and champion != version:
        if champion is not None:
            client.set_registered_model_alias(name, PREVIOUS, champion)
            previous = champion
        client.set_registered_model_alias(name, CHAMPION, version)
        champion = version
    return Promotion(
        promoted=decision.promote, version=version, champion=champion, previous=previous, reason=decision.summary
    )


def versions(name: str) -> list[RegisteredVersion]:
    """All versions of a registered model, newest first; none when nothing of that name was registered."""
    import mlflow

    connect()
    client = mlflow.MlflowClient()
    found = client.search_registered_models(filter_string=f"name = '{name}'")
    if not found:
        return []
    return [
        RegisteredVersion(
            version=str(version.version),
            aliases=tuple(sorted(a for a, held in found[0].aliases.items() if str(held) == str(version.version))),
            run_id=version.run_id,
            tags=dict(version.tags),
        )
        for version in sorted(
            client.search_model_versions(f"name = '{name}'"), key=lambda one: int(one.version), reverse=True
        )
    ]


def load_registered(uri: str) -> Any:
    """The MLflow pyfunc model behind `models:/NAME@ALIAS`.

    Raises:
        UserError: there is no such model, version or alias.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    connect()
    try:
        return mlflow.pyfunc.load_model(uri)
    except MlflowException as error:
        raise UserError(
            f"{uri} could not be loaded: {redact(error.message)}. `tpo registry` shows what there is."
        ) from error


def _requirements() -> list[str]:
    """Exact versions; a local build label such as `+cpu` is dropped, because no package index knows it."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in _REQUIREMENTS]


@contextmanager
def _artifact(model_dir: Path, base: str, base_revision: str | None) -> Iterator[tuple[Path, str | None]]:
    """The folder to upload, and the digest of the base model if serving will need that from a local folder."""
    config_file = model_dir / "adapter_config.json"
    if not config_file.is_file():
        if not (model_dir / "config.json").is_file():
            raise UserError(f"{model_dir} holds no model (no config.json or adapter_config.json). Run `dvc repro`.")
        yield model_dir, None
        return
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if config["base_model_name_or_path"] != base:
        raise UserError(
            f"The adapter in {model_dir} was trained on {config['base_model_name_or_path']!r}, not on {base!r} as "
            "model.base says. Set model.base back, or train again with `dvc repro train`."
        )
    with tempfile.TemporaryDirectory() as scratch:  # a copy, because the base's pinned revision is written into it
        folder = Path(scratch) / "adapter"
        shutil.copytree(model_dir, folder)
        (folder / config_file.name).write_text(json.dumps(config | {"revision": base_revision}, indent=2))
        yield folder, digest(Path(base)) if Path(base).is_dir() else None
