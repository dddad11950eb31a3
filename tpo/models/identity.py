"""Which model it is, by the content of its files, without loading it; nor torch, whose import takes seconds."""

import json
from pathlib import Path

from tpo.models.checkpoint import download_weights, local_folder
from tpo.params import ModelParams
from tpo.progress import waiting
from tpo.records import content_id
from tpo.store import MANIFEST, digest


def model_id(params: ModelParams) -> str:
    """The `id` of what `load_model` would load: of its files and what changes its answers.

    Raises:
        UserError: there is no such checkpoint.
    """
    checkpoint, revision, adapter = find_source(params)
    folder = local_folder(checkpoint, revision)
    download_weights(checkpoint, revision, params.pickled_weights)
    return id_of(folder, adapter, params)


def find_source(params: ModelParams) -> tuple[str, str | None, Path | None]:
    """The checkpoint that holds the weights, its revision, and the adapter folder that goes on top, if any."""
    adapter = Path(params.base)
    if not (adapter / "adapter_config.json").is_file():
        return params.base, params.revision, None
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return config["base_model_name_or_path"], config.get("revision"), adapter


def id_of(folder: Path, adapter: Path | None, params: ModelParams) -> str:
    """The id of a checkpoint in a folder, and of an adapter on top."""
    parts = [folder] if adapter is None else [folder, adapter]
    return content_id(*map(_content, parts), params.as_measured())


def _content(folder: Path) -> str:
    """A digest of a checkpoint's own files: neither where they lie nor when a stage made them changes it."""
    with waiting(f"reading {folder}, by whose content a model is known"):
        return digest(*sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST))
