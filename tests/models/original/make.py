"""Makes the checkpoints in this folder and freezes what the original LLaVA-NeXT and LongVA code computes on them.

    python make.py --llava-next DIR --longva DIR

DIR: a checkout of each original repository. README.md says which commits, in which environment, and what is patched.
"""

import argparse
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from frames import video

HERE = Path(__file__).resolve().parent
FRAMES, LAST, SAMPLED, NEW_TOKENS = 3, 12, 40, 8
QUESTION = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<image>\nWhat comes first?<|im_end|>\n<|im_start|>assistant\n"
)
PROMPT = QUESTION + "A red star<|im_end|>\n"
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # 297, 298, 299

SIGLIP, CLIP = "google/siglip-so400m-patch14-384", "openai/clip-vit-large-patch14-336"
TOWER_SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 3}
SIGLIP_TOWER = {
    "architectures": ["SiglipVisionModel"],
    "hidden_act": "gelu_pytorch_tanh",
    "image_size": 384,
    "layer_norm_eps": 1e-6,
    "model_type": "siglip_vision_model",
    "num_channels": 3,
    "patch_size": 14,
    **TOWER_SIZES,
}
CLIP_TOWER = {
    "architectures": ["CLIPVisionModel"],
    "hidden_act": "quick_gelu",
    "image_size": 336,
    "layer_norm_eps": 1e-5,
    "model_type": "clip_vision_model",
    "num_channels": 3,
    "patch_size": 14,
    "projection_dim": 16,
    **TOWER_SIZES,
}
CLIP_PROCESSOR = {
    "crop_size": 336,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 336,
}

# Laid out like the config.json of the released checkpoints; README.md says what is known of those.
SHARED_CONFIG = {
    "architectures": ["LlavaQwenForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 297,
    "eos_token_id": 299,
    "hidden_act": "silu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 32768,
    "max_window_layers": 2,
    "mm_hidden_size": 16,
    "mm_projector_lr": None,
    "mm_projector_type": "mlp2x_gelu",
    "mm_spatial_pool_stride": 2,
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower_lr": 2e-6,
    "model_type": "llava_qwen",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "tokenizer_model_max_length": 32768,
    "tokenizer_padding_side": "right",
    "torch_dtype": "float32",
    "transformers_version": "4.40.0.dev0",
    "use_cache": True,
    "use_mm_proj": True,
    "use_sliding_window": False,
    "vision_tower_pretrained": None,
    "vocab_size": 320,
}
CONFIGS = {
    "siglip": SHARED_CONFIG
    | {
        "add_faster_video": False,
        "add_time_instruction": True,
        "faster_token_stride": 10,
        "force_sample": True,
        "image_aspect_ratio": "anyres_max_9",
        "image_crop_resolution": None,
        "image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
        "image_split_resolution": None,
        "image_token_index": 300,
        "mm_newline_position": "grid",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_resampler_type": None,
        "mm_spatial_pool_mode": "bilinear",
        "mm_vision_tower": SIGLIP,
        "pos_skipping_range": 4096,
        "rope_theta": 1e6,
        "use_pos_skipping": False,
    },
    "clip": SHARED_CONFIG
    | {
        "image_aspect_ratio": "anyres",
        "image_crop_resolution": 224,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_split_resolution": 224,
        "mm_patch_merge_type": "unires",
        "mm_resampler_type": "spatial_pool",
        "mm_spatial_pool_mode": "average",
        "mm_spatial_pool_out_channels": 16,
        "mm_vision_tower": CLIP,
        "rope_theta": 1e9,
    },
}
TOWERS = {"siglip": SIGLIP_TOWER, "clip": CLIP_TOWER}
SEEDS = {"siglip": 22, "clip": 28, SIGLIP: 3, CLIP: 4, "newline": 5}

# What each variant sets in the config that it finds. llava knows neither "unires" nor a resampler that is "bilinear".
VARIANTS = {
    "llava": {
        f"{name}.llava.{pool}.{newline}": {"mm_spatial_pool_mode": pool, "mm_newline_position": newline, **forced}
        for name, forced in (
            ("siglip", {}),
            ("clip", {"mm_patch_merge_type": "spatial_unpad", "mm_resampler_type": None}),
        )
        for pool in ("bilinear", "average")
        for newline in ("grid", "one_token", "no_token")
    },
    "longva": {"clip.longva.average": {}},
}
GENERATED = ("siglip.llava.bilinear.grid", "clip.longva.average")

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def make_tokenizer(folder: Path) -> None:
    """Qwen2's tokenizer with another vocabulary: the bytes, and 41 merges learned on a few sentences."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(words), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    sentences = ["You are a helpful assistant.", "What comes first?", "A red star comes after the blue moon.", "user"]
    size, alphabet = 256 + 41, pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    assert tokenizer.get_vocab_size() == size + len(SPECIAL_TOKENS)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt: what the tokenizer class written in Python reads
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    content = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(size + n): {"content": token, **flags} for n, token in enumerate(SPECIAL_TOKENS)},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_json(folder / "tokenizer_config.json", content)


def randomize(module, seed: int) -> None:
    """Weights on a scale at which every layer has its say, biases and norms included.

    Embeddings are small, so that the epsilon of the first norm after them shows in the numbers.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "image_newline" in name:
                parameter.copy_(noise)
            elif any(part in name for part in ("class_embedding", "position_embedding", "embed_tokens")):
                parameter.copy_(0.1 * noise)
            else:
                gains = {"q_proj": 2.5, "k_proj": 2.5, "patch_embedding": 0.3}
                gain = next((gain for part, gain in gains.items() if part in name), 1.5)
                parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)


