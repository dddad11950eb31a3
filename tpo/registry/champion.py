"""The present champion, fetched from the registry to be measured again beside a new candidate."""

import json
import shutil
from pathlib import Path
from typing import Any

from tpo.errors import UserError
from tpo.progress import waiting
from tpo.records import Record, content_id
from tpo.registry.evidence import Standing
from tpo.registry.stored import find_checkpoint, package_digest
from tpo.registry.tracking import connect, readable_errors, redact

CHAMPION = "champion"  # the alias


class Champion(Record):
    """A registered model on this disk.

    Attributes:
        checkpoint: a folder that `tpo.models.load.load_model` reads.
        measured_with: what it was registered with: num_frames, prompts, model settings, …
    """

    version: str
    candidate_id: str
    checkpoint: Path
    measured_with: dict[str, Any]


def standing(name: str) -> Standing | None:
    """The champion of a registered model; none if there is none.

    Raises:
        UserError: the registry cannot be asked.
    """
    found = _champion(name)
    if found is None:
        return None
    return Standing(version=str(found.version), candidate_id=found.tags.get("candidate_id", ""))


def _champion(name: str) -> Any:
    import mlflow
    from mlflow.exceptions import MlflowException

    connect()
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise UserError(
            f"The registry does not say which {name!r} is champion: {redact(error.message).splitlines()[0]}. Is "
            "MLFLOW_TRACKING_URI right? Without a champion to measure, set evaluate.champion to false."
        ) from error


def fetch_champion(name: str, folder: Path) -> Champion | None:
    """Download the champion of a registered model into `folder`, once; none if there is none. Earlier ones are removed.

    Raises:
        UserError: the registry cannot be asked, its files are not those that were registered, or it is an adapter whose
            base model is not here.
    """
    import mlflow

    found = _champion(name)
    if found is None:
        return None
    # Another registry, or one that was begun anew, has a version 1 as well.
    out = folder / f"{name}-{found.version}-{content_id(found.source, found.creation_timestamp)}"
    registered = found.tags.get("package_digest")
    if not out.is_dir() or package_digest(out) != registered:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        told = f"the files of the champion, version {found.version} of {name}"
        with readable_errors(f"give {told}", Exception), waiting(f"fetching {told}"):
            mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{found.version}", dst_path=str(out))
        if package_digest(out) != registered:  # a weaker one would be easy to beat
            raise UserError(
                f"The files of the champion, version {found.version} of {name!r}, are not those that were registered, "
                "so it cannot be measured. `tpo rollback` goes back to the champion before it."
            )
    for earlier in folder.iterdir():
        if earlier != out:
            shutil.rmtree(earlier)
    return Champion(
        version=str(found.version),
        candidate_id=found.tags.get("candidate_id", ""),
        checkpoint=find_checkpoint(out),
        measured_with=json.loads(found.tags["measured_with"]),
    )
