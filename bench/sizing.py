"""What training LLaVA-Video-7B takes of one GPU's memory, by arithmetic: the README's table of sizes.

    python bench/sizing.py

The model is described and holds no weights, so this takes seconds and no GPU. The figures are those that a training
run prints before its first step (`tpo.training.memory`), beside what its dry step takes; where there is a GPU,
bench/train.py measures. What an allocator wastes is left out: take a GPU with a tenth more. The last line is JSON.
"""

import json
from pathlib import Path
from typing import Any

import torch
from generate import make_model
from peft import get_peft_model

from tpo.models.video_lmm import VideoLMM
from tpo.params import LoraParams, ModelParams, TrainParams
from tpo.training.memory import estimate_memory
from tpo.training.settings import lora_config

FRAMES = (32, 64, 96)
PAIRS = 4  # that share a video in one row
TEXT_TOKENS = 200  # of a question and its two answers
FOUR_BITS_BYTES = 0.5 + 4 / 64  # of a weight: NF4, a float32 scale for every 64
LORA = LoraParams(r=64, alpha=128)


def describe(*, lora: bool) -> VideoLMM:
    """As training prepares it, on the meta device."""
    model = make_model("7b", "meta", torch.bfloat16, Path())
    if lora:
        params = TrainParams(
            beta=0.2, sft_alpha=1.0, learning_rate=2e-5, num_epochs=1, pairs_per_step=64, pairs_per_device=PAIRS,
            warmup_ratio=0.1, lora=LORA, save_every_steps=10, seed=0,
        )  # fmt: skip
        model.model = get_peft_model(model.model, lora_config(model, ModelParams(base="7b", dtype="bfloat16"), params))
    else:
        for name, parameter in model.model.named_parameters():
            parameter.requires_grad = any(part in name for part in model.family.trained)
        model.model.float()
    return model


def saved_by_four_bits(model: VideoLMM) -> float:
    """Bytes that the decoder's linear layers take less; the adapter and everything else stays as it is."""
    layers = [
        module
        for name, module in model.bare.named_modules()
        if isinstance(module, torch.nn.Linear) and "language_model" in name and "lora_" not in name
    ]
    return sum(layer.weight.nbytes - layer.weight.numel() * FOUR_BITS_BYTES for layer in layers)


def main() -> None:
    figures: dict[str, Any] = {}
    print(f"GB on one GPU, gradient checkpointing, {PAIRS} pairs a row\n")
    print(f"| | {' | '.join(f'{frames} frames' for frames in FRAMES)} |")
    print("|---|" + "---|" * len(FRAMES))
    for name, lora, four_bits in (
        ("LoRA on 4 bits", True, True), ("LoRA", True, False), ("full weights", False, False)
    ):  # fmt: skip
        model = describe(lora=lora)
        saved = saved_by_four_bits(model) if four_bits else 0.0
        for frames in FRAMES:
            tokens = len(model.prompt(model.family.lay_out(360, 640, tuple(map(float, range(frames))), 600.0), "w1"))
            row = tokens + PAIRS * TEXT_TOKENS
            taken = estimate_memory(model, row, torch.bfloat16, checkpointing=True)
            figures[f"{name}, {frames} frames"] = round((taken.total - saved) / 1e9, 1)
        cells = " | ".join(f"{figures[f'{name}, {frames} frames']:.0f}" for frames in FRAMES)
        print(f"| {name} | {cells} |")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
