"""Checkpoints in the authors' layout (LLaVA-NeXT and LongVA, `model_type: llava_qwen`) into ours.

    convert(Path("LLaVA-Video-7B-Qwen2"), Path("models/llava-video"), pool="average")

Weights get other names and stay what they are, one shard in memory at a time; all names and shapes are compared with
those of the model's class before a weight is read. The way back is `tpo.models.export.convert_back`.

What their layout has and ours has no place for lies in the converted folder's `llava_next/`, for the way back alone:
their small files as they were (config, tokenizer), the list of their weights, and in `unused/` those that no video
needs.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPVisionConfig, SiglipVisionConfig

from tpo.errors import UserError
from tpo.models.checkpoint import ORIGIN, check_weights, read_header
from tpo.models.llava_onevision import LlavaOnevision, Newline, Pool
from tpo.models.llava_video import LlavaVideo, LlavaVideoConfig
from tpo.progress import progress

UNUSED, INDEX = "unused", "model.safetensors.index.json"
_DISK_FULL = ("No space left", "quota exceeded", "File too large")
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
PLACEHOLDERS = ("<image>", "<video>")
FAMILIES: dict[str, Any] = {"llava_onevision": LlavaOnevision, "llava_video": LlavaVideo}

# As published; of SigLIP the authors drop the last layer. What is not said here is the library's default.
_BOTH: dict[str, Any] = {"num_attention_heads": 16, "patch_size": 14}
_SIGLIP = SiglipVisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, image_size=384, **_BOTH)
_CLIP = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, image_size=336, **_BOTH)
TOWERS: dict[str, Any] = {"google/siglip-so400m-patch14-384": _SIGLIP, "openai/clip-vit-large-patch14-336": _CLIP}
_MEAN_AND_STD = {
    "siglip_vision_model": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "clip_vision_model": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
}

# The conversation that the authors call qwen_1_5.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] in ('image', 'video') %}{{ '<' + part['type'] + '>\\n' }}"
    "{% endfor %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Keys that mean the same in both configs; without the first a decoder cannot be built.
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
DECODER = (*_SIZES, "vocab_size", "max_position_embeddings", "rms_norm_eps")
OPTIONS = ("bos_token_id", "eos_token_id", "hidden_act", "tie_word_embeddings")
# What the authors' code takes a key for that is not set, and what our class can do. The rest: `read_layout`, `_tower`.
_SUPPORTED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "mm_projector_type": ("linear", ("mlp2x_gelu",)),
    "mm_resampler_type": (None, (None, "spatial_pool")),  # has no weights, and no video goes through it
    "mm_spatial_pool_stride": (2, (2,)),
    "mm_vision_select_feature": ("patch", ("patch",)),
    "add_faster_video": (False, (False,)),
    "mm_use_im_start_end": (False, (False,)),
    "s2": (False, (False,)),
    "use_sliding_window": (False, (False,)),
}

# Their names, and those in llava-hf's checkpoints, which all of transformers, vLLM and SGLang read.
_PREFIXES = {
    "model.vision_tower.vision_tower.": "vision_tower.",
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.image_newline": "image_newline",
    "model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}
# The library has other names in memory, and writes either.
_TO_HUB = (
    (r"^model\.(?=language_model\.|vision_tower\.|multi_modal_projector\.|image_newline)", ""),
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^language_model\.(?!model\.|lm_head\.)", "language_model.model."),
    (r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
)


def convert(src: Path, dst: Path, vision_tower: Path | None = None, pool: Pool | None = None) -> None:
    """Write a checkpoint of the authors' as one that `load_model` reads, of family llava_video.

    Args:
        vision_tower: folder of the whole tower as it was published. Its config.json is needed if the tower is none of
            `TOWERS`, its weights if the checkpoint has none because the tower was not trained.
        pool: how features are pooled; none = as config.json says.

    Raises:
        UserError: names the key of config.json that our class cannot follow; the weight that is missing, unknown or of
            another shape; the file that is not whole; or `dst` if there is something already. Nothing is left of it.
    """
    original = read_original(src)
    config = _our_config(original, vision_tower, pool)
    theirs = read_weights(src)
    has_tower = any(name.startswith("model.vision_tower.") for name in theirs)
    found = theirs if has_tower else theirs | _published_tower(original, vision_tower)
    needed = fitting(found, config, their_name, _without_place(config))
    unused = {name: weight for name, weight in theirs.items() if name not in needed}
    with new_folder(dst) as out:
        config.image_token_index, config.video_token_index = _add_placeholders(src, out, config)
        config.save_pretrained(out)
        write_json(out / "video_preprocessor_config.json", _video_processor(config.vision_config))
        if (src / "generation_config.json").is_file():
            shutil.copy(src / "generation_config.json", out)
        origin = out / ORIGIN
        origin.mkdir()
        for file in (file for pattern in SMALL_FILES for file in src.glob(pattern)):
            shutil.copy(file, origin)
        write_json(origin / INDEX, {"weight_map": {name: weight.shard.name for name, weight in theirs.items()}})
        if unused:
            (origin / UNUSED).mkdir()
            write_weights(unused, origin / UNUSED)
        write_weights({_replace_prefix(name, _PREFIXES): weight for name, weight in needed.items()}, out)


@contextmanager
def new_folder(dst: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `dst` when all is in it. An error or a kill leaves no `dst`.

    Raises:
        UserError: there is something at `dst`, or the disk is full.
    """
    dst = dst.absolute()
    if dst.is_file() or (dst.is_dir() and any(dst.iterdir())):
        raise UserError(f"{dst} exists already. Remove it, or choose another name.")
    partial = dst.with_name(f".{dst.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        partial.mkdir(parents=True)
        yield partial
        os.sync()  # a name must not be on the disk before what it names
        partial.rename(dst)
    except (OSError, SafetensorError) as error:
        if any(words in str(error) for words in _DISK_FULL):
            raise UserError(f"No space left to write {dst}: {error}. Free some and run it again.") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class Weight(NamedTuple):
    """Where a weight is, and its shape."""

    shard: Path
    name: str
    shape: tuple[int, ...]


def read_weights(folder: Path) -> dict[str, Weight]:
    """The weights of a checkpoint folder by name, from the headers of its shards.

    Raises:
        UserError: a shard is missing or truncated, the weights are a pickle, or one is in two shards.
    """
    check_weights(folder, pickled_weights=False)
    shards = {"model.safetensors"}
    if (folder / INDEX).is_file():
        shards = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    weights: dict[str, Weight] = {}
    for shard in sorted(shards):
        for name, told in read_header(folder / shard).items():
            if name in weights:
                raise UserError(f"{name} is in {weights[name].shard} and in {shard}. Is one of them of another model?")
            weights[name] = Weight(folder / shard, name, tuple(told["shape"]))
    return weights


def write_weights(weights: Mapping[str, Weight], out: Path) -> None:
    """Write weights under the names given here, one shard for each that they come from, and the index of the shards."""
    shards: dict[Path, dict[str, Weight]] = {}
    for name, weight in weights.items():
        shards.setdefault(weight.shard, {})[name] = weight
    places: dict[str, str] = {}
    with progress(len(weights), "write", "weights", patient=True) as bar:
        for number, (source, renamed) in enumerate(shards.items(), start=1):
            target = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
            with safe_open(source, framework="pt") as file:
                tensors = {name: file.get_tensor(weight.name) for name, weight in renamed.items()}
            save_file(tensors, out / target, metadata={"format": "pt"})
            places |= dict.fromkeys(renamed, target)
            bar.update(len(renamed))
    if len(shards) > 1:
        write_json(out / INDEX, {"metadata": {}, "weight_map": dict(sorted(places.items()))})


def hub_name(name: str) -> str:
    """A weight's name in llava-hf's checkpoints, from any that the library has for it in memory or in a file."""
    for pattern, replacement in _TO_HUB:
        name = re.sub(pattern, replacement, name)
    return name


def _replace_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    old = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
    return name if old is None else prefixes[old] + name.removeprefix(old)


def their_name(name: str) -> str:
    """The authors' name for a weight, from that in llava-hf's checkpoints."""
    return _replace_prefix(name, {ours: theirs for theirs, ours in _PREFIXES.items()})


def fitting(
    weights: Mapping[str, Weight], config: Any, naming: Callable[[str], str], may_hold: str = "$^"
) -> dict[str, Weight]:
    """Those weights that a model of this config has, once it is clear that all are there and of the right shape.

    Args:
        naming: from the names in llava-hf's checkpoints to those in `weights`.
        may_hold: pattern of names that are left out without a word; by default none.

    Raises:
        UserError: a weight is missing, unknown, or of another shape.
    """
    with torch.device("meta"):
        model = FAMILIES[config.model_type].model_class(config)
    shapes = {naming(hub_name(name)): tuple(weight.shape) for name, weight in model.state_dict().items()}
    may_lack = {naming("language_model.lm_head.weight")} if config.tie_word_embeddings else set()
    for name, weight in weights.items():
        if name not in shapes and not re.search(may_hold, name):
            raise UserError(f"{weight.shard} holds {weight.name}, which a model of its config.json has no place for.")
        if weight.shape != shapes.get(name, weight.shape):
            raise UserError(
                f"{weight.shard} holds {weight.name} with shape {list(weight.shape)}; by config.json it should be "
                f"{list(shapes[name])}. Is config.json its own, and the vision tower the right one?"
            )
    refuse_absent(shapes.keys() - weights.keys() - may_lack)
    return {name: weight for name, weight in weights.items() if name in shapes}


def refuse_absent(names: set[str]) -> None:
    if names:
        raise UserError(f"The checkpoint lacks {min(names)} ({len(names)} such weights). Is the download complete?")


def _without_place(config: Any) -> str:
    """What their checkpoints and published towers may hold though no video needs it, as a pattern of names."""
    patterns = [
        r"\.rotary_emb\.inv_freq$",  # this and the next are computed; older libraries saved them
        r"\.embeddings\.position_ids$",
        r"\.vision_model\.head\.",  # SigLIP's, which they cut off
        r"^model\.vision_tower\..*\.(text_model\.|text_projection|visual_projection|logit_)",  # the other half
    ]
    if config.vision_config.model_type == "siglip_vision_model":
        patterns.append(rf"\.vision_model\.encoder\.layers\.{config.vision_config.num_hidden_layers}\.")
    if config.video_newline == "none":
        patterns.append(r"^model\.image_newline$")  # which stands between the rows of an image
    return "|".join(patterns)


def _published_tower(original: Mapping[str, Any], folder: Path | None) -> dict[str, Weight]:
    """The weights of a tower that was not trained, under the names that a checkpoint would have for them."""
    if folder is None or not any(folder.glob("*.safetensors")):
        given = f"{folder} has no .safetensors" if folder else "no --vision-tower was given"
        raise UserError(
            f"The checkpoint has no weights of its vision tower, {original['mm_vision_tower']!r} as published, and "
            f"{given}. Download the tower and give its folder as --vision-tower."
        )
    return {their_name(hub_name(f"vision_tower.{name}")): weight for name, weight in read_weights(folder).items()}


def read_original(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint of the authors'. Raises UserError if there is none."""
    file = folder / "config.json"
    try:
        original: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no config.json. Is it the folder of a checkpoint?") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}. Is the checkpoint folder complete?") from error
    if original.get("model_type") != "llava_qwen":
        raise UserError(f"{folder} is a {original.get('model_type')!r} model; only 'llava_qwen' can be converted.")
    return original


def _unsupported(key: str, found: Any, supported: str) -> UserError:
    return UserError(f"config.json says {key}: {json.dumps(found)}; supported: {supported}.")


def read_layout(original: Mapping[str, Any], pool: Pool | None) -> tuple[Pool, Newline]:
    """How features are pooled and where newlines stand, by their `prepare_inputs_labels_for_multimodal`."""
    mode = pool or original.get("mm_spatial_pool_mode")
    if mode is None:
        raise UserError("config.json has no mm_spatial_pool_mode. Give --pool (LongVA: average).")
    if mode not in get_args(Pool):
        raise _unsupported("mm_spatial_pool_mode", mode, ", ".join(get_args(Pool)))
    merge, position = original.get("mm_patch_merge_type", "flat"), original.get("mm_newline_position", "one_token")
    if merge in ("flat", "unires"):
        return mode, "none"
    if not str(merge).startswith("spatial"):
        raise _unsupported("mm_patch_merge_type", merge, "flat, unires, spatial, spatial_unpad")
    newlines: dict[str, Newline] = {"no_token": "none", "one_token": "none"}
    if "unpad" in merge:  # what gives the model a newline token
        newlines |= {"one_token": "one_token", "grid": "grid"}
    if position not in newlines:
        raise _unsupported(
            "mm_newline_position", position, f"{', '.join(newlines)} where mm_patch_merge_type is {merge}"
        )
    return mode, newlines[position]


def _tower(original: Mapping[str, Any], folder: Path | None) -> Any:
    """The config of the whole tower: that in `folder`, or the published one."""
    name = str(original.get("mm_vision_tower"))
    if folder is None:
        found: list[Any] = [tower for known, tower in TOWERS.items() if known.split("/")[-1] == name.split("/")[-1]]
        if not found:
            raise _unsupported("mm_vision_tower", name, f"{', '.join(TOWERS)}; others with --vision-tower")
        return type(found[0]).from_dict(found[0].to_dict())
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"].split("_")[0]
        classes: dict[str, Any] = {"siglip": SiglipVisionConfig, "clip": CLIPVisionConfig}
        return classes[kind].from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} has no config.json of a SigLIP or CLIP tower ({error!r}).") from error


