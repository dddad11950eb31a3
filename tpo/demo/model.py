"""The demo's tiny video-LMM: LLaVA-OneVision (SigLIP tower, Qwen2 decoder) with 0.8 M parameters and 60 words.

One token a frame (2×2 patches of 16 px pooled to one) and one newline token a video. Saved as a checkpoint folder that
is laid out like the 7B ones: config, safetensors, tokenizer, processor files, chat template.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.qwen2 import Qwen2Config
from transformers.models.siglip import SiglipVisionConfig

from tpo.demo.world import COLORS, SHAPES

IMAGE_SIZE_PX = 32
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>", "<unk>"]
WORDS = (
    "user assistant . , ? a an the What Which color is or comes right after before first last then Describe video what"
)

# The chat template of llava-hf/llava-onevision-qwen2-7b-ov-hf, without its image loop.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the demo world's whole vocabulary."""
    words = SPECIAL + WORDS.split() + list(COLORS) + list(SHAPES)
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        eos_token="<|im_end|>",  # noqa: S106
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlavaOnevisionForConditionalGeneration:
    """A model with random weights drawn from `seed`."""
    vision = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=IMAGE_SIZE_PX,
        patch_size=16,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL.index("<image>"),
        video_token_index=SPECIAL.index("<video>"),
        image_grid_pinpoints=[[IMAGE_SIZE_PX, IMAGE_SIZE_PX]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return LlavaOnevisionForConditionalGeneration(config)


def save_checkpoint(
    model: LlavaOnevisionForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write a checkpoint folder as llava-hf ships them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    frames = {
        "size": {"height": IMAGE_SIZE_PX, "width": IMAGE_SIZE_PX},
        "resample": 3,  # bicubic
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
    }
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 4,
        "vision_feature_select_strategy": "full",
        "image_token": "<image>",
        "video_token": "<video>",
        "vision_aspect_ratio": "anyres_max_9",
    }
    image = frames | {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_grid_pinpoints": [[IMAGE_SIZE_PX, IMAGE_SIZE_PX]],
    }
    video = frames | {"video_processor_type": "LlavaOnevisionVideoProcessor", "do_sample_frames": False}
    for name, content in (
        ("processor_config.json", processor),
        ("preprocessor_config.json", image | {"processor_class": "LlavaOnevisionProcessor"}),
        ("video_preprocessor_config.json", video | {"processor_class": "LlavaOnevisionProcessor"}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
