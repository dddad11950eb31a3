"""Tiny checkpoints of every family, weights random, with the tokenizer, template and processor files of real ones."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from tpo.models.checkpoint import read_chat_template
from tpo.models.frames import read_processor
from tpo.models.llava_video import LlavaVideoConfig, LlavaVideoForConditionalGeneration
from tpo.models.load import FAMILIES as SUPPORTED
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import ModelParams
from tpo.video.decode import Frames

PROCESSORS = Path(__file__).parent / "models" / "reference" / "processors"
FAMILIES = ("llava_onevision", "llava_video", "longva", "qwen2_5_vl", "qwen3_vl")

_SIDE_PX = 56  # of the towers that take one size: 4 × 4 patches
_TEXT = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
_TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 3}


def save_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint folder that `load_model` reads."""
    source = PROCESSORS / ("llava_onevision" if family in ("llava_video", "longva") else family)
    shutil.copytree(source, folder)
    tokens = {t["content"]: t["id"] for t in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    torch.manual_seed(seed)
    model = _qwen(family, tokens) if family.startswith("qwen") else _llava(family, tokens)
    with torch.no_grad():  # as weights start out, what is seen hardly moves what is said
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    if not family.startswith("qwen"):
        file = folder / "processor_config.json"
        processor = json.loads(file.read_text())
        processor["video_processor"]["size"] = {"height": _SIDE_PX, "width": _SIDE_PX}
        file.write_text(json.dumps(processor))
    return folder


def _llava(family: str, tokens: dict[str, int]) -> Any:
    clip = family == "longva"
    config = {
        "vision_config": {
            "model_type": "clip_vision_model" if clip else "siglip_vision_model",
            "image_size": _SIDE_PX,
            "patch_size": 14,
            "vision_use_head": False,
            **_TOWER,
        },
        "text_config": {"model_type": "qwen2", **_TEXT},
        "image_token_index": tokens["<image>"],
        "video_token_index": tokens["<video>"],
        "vision_feature_layer": -2 if clip else -1,
        "vision_feature_select_strategy": "default" if clip else "full",
    }
    if family == "llava_onevision":
        return LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(**config))
    layout = {"video_pool": "average", "video_newline": "none" if clip else "grid"}
    return LlavaVideoForConditionalGeneration(LlavaVideoConfig(**config, **layout))


def _qwen(family: str, tokens: dict[str, int]) -> Any:
    ids = {
        "image_token_id": tokens["<|image_pad|>"],
        "video_token_id": tokens["<|video_pad|>"],
        "vision_start_token_id": tokens["<|vision_start|>"],
        "vision_end_token_id": tokens["<|vision_end|>"],
    }
    tower = {"depth": 3, "num_heads": 2, "intermediate_size": 24, "hidden_size": 16, "out_hidden_size": 32}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    if family == "qwen2_5_vl":
        vision = tower | {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        config = Qwen2_5_VLConfig(vision_config=vision, text_config=_TEXT | {"rope_parameters": rope}, **ids)
        return Qwen2_5_VLForConditionalGeneration(config)
    vision = tower | {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    text = _TEXT | {"head_dim": 8, "rope_parameters": rope | {"mrope_interleaved": True}}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(vision_config=vision, text_config=text, **ids))


def params(folder: Path | str, **settings: Any) -> ModelParams:
    """How tests load a model, unless they say otherwise."""
    return ModelParams(**{"base": str(folder), "dtype": "float32", "device": "cpu"} | settings)


def load(folder: Path | str, **settings: Any) -> VideoLMM:
    return load_model(params(folder, **settings))


def noise(seed: int = 0, count: int = 6, height_px: int = 60, width_px: int = 90) -> Frames:
    """Frames of which no two are alike, every second one a second apart."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height_px, width_px, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(count, dtype=float), float(count), "pyav", "18")


def prompter(family: str, layout: str = "") -> VideoLMM:
    """A model without weights, from real processor files: it can prepare frames and write prompts."""
    folder = PROCESSORS / f"{family}{layout}"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    placeholder = "<video>" if family == "llava_onevision" else "<|video_pad|>"
    config: Any = SimpleNamespace(
        model_type=family,
        video_token_id=tokenizer.convert_tokens_to_ids(placeholder),
        vision_config=SimpleNamespace(image_size=384, patch_size=14, tokens_per_second=2),
    )
    return VideoLMM(
        id="", folder=folder, model=None, tokenizer=tokenizer,
        family=SUPPORTED[family](config, read_processor(folder), None),
        chat_template=read_chat_template(folder, tokenizer), time_instruction=False, max_tokens=10**6,
    )  # fmt: skip
