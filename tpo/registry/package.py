"""The model registry: package a tuned model for MLflow, register it, and make it challenger with the gate's decision.

    version = register(Path("models/tuned"), base="demo/checkpoint", name="tpo-demo", ..., run_id=run_id)
    challenge("tpo-demo", version, decision)

A new version is never champion: `tpo.registry.promotion` moves that alias. Whoever loads a registered model runs the
`tpo` code that travels with it.
"""

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from tpo.errors import UserError
from tpo.records import GateDecision, Record
from tpo.registry.ask import find_video
from tpo.registry.stored import fetched, package_digest
from tpo.registry.tracking import connect, provenance, readable_errors, redact
from tpo.store import digest

CHALLENGER = "challenger"  # the alias of the newest candidate
DECISION = "gate_decision"  # the tag that keeps what the gate said
# What the code that travels with a model imports to answer; pinned to the versions the model was measured with.
REQUIREMENTS = (
    "accelerate",  # transformers places weights with it
    "av",
    "huggingface-hub",
    "imagehash",
    "mlflow",
    "numpy",
    "peft",
    "pillow",
    "pydantic",
    "pyyaml",
    "requests",
    "safetensors",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
)
_NEEDED_TO_SERVE = ("num_frames", "max_new_tokens", "model")
_PACKAGE = Path(__file__).parents[1]
_LONGEST_DESCRIPTION = 5000  # characters; PostgreSQL and MySQL take no more


class DataInput(Record):
    """Data that a model was made of or measured on, as DVC knows it."""

    path: str
    dvc_hash: str
    context: str = Field(description="training or evaluation")


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
    card: str = "",
    inputs: Sequence[DataInput] = (),
    project: Sequence[Path] = (),
) -> str:
    """Package a tuned model and register it as a new version. Whether it answers, `tpo.registry.proof` finds out.

    Args:
        model_dir: a full checkpoint, or an adapter; an adapter's base is recorded, not uploaded.
        base: hub id or folder of the base model; of a folder the content digest is recorded too.
        measured_with: how the model was evaluated, JSON values; at least num_frames, max_new_tokens and model (the
            settings it was loaded with), which the served model then uses.
        tags: of the version, such as validation_status.
        metrics: logged to the run, linked to the model.
        run_id: the run that made the model; the packaged model is stored in it.
        example: a real row {"video": path, "question": text}, which it is asked when it is proved.
        card: the model card, Markdown: in the package, and the version's description.
        inputs: become the run's MLflow datasets.
        project: text files that bring code and data back (`tpo.registry.tracking.recorded`), by paths in the project;
            those that are not there are left out.

    Returns:
        The new version. It appears with all its tags, or not at all.

    Raises:
        UserError: the folder holds no model, the adapter belongs to another base, or the example's video is not here.
    """
    import mlflow

    missing = [key for key in _NEEDED_TO_SERVE if key not in measured_with]
    if missing:
        raise ValueError(f"measured_with lacks {missing}")
    find_video(example["video"])
    os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")  # it would ask the package index
    connect()
    with (
        _checkpoint(model_dir, base, base_revision) as (checkpoint, base_digest),
        _beside(card, project) as beside,
        readable_errors(f"store the package of {name}", Exception),
        mlflow.start_run(run_id=run_id),
    ):
        _log_inputs(inputs)
        logged = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("serving_model.py")),
            artifacts={"checkpoint": str(checkpoint), **beside},
            code_paths=[str(_PACKAGE)],
            pip_requirements=_requirements(),
            model_config={**measured_with, "base": base, "base_revision": base_revision, "base_digest": base_digest},
        )
        _add_example(logged, example)
        mlflow.log_metrics(dict(metrics), model_id=logged.model_id)
    with fetched(logged.model_uri) as folder:
        stored = package_digest(folder)
    all_tags = {
        **provenance(),
        **tags,
        "train_run_id": run_id,
        "measured_with": json.dumps(dict(measured_with), sort_keys=True),
        "base": base,
        "base_revision": base_revision or "",
        "kind": "full" if checkpoint == model_dir else "adapter",
        "example": json.dumps(dict(example)),
        "package_digest": stored,
        **{f"data:{one.path}": one.dvc_hash for one in inputs},
    }
    with readable_errors(f"register {name}"):
        return _create_version(name, logged, {key: redact(value) for key, value in all_tags.items()}, card)