def _our_config(original: Mapping[str, Any], vision_tower: Path | None, pool: Pool | None) -> LlavaVideoConfig:
    for key, (default, supported) in _SUPPORTED.items():
        found = default if original.get(key) is None else original[key]
        if found not in supported:
            raise _unsupported(key, found, ", ".join(map(json.dumps, supported)))
    missing = [key for key in (*DECODER, "rope_theta") if key not in original]
    if missing:
        raise UserError(f"config.json lacks {', '.join(missing)}. Is it the checkpoint's own?")
    vision = _tower(original, vision_tower)
    siglip = vision.model_type == "siglip_vision_model"
    if siglip:
        vision.num_hidden_layers -= 1
        vision.vision_use_head = False
    elif original.get("mm_vision_select_layer") != -2:
        raise _unsupported("mm_vision_select_layer", original.get("mm_vision_select_layer"), "-2")
    video_pool, video_newline = read_layout(original, pool)
    numbers = {key: original[key] for key in (*DECODER, *OPTIONS) if key in original}
    rope = {"rope_type": "default", "rope_theta": original["rope_theta"]}  # their code drops any rope_scaling
    aspect, grid = str(original.get("image_aspect_ratio")), original.get("image_grid_pinpoints")
    return LlavaVideoConfig(
        architectures=[LlavaVideo.model_class.__name__],
        dtype=original.get("torch_dtype"),
        vision_config=vision.to_dict(),
        text_config={"model_type": "qwen2", "rope_parameters": rope, **numbers},
        tie_word_embeddings=numbers.get("tie_word_embeddings", False),
        vision_feature_layer=-1 if siglip else -2,
        vision_feature_select_strategy="full" if siglip else "default",  # default = without the class token
        video_pool=video_pool,
        video_newline=video_newline,
        image_grid_pinpoints=grid if isinstance(grid, list) else None,
        vision_aspect_ratio=aspect if aspect.startswith("anyres_max") else "anyres_max_9",
    )