def make_towers(hub: Path) -> None:
    """The towers that the original code loads first, as they would lie in the cache of the hub.

    Their weights are not those in the checkpoints: a number that came from them would be noticed.
    """
    from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionConfig, SigLipVisionModel
    from transformers import CLIPVisionConfig, CLIPVisionModel

    revision = "0" * 40
    siglip, clip = SigLipVisionModel(SigLipVisionConfig()), CLIPVisionModel(CLIPVisionConfig(**CLIP_TOWER))
    for name, tower in ((SIGLIP, siglip), (CLIP, clip)):
        randomize(tower, SEEDS[name])
        folder = hub / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(revision)
        tower.save_pretrained(folder / "snapshots" / revision)
        if name == CLIP:
            write_json(folder / "snapshots" / revision / "preprocessor_config.json", CLIP_PROCESSOR)


def make_checkpoint(name: str, shard_size: str) -> None:
    import torch
    from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
    from safetensors.torch import save_file

    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = LlavaQwenForCausalLM(LlavaQwenConfig(**CONFIGS[name]))
    randomize(model, SEEDS[name])
    model.save_pretrained(folder, max_shard_size=shard_size)
    write_json(folder / "config.json", CONFIGS[name])
    write_json(folder / "vision_tower" / "config.json", TOWERS[name])
    make_tokenizer(folder)
    if name == "clip":  # LongVA has no newline; llava's ways to lay out a video need one
        newline = torch.randn(CONFIGS[name]["hidden_size"], generator=torch.Generator().manual_seed(SEEDS["newline"]))
        save_file({"model.image_newline": newline}, folder / "newline.safetensors", metadata={"format": "pt"})


def load(package: str, name: str, overrides: dict):
    """The model as the original's `load_pretrained_model` makes it, but in float32 and with its whole vocabulary."""
    from safetensors.torch import load_file

    original = import_module(f"{package}.model.language_model.llava_qwen")
    config = original.LlavaQwenConfig.from_pretrained(HERE / name)
    for key, value in overrides.items():
        setattr(config, key, value)
    model, report = original.LlavaQwenForCausalLM.from_pretrained(
        HERE / name, config=config, attn_implementation="eager", output_loading_info=True
    )
    lacking = ["model.image_newline"] if (package, name) == ("llava", "clip") else []
    assert report == {"missing_keys": lacking, "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}, report
    if lacking:
        model.load_state_dict(load_file(HERE / name / "newline.safetensors"), strict=False)
    return model.eval()


def to_ids(package: str, name: str, prompt: str) -> list[int]:
    from transformers import AutoTokenizer

    split = import_module(f"{package}.mm_utils").tokenizer_image_token
    fast, slow = (AutoTokenizer.from_pretrained(HERE / name, use_fast=fast) for fast in (True, False))
    assert (fast.is_fast, slow.is_fast) == (True, False)
    assert split(prompt, fast) == split(prompt, slow)
    return split(prompt, fast)


def to_pixels(model, shown):
    import torch

    processor = model.get_vision_tower().image_processor
    pixels = processor.preprocess(list(shown), return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (processor.image_mean, processor.image_std))
    plain = (torch.from_numpy(shown.copy()).permute(0, 3, 1, 2) / 255 - mean) / std
    assert torch.allclose(pixels, plain, atol=1e-5), "the frames were not only normalized"
    return pixels


def compute(model, ids: list[int], shown):
    """(features, logits): what stands where <image> stood, as the decoder reads it, and logits at all positions."""
    import torch

    pixels, batch = to_pixels(model, shown), torch.tensor([ids])
    with torch.no_grad():
        inputs = model.prepare_inputs_labels_for_multimodal(batch, None, None, None, None, [pixels], ["video"])
        logits = model(batch, images=[pixels], modalities=["video"], use_cache=False).logits[0]
    before = ids.index(-200)
    features = inputs[4][0, before : len(logits) - (len(ids) - before - 1)]
    return features, logits


def generate(model, ids: list[int], shown) -> list[int]:
    """The tokens of greedy decoding: words that the tokenizer knows, each chosen by a clear margin."""
    import torch

    greedy = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "pad_token_id": 297}
    told = {"output_scores": True, "return_dict_in_generate": True}
    pixels = [to_pixels(model, shown)]
    output = model.generate(torch.tensor([ids]), images=pixels, modalities=["video"], **greedy, **told)
    best = torch.cat(output.scores).topk(2).values
    new = output.sequences[0].tolist()
    assert len(new) == NEW_TOKENS
    assert max(new) < 297
    assert (best[:, 0] - best[:, 1]).min() > 0.1
    return new


