"""Tiny chat models on disk, weights random, with tokenizer and template of real ones: one of text, one that sees."""

import json
import shutil
from pathlib import Path

import torch
from tiny import PROCESSORS
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
)

TEXT = {
    "vocab_size": 320, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 400, "bos_token_id": None, "eos_token_id": 267,
}  # fmt: skip


def save_text_model(folder: Path) -> Path:
    shutil.copytree(PROCESSORS / "qwen2_5_vl", folder)
    (folder / "processor_config.json").unlink()
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("processor_class", None)  # it is the tokenizer of a model that sees
    file.write_text(json.dumps(settings))
    _save(Qwen2ForCausalLM(Qwen2Config(**TEXT)), folder)
    return folder


def save_image_model(folder: Path) -> Path:
    """LLaVA-1.5's class: its processor needs no torchvision."""
    tokenizer = AutoTokenizer.from_pretrained(PROCESSORS / "llava_onevision")
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(
        vision_config=tower, text_config=Qwen2Config(**TEXT), image_token_index=tokenizer.encode("<image>")[0]
    )
    _save(LlavaForConditionalGeneration(config), folder)
    size = {"height": 28, "width": 28}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(PROCESSORS / "llava_onevision/chat_template.jinja").read_text(),
    ).save_pretrained(folder)
    return folder


def _save(model: torch.nn.Module, folder: Path) -> None:
    """Shaken: as weights start out, what is read hardly moves what is said."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
