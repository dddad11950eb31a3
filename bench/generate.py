"""Several questions about one video: shared prefix against one call each. Time, and tokens through the decoder.

    python bench/generate.py            # a small random-weight model, 32 frames
    python bench/generate.py --quick    # the same with fewer layers, under a minute on two cores
    python bench/generate.py --size 7b --device cuda --dtype bfloat16 --frames 32 96    # LLaVA-Video's real shape

Either way the same function answers the same questions, greedily and with all tokens; "one call each" runs tower and
decoder over the video anew for every question. The last line is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2 import Qwen2Config
from transformers.models.siglip import SiglipVisionConfig

from tpo.models.llava_video import LlavaVideo, LlavaVideoConfig, LlavaVideoForConditionalGeneration
from tpo.models.video_lmm import VideoLMM
from tpo.video.decode import Frames

QUESTIONS = (1, 3, 8)
NEW_TOKENS = 16
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    # Wide enough that multiplying matrices is what takes the time; 196 + 14 tokens a frame as in LLaVA-Video.
    "small": {
        "text": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "heads": 6, "kv": 2},
        "tower": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 3},
    },
    "quick": {
        "text": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "heads": 4, "kv": 2},
        "tower": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    },
    "7b": {
        "text": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "heads": 28, "kv": 4},
        "tower": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16},
    },
}
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{{ '<video>' if c['type'] == 'video' else c['text'] }}{% endfor %}{% endfor %}"
)


def make_model(size: str, device: str, dtype: torch.dtype, folder: Path) -> VideoLMM:
    """LLaVA-Video with random weights: bilinear pooling, a newline behind every row."""
    text, tower = dict(SIZES[size]["text"]), SIZES[size]["tower"]
    words = ["<video>", "<end>", "<unk>", *(f"w{number}" for number in range(200))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "<end>", "unk_token": "<unk>", "additional_special_tokens": ["<video>"]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    config = LlavaVideoConfig(
        vision_config=SiglipVisionConfig(image_size=384, patch_size=14, vision_use_head=False, **tower),
        text_config=Qwen2Config(
            vocab_size=152_064 if size == "7b" else 1024,
            num_attention_heads=text.pop("heads"),
            num_key_value_heads=text.pop("kv"),
            max_position_embeddings=131_072,
            **text,
        ),
        image_token_index=2,
        video_token_index=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = LlavaVideoForConditionalGeneration(config)
    model = model.to(dtype).eval()
    processor = {"size": {"height": 384, "width": 384}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return VideoLMM(
        id=size, folder=folder, model=model, tokenizer=tokenizer, family=LlavaVideo(config, processor, None),
        chat_template=TEMPLATE, time_instruction=False, max_tokens=131_072,
    )  # fmt: skip


@contextmanager
def counting_tokens(model: VideoLMM) -> Iterator[list[int]]:
    """Tokens that go through the decoder meanwhile, one entry a forward."""
    counts: list[int] = []

    def count(_: Any, arguments: tuple[torch.Tensor, ...], __: Any) -> None:
        counts.append(arguments[0].numel())

    handle = model.model.get_input_embeddings().register_forward_hook(count)
    yield counts
    handle.remove()


def timed(model: VideoLMM, device: str, work: Any) -> tuple[float, int]:
    """Seconds, and tokens through the decoder."""
    with counting_tokens(model) as counts:
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, sum(counts)


def compare(model: VideoLMM, num_frames: int, repeats: int, device: str) -> dict[str, float]:
    pixels = np.random.default_rng(0).integers(0, 256, (num_frames, 384, 384, 3), dtype=np.uint8)
    frames = Frames(pixels, np.arange(num_frames, dtype=float), float(num_frames), "none", "")
    model.answer(frames, "w0", 2)  # whatever happens once only
    figures: dict[str, float] = {}
    for count in QUESTIONS:
        asked = [" ".join(f"w{(7 * number + word) % 200}" for word in range(20 + number)) for number in range(count)]
        ways = {
            "shared": lambda asked=asked: model.generate(frames, asked, NEW_TOKENS),
            "each": lambda asked=asked: [model.answer(frames, question, NEW_TOKENS) for question in asked],
        }
        measured: dict[str, list[tuple[float, int]]] = {way: [] for way in ways}
        for _ in range(repeats):  # in turns, so that what else the machine does meets both
            for way, work in ways.items():
                measured[way].append(timed(model, device, work))
        seconds = {way: statistics.median(s for s, _ in runs) for way, runs in measured.items()}
        tokens = {way: runs[0][1] for way, runs in measured.items()}
        figures[f"speedup_{count}_questions"] = seconds["each"] / seconds["shared"]
        figures[f"tokens_ratio_{count}_questions"] = tokens["each"] / tokens["shared"]
        print(
            f"  {num_frames:3} frames, {count} question{'s' if count > 1 else ' '}: each {seconds['each']:7.2f} s and "
            f"{tokens['each']:7,} tokens, shared {seconds['shared']:7.2f} s and {tokens['shared']:7,} tokens: "
            f"{figures[f'speedup_{count}_questions']:.2f} times as fast, target {0.8 * count:.1f}",
            flush=True,
        )
    if device == "cuda":
        figures["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        print(f"  {num_frames:3} frames: peak memory {figures['peak_memory_gb']:.1f} GB")
        torch.cuda.reset_peak_memory_stats()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer layers, one repeat")
    parser.add_argument("--size", choices=[size for size in SIZES if size != "quick"], default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--frames", nargs="+", type=int, default=[32])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    size, repeats = ("quick", 1) if args.quick else (args.size, args.repeats)
    with TemporaryDirectory() as scratch:
        model = make_model(size, args.device, getattr(torch, args.dtype), Path(scratch))
    print(f"LLaVA-Video, {size}, {args.dtype} on {args.device}; {NEW_TOKENS} new tokens a question")
    result: dict[str, Any] = {"size": size, "device": args.device, "dtype": args.dtype}
    for num_frames in args.frames:
        figures = compare(model, num_frames, repeats, args.device)
        result |= (
            figures if num_frames == args.frames[0] else {f"{k}_{num_frames}_frames": v for k, v in figures.items()}
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