def freeze(package: str, shown: dict) -> None:
    """Adds the variants of a package to the expected numbers, once each has been seen to depend on the video."""
    import torch
    from safetensors.torch import load_file, save_file

    numbers, notes = HERE / "expected.safetensors", HERE / "expected.json"
    tensors = load_file(numbers) if numbers.exists() else {}
    told = json.loads(notes.read_text()) if notes.exists() else {"variants": {}, "generation": {}}
    for variant, overrides in VARIANTS[package].items():
        name = variant.split(".")[0]
        model, ids, frames = load(package, name, overrides), to_ids(package, name, PROMPT), shown[name]
        features, logits = compute(model, ids, frames)
        for other in (frames[::-1], 255 - frames):
            moved = (compute(model, ids, other)[1] - logits)[-LAST:].abs().mean(-1).min()
            assert moved > 0.1, f"{variant}: another video moves a position's logits by no more than {moved}"
        positions = torch.linspace(0, len(features) - 1, SAMPLED).round().long()
        tensors[f"{variant}.features"] = features[positions].clone()
        tensors[f"{variant}.logits"] = logits[-LAST:].clone()
        tensors[f"{variant}.positions"] = positions
        told["variants"][variant] = {
            "checkpoint": name,
            "config": overrides,
            "num_visual_tokens": len(features),
            "package": package,
        }
        assert told.setdefault("input_ids", ids) == ids
        if variant in GENERATED:
            question = to_ids(package, name, QUESTION)
            told["generation"][variant] = {"input_ids": question, "new_tokens": generate(model, question, frames)}
        print(f"{variant}: {len(features)} tokens, logits of size {logits.std():.2f}")
    save_file(tensors, numbers, metadata={"format": "pt"})
    write_json(notes, told)


def run(package: str, shown: dict) -> None:
    if package == "llava":
        from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionConfig

        # The one patch: the SigLIP tower takes its sizes from these defaults, not from the config.json that it loads.
        SigLipVisionConfig.__init__ = functools.partialmethod(SigLipVisionConfig.__init__, **TOWER_SIZES)
        make_towers(Path(os.environ["HF_HUB_CACHE"]))
        make_checkpoint("siglip", "150KB")
        make_checkpoint("clip", "1GB")
    freeze(package, shown)


def compare() -> None:
    """How the variants differ from one another, and where they do not."""
    from safetensors.torch import load_file

    tensors = load_file(HERE / "expected.safetensors")
    logits = {name.removesuffix(".logits"): value for name, value in tensors.items() if name.endswith(".logits")}
    same = [  # 24 patches a side: bilinear halving takes the middle of two, which is their average
        *({f"clip.llava.{pool}.{newline}" for pool in ("bilinear", "average")} for newline in ("grid", "one_token")),
        {"clip.llava.bilinear.no_token", "clip.llava.average.no_token", "clip.longva.average"},
    ]
    for one in logits:
        for other in logits:
            apart = (logits[one] - logits[other]).abs()
            if one == other or any({one, other} <= group for group in same):
                assert apart.max() < 1e-4, (one, other)
            else:
                assert apart.mean(-1).min() > 0.1, (one, other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llava-next", type=Path, required=True, help="checkout of LLaVA-VL/LLaVA-NeXT")
    parser.add_argument("--longva", type=Path, required=True, help="checkout of EvolvingLMMs-Lab/LongVA")
    parser.add_argument("--package", choices=list(VARIANTS), help=argparse.SUPPRESS)  # what a child process does
    args = parser.parse_args()
    shown = {name: video(FRAMES, tower["image_size"]) for name, tower in TOWERS.items()}
    if args.package:
        run(args.package, shown)
        return
    for name in ("expected.json", "expected.safetensors"):
        (HERE / name).unlink(missing_ok=True)
    # A process for each package: both register a model of type "llava_qwen".
    with tempfile.TemporaryDirectory() as hub:
        for package, path in (("llava", args.llava_next), ("longva", args.longva / "longva")):
            env = {"PYTHONPATH": str(path.resolve()), "HF_HUB_CACHE": hub, "HF_HUB_OFFLINE": "1"}
            env |= {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
            subprocess.run([sys.executable, *sys.argv, "--package", package], env=os.environ | env, check=True)
    digests = {name: hashlib.sha256(frames.tobytes()).hexdigest() for name, frames in shown.items()}
    told = json.loads((HERE / "expected.json").read_text())
    write_json(HERE / "expected.json", told | {"num_frames": FRAMES, "prompt": PROMPT, "video_sha256": digests})
    compare()


if __name__ == "__main__":
    main()
