"""The files of a registered model, as its registry has them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tpo.models.checkpoint import check_base
from tpo.registry.tracking import connect, readable_errors
from tpo.store import digest

# Written by MLflow into the copy that it fetches of a registered version.
_NOT_PACKAGED = "registered_model_meta"


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """The files of a logged model or registered version, for the length of a block.

    Raises:
        UserError: the registry does not give them.
    """
    import mlflow

    connect()
    with tempfile.TemporaryDirectory() as scratch:
        with readable_errors(f"give the files of {uri}", Exception):
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=scratch)
        yield Path(scratch)


def package_digest(folder: Path) -> str:
    """sha256 over the names and bytes of all files of a package."""
    return digest(*sorted(path for path in folder.iterdir() if path.name not in (_NOT_PACKAGED, "__pycache__")))


def find_checkpoint(folder: Path) -> Path:
    """The checkpoint in a package.

    Raises:
        UserError: it is an adapter whose base model is not here, or is another one here.
    """
    flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
    checkpoint: Path = folder / flavor["artifacts"]["checkpoint"]["path"]
    if base_digest := flavor["config"]["base_digest"]:
        check_base(checkpoint, base_digest)
    return checkpoint
