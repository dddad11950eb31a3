"""Proof that a registered version is what was registered, and that it answers.

    proof = prove("tpo-demo", "3")
    proof.is_intact, proof.answer
    check_files("tpo-demo", "2")      # all that does not need the model to be loaded

It is asked in a process of its own, on the code that travels with it, as a server would run it. Nothing of a package is
run before its files are known to be those that were registered: loading it runs its code.
"""

import json
from pathlib import Path
from typing import Any

from tpo.errors import UserError
from tpo.registry.ask import Said, ask_package
from tpo.registry.evidence import Proof
from tpo.registry.stored import fetched, find_checkpoint, package_digest
from tpo.registry.tracking import connect, readable_errors

_CHANGED = "its files in the registry are not those that were registered"


def prove(name: str, version: str) -> Proof:
    """Fetch a version, compare its files with what was registered, load it and ask it the example it came with.

    Raises:
        UserError: the registry cannot be asked, or has no such version.
    """
    tags = _tags(name, version)
    found_out: dict[str, Any] = {"answer": None, "problem": _CHANGED}
    with fetched(f"models:/{name}/{version}") as folder:
        found = package_digest(folder)
        if found == tags.get("package_digest"):
            example = json.loads(tags.get("example", "{}"))
            video, question = example.get("video", ""), example.get("question", "")
            found_out = outcome(ask_package(str(folder), video, question), video)
    return Proof(
        version=version,
        candidate_id=tags.get("candidate_id", ""),
        registered_digest=tags.get("package_digest", ""),
        found_digest=found,
        **found_out,
    )


def outcome(said: Said, video: str) -> dict[str, str | None]:
    """Answer and problem of a `Proof`, of what a model said about a video."""
    if said.answer is not None and said.answer.strip():
        return {"answer": said.answer}
    problem = said.error or "its answer is empty"
    if said.loaded and not Path(video).is_file():
        problem = f"the video of its example, {video!r}, is not here (`dvc checkout` brings the project's videos)"
    return {"answer": None, "problem": problem}


def check_files(name: str, version: str) -> None:
    """That the files of a version are those that were registered, and an adapter's base is the same.

    Raises:
        UserError: they are not, the registry cannot be asked, or it has no such version.
    """
    tags = _tags(name, version)
    with fetched(f"models:/{name}/{version}") as folder:
        if package_digest(folder) != tags.get("package_digest"):
            raise UserError(f"Version {version} of {name!r}: {_CHANGED}.")
        find_checkpoint(folder)


def _tags(name: str, version: str) -> dict[str, str]:
    import mlflow

    connect()
    with readable_errors(f"find version {version} of {name}"):
        return dict(mlflow.MlflowClient().get_model_version(name, version).tags)
