"""Load a video-LMM of any supported family from a folder or a hub id.

    model = load_model(params.model)

Everything that can be found wrong without reading a weight is found before one is read (`tpo.models.checkpoint`).
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from tpo.errors import UserError
from tpo.models.checkpoint import check_weights, download_weights, local_folder, read_chat_template, read_config
from tpo.models.family import Family
from tpo.models.frames import read_processor
from tpo.models.identity import find_source, id_of
from tpo.models.llava_onevision import LlavaOnevision
from tpo.models.llava_video import LlavaVideo
from tpo.models.qwen2_5_vl import Qwen25VL
from tpo.models.qwen3_vl import Qwen3VL
from tpo.models.video_lmm import VideoLMM
from tpo.params import ModelParams
from tpo.progress import waiting

FAMILIES: dict[str, type[Family]] = {
    "llava_onevision": LlavaOnevision,
    "llava_video": LlavaVideo,
    "qwen2_5_vl": Qwen25VL,
    "qwen3_vl": Qwen3VL,
}

# Kept in full precision in a 4-bit model: small beside the decoder, and it is what training must not blur.
_NOT_QUANTIZED = ["vision_tower", "visual", "multi_modal_projector", "lm_head"]


def load_model(params: ModelParams, num_frames: int = 1) -> VideoLMM:
    """Load what `params.base` names: a checkpoint folder, a hub id, or an adapter folder (merged into its base).

    Args:
        num_frames: as many as it will be shown at once; too many for its decoder is an error here already.

    Raises:
        UserError: there is no such checkpoint, its family is not supported, its files are incomplete or pickled, a
            weight that the model needs is not in them, or a setting cannot be met on this machine. All but the last
            two before any weight is read.
    """
    transformers_logging.disable_progress_bar()
    checkpoint, revision, adapter = find_source(params)
    folder = local_folder(checkpoint, revision)
    config = read_config(folder, tuple(FAMILIES))
    family = FAMILIES[config.model_type](config, read_processor(folder), params.max_frame_pixels)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat_template = read_chat_template(folder, tokenizer)
    max_tokens = params.max_tokens or config.text_config.max_position_embeddings
    _check_length(folder, family, num_frames, max_tokens)
    download_weights(checkpoint, revision, params.pickled_weights)
    check_weights(folder, params.pickled_weights)
    with waiting(f"loading {folder}"):
        model = _load_weights(folder, config, family, params)
    if adapter is not None:
        from peft import PeftModel

        with waiting(f"merging {adapter}"):
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return VideoLMM(
        id=id_of(folder, adapter, params),
        folder=folder,
        model=model.eval(),
        tokenizer=tokenizer,
        family=family,
        chat_template=chat_template,
        time_instruction=params.time_instruction,
        max_tokens=max_tokens,
    )


def _check_length(folder: Path, family: Family, num_frames: int, max_tokens: int) -> None:
    if family.fewest_features(num_frames) > max_tokens:
        raise UserError(
            f"{num_frames} frames take {family.fewest_features(num_frames)} tokens at least, but {folder} was made for "
            f"{max_tokens}. Show it fewer frames (answer.full_frames, evaluate.num_frames, evaluate.needle.num_frames) "
            "or set model.max_tokens if you know that it can take more."
        )


def _load_weights(folder: Path, config: Any, family: Family, params: ModelParams) -> Any:
    options: dict[str, Any] = {
        "dtype": getattr(torch, params.dtype),
        "attn_implementation": params.attention,
        "use_safetensors": not params.pickled_weights,
        "device_map": _device_map(params),
        "ignore_mismatched_sizes": True,  # they are an error all the same, below, with what to do
    }
    if params.quantization is not None:
        options["quantization_config"] = _four_bit(params)
    try:
        model, loaded = family.model_class.from_pretrained(folder, config=config, output_loading_info=True, **options)
    except ImportError as error:  # flash-attn, asked for by name
        raise UserError(f"model.attention is {params.attention!r}, but: {str(error).splitlines()[0]}") from error
    # The library fills what it does not find, or finds in another shape, with random numbers.
    absent = sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    if absent:
        raise UserError(
            f"{folder} does not hold the weights that its config.json describes: {absent[0]} is missing or has another "
            f"shape ({len(absent)} such weights). Is the checkpoint folder complete, and config.json its own?"
        )
    return model


def _device_map(params: ModelParams) -> str | dict[str, str]:
    """`balanced` spreads the layers over all GPUs; otherwise the whole model lies on one device."""
    if params.device == "balanced":
        return "balanced"
    if params.device == "auto":
        return {"": "cuda" if torch.cuda.is_available() else "cpu"}
    if params.device == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device is cuda, but no GPU is visible here. Set it to auto or cpu.")
    return {"": params.device}


def _four_bit(params: ModelParams) -> Any:
    """NF4 with double quantization, as in QLoRA (arXiv 2305.14314)."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError(
            "model.quantization is 4bit, which needs bitsandbytes: `pip install bitsandbytes`, or set it to null."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, params.dtype),
        llm_int8_skip_modules=_NOT_QUANTIZED,
    )