def _add_placeholders(src: Path, out: Path, config: Any) -> list[int]:
    """Write the tokenizer with a token for an image and one for a video, in rows that the embedding has to spare."""
    tokenizer: Any = AutoTokenizer.from_pretrained(src, config=config)
    tokenizer.add_tokens(list(PLACEHOLDERS), special_tokens=True)
    ids: list[int] = tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))
    rows = config.text_config.vocab_size
    if max(ids) >= rows:
        raise UserError(
            f"{' and '.join(PLACEHOLDERS)} would be tokens {ids} of the tokenizer in {src}, but the embedding has only "
            f"{rows} rows (vocab_size), and conversion leaves the embedding as it is."
        )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(out)
    return ids


def _video_processor(tower: Any) -> dict[str, Any]:
    """How the authors prepare frames, in the words of the library's video processor."""
    side, (mean, std) = tower.image_size, _MEAN_AND_STD[tower.model_type]
    square = {"height": side, "width": side}
    size: dict[str, Any] = {"size": square}
    if tower.model_type == "clip_vision_model":
        size = {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": square}
    numbers = {"resample": 3, "rescale_factor": 1 / 255, "image_mean": mean, "image_std": std}  # 3 = bicubic
    steps = dict.fromkeys(("do_convert_rgb", "do_resize", "do_rescale", "do_normalize"), True)
    kind = {"video_processor_type": "LlavaOnevisionVideoProcessor", "do_sample_frames": False}
    return kind | size | numbers | steps
