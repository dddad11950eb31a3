"""Hand a model on: to transformers and vLLM, to the authors' scripts, or as the adapter that it is.

    export(Path("models/tuned"), Path("for-vllm"), "hf", params.model)
    convert_back(Path("models/llava-video"), Path("for-their-scripts"))

Everything about the authors' layout that both directions need is in `tpo.models.llava_next`.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from tpo.errors import UserError
from tpo.models import llava_next
from tpo.models.checkpoint import ORIGIN, PROCESSOR_FILES, local_folder, read_config
from tpo.models.frames import read_processor
from tpo.models.llava_next import INDEX, PLACEHOLDERS, UNUSED, new_folder, write_json
from tpo.models.load import FAMILIES, load_model
from tpo.params import ModelParams

Form = Literal["hf", "llava-next", "adapter"]

_TEXT_FILES = (
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.*",
)
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def export(model: Path, dst: Path, form: Form, params: ModelParams) -> None:
    """Write a tuned model for others to load.

    Args:
        model: folder of full weights, or of an adapter, which is merged into its base.
        form: "hf" for transformers and vLLM, "llava-next" for the authors' scripts, "adapter" for the adapter alone.
        params: in which precision, and where, an adapter is merged.

    Raises:
        UserError: the model cannot be said in that form, which is found before any weight is read; a file of it is
            missing or not whole; or there is something at `dst`. Nothing is left of it.
    """
    is_adapter = (model / "adapter_config.json").is_file()
    if form == "adapter":
        if not is_adapter:
            raise UserError(f"{model} holds no adapter (adapter_config.json). Export full weights as hf or llava-next.")
        absent = [name for name in _ADAPTER_FILES if not (model / name).is_file()]
        if absent:
            raise UserError(f"{model} lacks {absent[0]}. Is the adapter folder complete?")
        with new_folder(dst) as out:
            _copy_files(model, out, _ADAPTER_FILES)
        return
    config = _config_of(_base_of(model) if is_adapter else model, FAMILIES)
    _refuse_form(model, config, form)
    with new_folder(dst) as out:
        whole = out / "merged" if is_adapter else model
        if is_adapter:
            load_model(params.of(model).model_copy(update={"quantization": None})).save(whole)
        if form == "hf":
            _write_hf(whole, out, config)
        else:
            write_back(whole, out)
        if is_adapter:
            shutil.rmtree(whole)


def _base_of(adapter: Path) -> Path:
    content = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return local_folder(content["base_model_name_or_path"], content.get("revision"))


def _config_of(folder: Path, families: Iterable[str]) -> Any:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model (no config.json or adapter_config.json).")
    return read_config(folder, tuple(families))


def _refuse_form(model: Path, config: Any, form: Form) -> None:
    if form == "llava-next" and config.model_type not in llava_next.FAMILIES:
        known = ", ".join(llava_next.FAMILIES)
        raise UserError(f"{model} is a {config.model_type} model; the authors' code runs {known}. Export it as hf.")
    if form == "hf" and config.model_type == "llava_video":
        found = (config.video_pool, config.video_newline, config.vision_config.model_type)
        expected = ("bilinear", "one_token", "siglip_vision_model")
        if found != expected:
            raise UserError(
                f"{model} has {' + '.join(found)}; other tools have a class for {' + '.join(expected)} only, "
                "LLaVA-OneVision. Export it as llava-next, for the authors' scripts and lmms-eval."
            )


def _copy_files(src: Path, out: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for file in src.glob(pattern):
            shutil.copy(file, out)


def _write_hf(src: Path, out: Path, config: Any) -> None:
    frames = read_processor(src)
    _copy_files(src, out, ("config.json", "generation_config.json", *_TEXT_FILES))
    weights = llava_next.read_weights(src)
    if config.model_type in llava_next.FAMILIES:
        weights = {llava_next.hub_name(name): weight for name, weight in weights.items()}
    llava_next.write_weights(weights, out)
    if config.model_type != "llava_video":
        _copy_files(src, out, PROCESSOR_FILES)
        return
    content = json.loads((src / "config.json").read_text(encoding="utf-8"))
    del content["video_pool"], content["video_newline"]
    names = {"model_type": "llava_onevision", "architectures": ["LlavaOnevisionForConditionalGeneration"]}
    write_json(out / "config.json", content | names)
    processor = {"processor_class": "LlavaOnevisionProcessor"}
    tiles = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_grid_pinpoints": config.image_grid_pinpoints,
    }
    vision, image, video = config.vision_config, *PLACEHOLDERS
    counts = {
        "image_token": image,
        "video_token": video,
        "num_image_tokens": (vision.image_size // vision.patch_size) ** 2,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "vision_aspect_ratio": config.vision_aspect_ratio,
    }
    write_json(out / "video_preprocessor_config.json", frames | processor)
    frames = {key: value for key, value in frames.items() if key not in ("video_processor_type", "do_sample_frames")}
    write_json(out / "preprocessor_config.json", frames | tiles | processor)
    write_json(out / "processor_config.json", counts | processor)


def convert_back(src: Path, dst: Path) -> None:
    """Write a checkpoint of family llava_video or llava_onevision as the authors' scripts read it.

    Raises:
        UserError: their layout has no words for it; a weight is missing, unknown or of another shape; a file is not
            whole; or there is something at `dst`. Nothing is left of it.
    """
    with new_folder(dst) as out:
        write_back(src, out)


def write_back(src: Path, out: Path) -> None:
    """`convert_back` into a folder that is there. Raises UserError as that does, before a weight is read."""
    config = _config_of(src, llava_next.FAMILIES)
    ours = {llava_next.hub_name(name): weight for name, weight in llava_next.read_weights(src).items()}
    needed = llava_next.fitting(ours, config, lambda name: name)
    theirs = {llava_next.their_name(name): weight for name, weight in needed.items()}
    origin = src / ORIGIN
    original = llava_next.read_original(origin) if origin.is_dir() else {}
    changed = _their_config(src, config, original)
    if original:
        names = json.loads((origin / INDEX).read_text(encoding="utf-8"))["weight_map"].keys()
        unused = llava_next.read_weights(origin / UNUSED) if (origin / UNUSED).is_dir() else {}
        theirs = {name: weight for name, weight in theirs.items() if name in names} | unused
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
        llava_next.refuse_absent(names - theirs.keys() - tied)
        _copy_files(origin, out, llava_next.SMALL_FILES)
        (out / INDEX).unlink()
    else:
        _drop_placeholders(src, out)
    if changed != original:
        write_json(out / "config.json", changed)
    llava_next.write_weights(theirs, out)


def _their_config(src: Path, config: Any, original: Mapping[str, Any]) -> dict[str, Any]:
    """The original with what was changed since, or all that their code reads if there is no original."""
    pool, newline = "bilinear", "one_token"
    if config.model_type == "llava_video":
        pool, newline = config.video_pool, config.video_newline
    changed = dict(original) or _config_from_ours(src, config) | {
        "mm_patch_merge_type": "flat" if newline == "none" else "spatial_unpad",
        "mm_newline_position": "no_token" if newline == "none" else newline,
    }
    if pool != original.get("mm_spatial_pool_mode"):
        changed |= {"mm_spatial_pool_mode": pool, "mm_spatial_pool_stride": 2}
    if config.dtype is not None:
        changed["torch_dtype"] = str(config.dtype).removeprefix("torch.")
    if llava_next.read_layout(changed, None)[1] != newline:
        raise UserError(f"{src} has video_newline {newline!r}, the original had another. Set it back in config.json.")
    return changed


def _config_from_ours(src: Path, config: Any) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    siglip = vision.model_type == "siglip_vision_model"
    sizes = ("model_type", "hidden_size", "intermediate_size", "num_attention_heads", "image_size", "patch_size")
    tower = next(
        (
            name
            for name, known in llava_next.TOWERS.items()
            if [getattr(known, key) for key in sizes] == [getattr(vision, key) for key in sizes]
            and known.num_hidden_layers - siglip == vision.num_hidden_layers
        ),
        None,
    )
    if tower is None:
        raise UserError(
            f"{src} has another vision tower than {' and '.join(llava_next.TOWERS)}; their code builds no other."
        )
    fixed = {
        "vision_feature_layer": (config.vision_feature_layer, -1 if siglip else -2),
        "vision_feature_select_strategy": (config.vision_feature_select_strategy, "full" if siglip else "default"),
        "projector_hidden_act": (config.projector_hidden_act, "gelu"),
        "multimodal_projector_bias": (config.multimodal_projector_bias, True),
        "rope_type": (text.rope_parameters["rope_type"], "default"),
    }
    for key, (found, expected) in fixed.items():
        if found != expected:
            raise UserError(f"{src} has {key} {found!r}; the authors' code can do {expected!r} only.")
    return {
        **{key: getattr(text, key) for key in (*llava_next.DECODER, *llava_next.OPTIONS)},
        "add_faster_video": False,
        "architectures": ["LlavaQwenForCausalLM"],
        "image_aspect_ratio": config.vision_aspect_ratio,
        "image_grid_pinpoints": config.image_grid_pinpoints,
        "mm_hidden_size": vision.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower,
        "model_type": "llava_qwen",
        "rope_scaling": None,
        "rope_theta": text.rope_parameters["rope_theta"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "tokenizer_model_max_length": text.max_position_embeddings,
        "tokenizer_padding_side": "right",
        "use_cache": True,
        "use_mm_proj": True,
        "use_sliding_window": False,
    }


def _drop_placeholders(src: Path, out: Path) -> None:
    """Write the tokenizer without our two tokens, as the library read it when the authors' code was written."""
    try:
        content = json.loads((src / "tokenizer.json").read_text(encoding="utf-8"))
        settings = json.loads((src / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing. Is the checkpoint folder complete?") from error
    added = [token for token in content["added_tokens"] if token["content"] not in PLACEHOLDERS]
    content["added_tokens"] = added
    names = ("bos_token", "eos_token", "pad_token", "unk_token", "model_max_length")
    kept = {key: settings[key] for key in names if key in settings}
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    kept["added_tokens_decoder"] = {str(token["id"]): {flag: token[flag] for flag in flags} for token in added}
    kept["additional_special_tokens"] = [token["content"] for token in added if token["special"]]
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    model = content["model"]
    if model["type"] == "BPE":
        kept["tokenizer_class"] = "Qwen2Tokenizer"
        model["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        write_json(out / "vocab.json", model["vocab"])
        (out / "merges.txt").write_text("\n".join(["#version: 0.2", *model["merges"], ""]), encoding="utf-8")
    write_json(out / "tokenizer.json", content)
    write_json(out / "tokenizer_config.json", kept)
