"""Processor folders: a tiny tokenizer into the hub layouts, and those layouts loaded and saved by the library."""

import json
from pathlib import Path
from typing import Any

PROCESSORS = Path(__file__).parent / "processors"
FAMILIES = ("llava_onevision", "qwen2_5_vl", "qwen3_vl")
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
    "<video>",
)
MERGES = ("Ġ s", "e c", "o n", "d s", "Ġs ec", "on ds", "Ġsec onds", "Ġ c", "o m", "Ġc om", "e s")

# What the tokenizer files of llava-hf's checkpoints carry: the template of Qwen2's text model, not the processor's.
QWEN2_TEXT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def hub_folder(family: str) -> Path:
    """The files as the family's hub checkpoints carry them."""
    return PROCESSORS / f"{family}_hub"


def processor_class(family: str) -> Any:
    """The library's processor class. Imported late: its video half needs torchvision."""
    from transformers import LlavaOnevisionProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor

    classes = (LlavaOnevisionProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor)
    return dict(zip(FAMILIES, classes, strict=True))[family]


def load_processor(family: str) -> Any:
    """The library's processor, from the hub layout."""
    return processor_class(family).from_pretrained(hub_folder(family))


def make_processors() -> None:
    """Write the tokenizer into the three hub folders, then what `save_pretrained` writes next to them."""
    for family in FAMILIES:
        save_tokenizer(hub_folder(family), family)
        folder = PROCESSORS / family
        for old in folder.glob("*"):
            old.unlink()
        load_processor(family).save_pretrained(folder)


def save_tokenizer(folder: Path, family: str) -> None:
    """A byte-level BPE of 256 bytes and a few merges, of the class that all three families use."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES)]
    tokenizer = Qwen2Tokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[tuple(merge.split(" ")) for merge in MERGES],
        unk_token=None,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        extra_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=32768,
    )
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    # The checkpoints on the hub are older than the library: another layout, and a chat template in this file as well.
    template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    config = {
        "added_tokens_decoder": {
            str(number): {
                "content": token.content,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for number, token in sorted(tokenizer.added_tokens_decoder.items())
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": QWEN2_TEXT_TEMPLATE if family == "llava_onevision" else template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
