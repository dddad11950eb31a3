"""What a checkpoint folder holds, checked before any weight is loaded.

A text-only model, a missing or truncated shard, a pickled file or remote code is found here, in milliseconds.
"""

import json
from pathlib import Path
from typing import Any

from tpo.errors import UserError
from tpo.store import digest

_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
_PICKLED_INDEX, _PICKLED = "pytorch_model.bin.index.json", "pytorch_model.bin"
# What prepares frames, kept as it is when a tuned model is saved.
PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
# Folder in a converted checkpoint that holds what the authors' layout has and ours does not (`tpo.models.llava_next`).
ORIGIN = "llava_next"
_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_WANTED = "Give a checkpoint folder or a hub id (in params.yaml: model.base)."


def local_folder(checkpoint: str, revision: str | None) -> Path:
    """The folder of a checkpoint; of a hub id everything but the weights is downloaded to the hub's cache.

    Raises:
        UserError: it is neither a folder with a config.json nor a hub id that can be reached.
    """
    if (Path(checkpoint) / "config.json").is_file():
        return Path(checkpoint)
    looks_like_folder = checkpoint.startswith((".", "/")) or checkpoint.count("/") != 1
    if looks_like_folder or Path(checkpoint).exists():
        raise UserError(f"The base model folder {checkpoint!r} does not exist or has no config.json. {_WANTED}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=_SMALL_FILES))
    except (OSError, ValueError) as error:  # what the hub's client raises when offline, refused or misspelt
        raise UserError(
            f"{checkpoint!r} is neither a checkpoint folder nor a reachable hub id: {str(error).splitlines()[0]} "
            f"{_WANTED}"
        ) from error


def download_weights(checkpoint: str, revision: str | None, pickled_weights: bool) -> None:
    """Bring a hub id's weights into the hub's cache; of a folder they are there."""
    if (Path(checkpoint) / "config.json").is_file():
        return
    from huggingface_hub import snapshot_download

    weights = ["*.safetensors", "*.bin"] if pickled_weights else ["*.safetensors"]
    snapshot_download(checkpoint, revision=revision, allow_patterns=weights)


def read_config(folder: Path, families: tuple[str, ...]) -> Any:
    """The config of a video-LMM of a known family.

    Raises:
        UserError: it is of another family, a text-only model, in the LLaVA-NeXT layout, or needs remote code.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig  # slow to import, and the rest here does without

    file = folder / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}. Is the checkpoint folder complete?") from error
    model_type = content.get("model_type")
    if model_type not in families:
        raise UserError(f"{folder} is a {model_type!r} model; {_what_to_do(content, families)}")
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise UserError(f"{file} is not a config of a {model_type} model: {str(error).splitlines()[0]}") from error
    # Sharing a prefix by its keys and values is exact for full attention only (sliding windows, linear attention and
    # convolutions carry state across it).
    other = set(getattr(config.text_config, "layer_types", None) or ()) - {"full_attention"}
    if other:
        raise UserError(f"{folder} has a decoder with {', '.join(sorted(other))} layers; supported: full_attention.")
    return config


def _what_to_do(content: dict[str, Any], families: tuple[str, ...]) -> str:
    model_type = str(content.get("model_type"))
    if model_type.startswith("llava_qwen"):
        return "that is the LLaVA-NeXT layout. Convert it first: `tpo convert SRC DST`, then set model.base to DST."
    if "auto_map" in content:
        return f"it needs code from its own repository, which is never run. Supported are: {', '.join(families)}."
    if not any(key.startswith("vision") or key == "mm_vision_tower" for key in content):
        return f"it has no vision tower, so it cannot see a video. Supported are: {', '.join(families)}."
    return (
        f"supported are: {', '.join(families)}. A new family is a new file in tpo/models and a row in FAMILIES "
        "(see the README)."
    )


def check_weights(folder: Path, pickled_weights: bool) -> None:
    """See that every shard is there and whole, without reading the weights.

    Args:
        pickled_weights: a pickled `.bin` was asked for by name (it is read with `weights_only`).

    Raises:
        UserError: names the file that is missing, truncated, or pickled.
    """
    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        shards: dict[str, set[str]] = {}
        for tensor, shard in index["weight_map"].items():
            shards.setdefault(shard, set()).add(tensor)
        for shard, tensors in sorted(shards.items()):
            absent = sorted(tensors - set(read_header(folder / shard)))
            if absent:
                raise UserError(f"{folder / shard} lacks {absent[0]} ({len(absent)} in all), which {_INDEX} promises.")
        return
    if (folder / _WEIGHTS).is_file():
        read_header(folder / _WEIGHTS)
        return
    pickled = [name for name in (_PICKLED_INDEX, _PICKLED) if (folder / name).is_file()]
    if not pickled:
        raise UserError(f"{folder} has a config but no weights ({_WEIGHTS} or {_INDEX}). Is the download complete?")
    if not pickled_weights:
        raise UserError(
            f"{folder} has its weights as a pickle ({pickled[0]}), which can run code when it is read. Convert it to "
            "safetensors, or set model.pickled_weights to true if you trust it; it is then read with weights_only."
        )


def read_header(shard: Path) -> dict[str, Any]:
    """Names, shapes, dtypes and places of the tensors of a safetensors file, after checking that all of it is there.

    Raises:
        UserError: the file is missing, truncated, or not safetensors.
    """
    if not shard.is_file():
        raise UserError(f"{shard} is missing. Download the checkpoint again, or the missing file.")
    size = shard.stat().st_size
    with shard.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > _MAX_HEADER_BYTES:
            raise UserError(f"{shard} ({size} bytes) is not a safetensors file. Download it again.")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise UserError(f"{shard} ({size} bytes) is not a whole safetensors file. Download it again.") from error
    header.pop("__metadata__", None)
    expected = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if size != expected:
        raise UserError(f"{shard} has {size} bytes, its header says {expected}: it is truncated. Download it again.")
    return header


def read_chat_template(folder: Path, tokenizer: Any) -> str:
    """The template that can show a video. Processors keep their own beside the tokenizer's, which may be text-only.

    Raises:
        UserError: there is none.
    """
    if (folder / "chat_template.json").is_file():
        return str(json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"])
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if tokenizer.chat_template:
        return str(tokenizer.chat_template)
    raise UserError(f"{folder} has no chat template (chat_template.jinja). Is the checkpoint folder complete?")


def check_base(adapter: Path, expected: str) -> None:
    """An adapter on top of other weights than it was trained on answers nonsense without an error."""
    base = Path(json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"])
    if not base.is_dir():
        raise UserError(
            f"This model is an adapter on the base model in the folder {str(base)!r}, which is not here "
            f"({Path.cwd()}). Run where that folder is, or put the base model there."
        )
    found = digest(base)
    if found != expected:
        raise UserError(
            f"The base model in {str(base)!r} is not the one this adapter was trained on: its files' digest is "
            f"{found[:12]}, expected {expected[:12]}. Put the original base model there (`dvc checkout`)."
        )
