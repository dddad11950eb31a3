"""Proof that a registered version is what was registered, and that it answers.

    proof = prove("tpo-demo", "3")
    proof.is_intact, proof.answer

Nothing of a package is run before its files are known to be those that were registered: loading it runs its code.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tpo.errors import UserError
from tpo.registry.evidence import Proof
from tpo.registry.tracking import connect, readable_errors, redact
from tpo.store import digest

# Written by MLflow into the copy that it fetches of a registered version.
_NOT_PACKAGED = "registered_model_meta"


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """The files of a logged model or registered version, for the length of a block."""
    import mlflow

    connect()
    with tempfile.TemporaryDirectory() as scratch:
        with readable_errors(f"give the files of {uri}"):
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=scratch)
        yield Path(scratch)


def package_digest(folder: Path) -> str:
    """sha256 over the names and bytes of all files of a package."""
    return digest(*sorted(path for path in folder.iterdir() if path.name not in (_NOT_PACKAGED, "__pycache__")))


def answer(folder: Path, example: Mapping[str, str]) -> str:
    """What the packaged model says to an example {"video": path, "question": text}.

    Raises:
        UserError: its base model or the video is not here, or cannot be used.
    """
    return _ask(_load(folder), example)


def _load(folder: Path) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(str(folder))


def _ask(model: Any, example: Mapping[str, str]) -> str:
    return str(model.predict([dict(example)])[0])


def prove(name: str, version: str) -> Proof:
    """Fetch a version, compare its files with what was registered, load it and ask it the example it came with.

    Raises:
        UserError: the registry cannot be asked, or has no such version.
    """
    import mlflow

    connect()
    with readable_errors(f"find version {version} of {name}"):
        tags = mlflow.MlflowClient().get_model_version(name, version).tags
    found_out: dict[str, Any] = {
        "answer": None,
        "problem": "its files in the registry are not those that were registered",
    }
    with fetched(f"models:/{name}/{version}") as folder:
        found = package_digest(folder)
        if found == tags.get("package_digest"):
            found_out = _try(folder, json.loads(tags.get("example", "{}")))
    return Proof(
        version=version,
        candidate_id=tags.get("candidate_id", ""),
        registered_digest=tags.get("package_digest", ""),
        found_digest=found,
        **found_out,
    )


def _try(folder: Path, example: Mapping[str, str]) -> dict[str, Any]:
    from mlflow.exceptions import MlflowException

    try:
        model = _load(folder)
        video = example.get("video", "")
        if not Path(video).is_file():
            problem = f"the video of its example, {video!r}, is not here (`dvc checkout` brings the project's videos)"
            return {"answer": None, "problem": problem, "lacks_video": True}
        return {"answer": _ask(model, example)}
    except (UserError, MlflowException, ImportError, OSError, RuntimeError, ValueError) as error:
        return {"answer": None, "problem": (redact(str(error)).splitlines() or [type(error).__name__])[0]}
