"""What is particular to LLaVA-OneVision: its class, how many tokens a video takes, which weights are which."""

import math
from typing import Any

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

MODEL_CLASS = LlavaOnevisionForConditionalGeneration
MODEL_TYPE = "llava_onevision"

# TPO trains projector and decoder; the tower stays frozen (paper, section 4).
TRAINED = ("multi_modal_projector.", "language_model.", "lm_head.", "image_newline")
# LoRA goes on the decoder's linear layers only: a bare "q_proj" would hit the tower as well.
LORA_TARGETS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def num_video_tokens(config: LlavaOnevisionConfig, num_frames: int) -> int:
    """Placeholder tokens of a video: each frame's patches pooled 2×2, and one newline at the end."""
    vision: Any = config.vision_config
    side: int = vision.image_size // vision.patch_size
    return num_frames * math.ceil(side / 2) ** 2 + 1


def encode_video(model: LlavaOnevisionForConditionalGeneration, frames: torch.Tensor) -> torch.Tensor:
    """Tower, projector, pooling and newline: float [b, n, 3, h, w] → [b, tokens, d] as the decoder takes them."""
    features: torch.Tensor = model.model.get_video_features(pixel_values_videos=frames, return_dict=True).pooler_output
    return features