def _add_example(logged: Any, example: Mapping[str, str]) -> None:
    """MLflow's input example. Given to `log_model` it loads the model twice, asks it, and only warns if that fails."""
    import mlflow
    from mlflow.models import Model

    rows = [dict(example)]
    contents = {"input_example.json": rows, "serving_input_example.json": {"inputs": rows}}
    names = dict(zip(("artifact_path", "serving_input_path"), contents, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        described = Model.load(logged.model_uri)
        described.saved_input_example_info = {**names, "type": "json_object"}
        described.save(str(Path(folder) / "MLmodel"))
        mlflow.MlflowClient().log_model_artifacts(logged.model_id, folder)


def _create_version(name: str, logged: Any, tags: dict[str, str], card: str) -> str:
    """A version, in one step with its tags and description: `mlflow.register_model` takes no description."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    cut = "\n\n…\n\nThe whole card is artifacts/README.md in the package."
    text = card if len(card) <= _LONGEST_DESCRIPTION else card[: _LONGEST_DESCRIPTION - len(cut)] + cut
    version = client.create_model_version(
        name,
        source=logged.model_uri,
        run_id=logged.run_id,
        tags=tags,
        description=redact(text),
        model_id=logged.model_id,
    )
    return str(version.version)


def challenge(name: str, version: str, decision: GateDecision) -> None:
    """Make a version the `challenger`, and keep on it what the gate said."""
    import mlflow

    connect()
    client = mlflow.MlflowClient()
    tags = {
        "gate_promote": str(decision.promote).lower(),
        "gate_summary": decision.summary,
        "gate_id": decision.id,
        DECISION: decision.model_dump_json(indent=1),  # redacted line by line: an address ends with its line
    }
    with readable_errors(f"make version {version} of {name} the challenger"):
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, redact(value))
        client.set_registered_model_alias(name, CHALLENGER, version)


def versions(name: str) -> list[RegisteredVersion]:
    """All versions of a registered model, newest first; none when nothing of that name was registered."""
    import mlflow

    connect()
    client = mlflow.MlflowClient()
    with readable_errors(f"list the versions of {name}"):
        models = client.search_registered_models(filter_string=f"name = '{name}'")
        found = client.search_model_versions(f"name = '{name}'") if models else []
    return [
        RegisteredVersion(
            version=str(version.version),
            aliases=tuple(sorted(a for a, held in models[0].aliases.items() if str(held) == str(version.version))),
            run_id=version.run_id,
            tags=dict(version.tags),
        )
        for version in sorted(found, key=lambda one: int(one.version), reverse=True)
    ]


def code_digest() -> str:
    """Of the code that travels with a model."""
    return digest(_PACKAGE)


def _requirements() -> list[str]:
    """Exact versions; a local build label such as `+cpu` is dropped, because no package index knows it."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in REQUIREMENTS]


def _log_inputs(inputs: Sequence[DataInput]) -> None:
    """The run's datasets in MLflow: names and DVC's hashes, no data."""
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.dataset import Dataset
    from mlflow.data.meta_dataset import MetaDataset

    datasets: list[Dataset | None] = [
        MetaDataset(CodeDatasetSource({"dvc": one.path}), name=one.path, digest=one.dvc_hash)  # type: ignore[abstract]
        for one in inputs
    ]
    mlflow.log_inputs(datasets, [one.context for one in inputs], [None] * len(inputs))


@contextmanager
def _beside(card: str, project: Sequence[Path]) -> Iterator[dict[str, str]]:
    """What travels beside the checkpoint, as MLflow's `artifacts`; text is redacted."""
    with tempfile.TemporaryDirectory() as scratch:
        texts = {"README.md": card} if card else {}
        texts |= {f"project/{path}": path.read_text(encoding="utf-8") for path in project if path.is_file()}
        for name, text in texts.items():
            (Path(scratch) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(scratch) / name).write_text(redact(text), encoding="utf-8")
        yield {path.stem: str(path) for path in Path(scratch).iterdir()}


@contextmanager
def _checkpoint(model_dir: Path, base: str, base_revision: str | None) -> Iterator[tuple[Path, str | None]]:
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
