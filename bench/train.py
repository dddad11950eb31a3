"""A training step of pairs about long videos: shared prefixes against stock TRL with a custom video collator.

    python bench/train.py            # a small random-weight model on the CPU, some minutes
    python bench/train.py --quick    # a smaller one, under a minute on two cores
    python bench/train.py --size 7b --device cuda --dtype bfloat16 --frames 32 96    # LLaVA-Video's real shape

Both train the same adapter on the same pairs in one process, through `Trainer.train`, in turns: LoRA on the decoder,
gradient checkpointing, frames decoded beforehand, every step about videos that were not seen before. Stock TRL runs two
rows for each pair and the reference in every step, from pixels. Ours has the reference beforehand; the ratio "with the
reference pass" counts that too, spread over one epoch. The last line is one JSON object.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from generate import make_model
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, TrainerCallback

import tpo.training.features
from tpo.models.video_lmm import VideoLMM
from tpo.params import LoraParams, TrainParams
from tpo.records import Granularity, PreferencePair, QuestionType, View, ViewKind
from tpo.replies import ReplyCache
from tpo.training.branches import branching
from tpo.training.collator import VideoPairCollator, number_pairs
from tpo.training.features import VideoFeatures
from tpo.training.reference import reference_scores
from tpo.training.rows import PairRows, build_row
from tpo.training.scoring import add_row_scoring, score_tokens
from tpo.training.settings import lora_config, video_dpo_config
from tpo.training.trainer import VideoDPOTrainer
from tpo.video.decode import Frames

PAIRS_PER_STEP = 4
QUESTION_TOKENS, ANSWER_TOKENS = 20, 40
PAPER_PAIRS = 10_000
LORA = LoraParams(r=16, alpha=32)


@dataclass(frozen=True)
class NoiseFolder:
    """Videos of random frames, each always the same: reading costs next to nothing, and is not what is measured."""

    num_frames: int

    def frames(self, path: str, view: View) -> Frames:  # noqa: ARG002
        chance = np.random.default_rng(int(view.video_id))
        pixels = chance.integers(0, 256, (self.num_frames, 384, 384, 3), dtype=np.uint8)
        return Frames(pixels, np.arange(self.num_frames, dtype=float), float(self.num_frames), "none", "")


@dataclass
class StepTimes(TrainerCallback):
    """Seconds of every optimizer step."""

    device: str
    seconds: list[float] = field(default_factory=list)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = now(self.device)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(now(self.device) - self._started)


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def words(number: int, count: int) -> str:
    return " ".join(f"w{(7 * number + word) % 200}" for word in range(count))


def make_pairs(num_videos: int, pairs_per_video: int, num_frames: int) -> list[PreferencePair]:
    pairs = []
    for number in range(num_videos * pairs_per_video):
        video_id = str(number // pairs_per_video)
        view = View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=tuple(map(float, range(num_frames))))
        pairs.append(
            PreferencePair(
                id=str(number), video_id=video_id, query_id="", segment=None, granularity=Granularity.LOCALIZED,
                question_type=QuestionType.TEMPORAL_REASONING, view=view, question=words(number, QUESTION_TOKENS),
                chosen=words(number + 50, ANSWER_TOKENS), rejected=words(number + 100, ANSWER_TOKENS),
                chosen_tokens=ANSWER_TOKENS, rejected_tokens=ANSWER_TOKENS, chosen_view=view, rejected_view=view,
                model_id="", verdicts=(), judge="",
            )
        )  # fmt: skip
    return pairs


def settings(*, shared: bool) -> TrainParams:
    return TrainParams(
        beta=0.2, sft_alpha=1.0, learning_rate=1e-5, num_epochs=1, pairs_per_step=PAIRS_PER_STEP,
        pairs_per_device=PAIRS_PER_STEP if shared else 1, warmup_ratio=0.1, lora=LORA, save_every_steps=10**6, seed=0,
        sharing="video" if shared else "none", gradient_checkpointing=True,
    )  # fmt: skip


class Base:
    base, revision = "", None


class NamedVideo:
    path = ""


@dataclass(frozen=True)
class Setting:
    size: str
    device: str
    dtype: torch.dtype
    num_frames: int
    num_steps: int
    scratch: Path

    def model(self) -> VideoLMM:
        return make_model(self.size, self.device, self.dtype, self.scratch)


@dataclass(frozen=True)
class Measured:
    """Seconds of a pair in training, and in the reference pass before it; memory at its peak."""

    step_s: float
    reference_s: float
    peak_gb: float


def run(at: Setting, pairs: Sequence[PreferencePair], *, shared: bool) -> Measured:
    """Train once over the pairs; the first step is not counted."""
    gc.collect()  # trainers refer to themselves: the one before would hold its model and count in this one's memory
    model, params = at.model(), settings(shared=shared)
    if at.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    videos: Any = {pair.video_id: NamedVideo() for pair in pairs}
    folder: Any = NoiseFolder(at.num_frames)
    base: Any = Base()
    common: dict[str, Any] = {
        "args": video_dpo_config(
            params, at.scratch / "run", at.device, dtype=str(at.dtype).removeprefix("torch."), in_order=True
        ),
        "train_dataset": number_pairs(pairs, model),
        "processing_class": model.tokenizer,
        "peft_config": lora_config(model, base, params),
    }
    common["args"].save_strategy = "no"
    reference_s = 0.0
    if shared:
        rows = PairRows(pairs, VideoFeatures(model, videos, folder), model, "video")
        add_row_scoring(model.model, model.family)
        with TemporaryDirectory() as folder_of_scores, branching(model.model):
            started = now(at.device)
            scores = reference_scores(
                model, rows, ReplyCache(Path(folder_of_scores) / "scores.sqlite"), torch.device(at.device)
            )
            reference_s = (now(at.device) - started) / len(pairs)
        trainer = VideoDPOTrainer(model, rows=rows, data_collator=rows.collate, **common)
        trainer.use_reference(scores)
    else:
        trainer = VideoDPOTrainer(model, data_collator=VideoPairCollator(pairs, videos, folder, model), **common)
    times = StepTimes(at.device)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(times)
    trainer.train()
    peak_gb = torch.cuda.max_memory_allocated() / 1e9 if at.device == "cuda" else float("nan")
    return Measured(statistics.median(times.seconds[1:]) / PAIRS_PER_STEP, reference_s, peak_gb)


def compare(at: Setting, pairs_per_video: int) -> dict[str, float]:
    num_videos = (at.num_steps + 1) * PAIRS_PER_STEP // pairs_per_video
    pairs = make_pairs(num_videos, pairs_per_video, at.num_frames)
    stock = run(at, pairs, shared=False)
    ours = run(at, pairs, shared=True)
    speedup = stock.step_s / ours.step_s
    whole = stock.step_s / (ours.step_s + ours.reference_s)
    print(
        f"  {at.num_frames:3} frames, {pairs_per_video} pair{'s' if pairs_per_video > 1 else ' '} a video: stock TRL "
        f"{stock.step_s:8.3f} s a pair, shared {ours.step_s:7.3f} s (reference pass {ours.reference_s:.3f} s): "
        f"{speedup:.2f} times as fast, {whole:.2f} with the reference pass"
        + (f"; peak memory {stock.peak_gb:.1f} and {ours.peak_gb:.1f} GB" if at.device == "cuda" else ""),
        flush=True,
    )
    name = f"{pairs_per_video}_pair{'s' if pairs_per_video > 1 else ''}_per_video"
    figures = {
        f"speedup_vs_trl_{name}": speedup,
        f"speedup_vs_trl_{name}_with_reference_pass": whole,
        f"seconds_per_pair_{name}": ours.step_s,
        f"seconds_per_pair_trl_{name}": stock.step_s,
        f"projected_hours_of_{PAPER_PAIRS}_pairs_{name}": PAPER_PAIRS * (ours.step_s + ours.reference_s) / 3600,
    }
    if at.device == "cuda":
        figures |= {f"peak_memory_gb_{name}": ours.peak_gb, f"peak_memory_gb_trl_{name}": stock.peak_gb}
    return figures


def phases(at: Setting, pairs_per_video: int) -> dict[str, float]:
    """Where the time of one row goes, each part by itself, and how near all of it is to what the device can do."""
    model = at.model()
    pairs = make_pairs(1, pairs_per_video, at.num_frames)
    video = model.prepare(NoiseFolder(at.num_frames).frames("", pairs[0].view))
    with torch.no_grad():
        encoded = [one.to(at.device) for one in model.encode_video(video)]
    config: LoraConfig = lora_config(model, Base(), settings(shared=True))  # type: ignore[arg-type]
    add_row_scoring(model.model, model.family)
    model.model = get_peft_model(model.model, config)
    model.model.enable_input_require_grads()
    model.bare.activation_checkpointing_enable({"use_reentrant": False})
    model.model.train()
    trained = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-9)
    device = torch.device(at.device)
    whole = build_row(model, video, pairs).to(device)
    brief = [one.model_copy(update={"question": "w0", "chosen": "w1", "rejected": "w2"}) for one in pairs[:1]]
    bare_prefix = build_row(model, video, brief).to(device)
    hidden = torch.randn(len(whole.answers), model.bare.config.text_config.hidden_size, device=device, dtype=at.dtype)
    hidden.requires_grad_()

    def tower() -> None:
        with torch.no_grad():
            model.encode_video(video)

    def row(of: Any) -> None:
        with branching(model.bare):
            model.model(row=of, encoded=encoded).log_probs.sum().backward()

    def head() -> None:
        scores: Any = score_tokens(model.bare.get_output_embeddings(), hidden, whole.answers)
        scores.log_probs.sum().backward()

    spent = {
        "tower": timed(tower, at.device),
        "prefix": timed(lambda: row(bare_prefix), at.device),
        "head": timed(head, at.device),
        "optimizer": timed(optimizer.step, at.device) / PAIRS_PER_STEP * pairs_per_video,
    }
    spent["branches"] = max(0.0, timed(lambda: row(whole), at.device) - spent["prefix"] - spent["head"])
    total = sum(spent.values())
    floor = flops(model, video, whole.num_tokens, len(whole.answers)) / peak_flops(at)
    print(
        f"  {at.num_frames:3} frames, {pairs_per_video} of a video, {total:.3f} s a row: "
        + ", ".join(f"{name} {100 * s / total:.0f} %" for name, s in spent.items())
        + f"; arithmetic at the device's speed for large matrices: {floor:.3f} s, {100 * floor / total:.0f} % of it",
        flush=True,
    )
    return {f"share_{name}": s / total for name, s in spent.items()} | {"model_flop_utilisation": floor / total}


def timed(work: Callable[[], Any], device: str) -> float:
    work()
    seconds = []
    for _ in range(3):
        started = now(device)
        work()
        seconds.append(now(device) - started)
    return min(seconds)


def flops(model: VideoLMM, video: Any, num_tokens: int, num_answer_tokens: int) -> float:
    """Of a row trained with an adapter: tower once; decoder forward, again in backward, and gradients of its inputs."""
    bare, text = model.bare, model.bare.config.text_config
    tower = sum(p.numel() for p in bare.model.vision_tower.parameters())
    decoder = sum(p.numel() for p in bare.model.language_model.layers.parameters())
    attention = 2 * num_tokens**2 * text.num_attention_heads * text.head_dim if hasattr(text, "head_dim") else 0
    attention = attention or 2 * num_tokens**2 * text.hidden_size  # causal: half of both products
    patches = video.num_frames * (384 // 14) ** 2
    head = 3 * 2 * text.hidden_size * text.vocab_size * num_answer_tokens
    layers = text.num_hidden_layers
    # Backward through attention costs two and a half times its forward.
    return float(2 * tower * patches + 3 * 2 * decoder * num_tokens + (2 + 2.5) * attention * layers + head)


def peak_flops(at: Setting) -> float:
    """What the device makes of one large product of matrices in this dtype, floating point operations a second."""
    side = 8192 if at.device == "cuda" else 2048
    matrix = torch.randn(side, side, device=at.device, dtype=at.dtype)
    return 2 * side**3 / timed(lambda: matrix @ matrix, at.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer layers and frames, one step")
    parser.add_argument("--size", choices=["small", "7b"], default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--frames", nargs="+", type=int, default=[12])
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    size, frames, steps = ("quick", [6], 1) if args.quick else (args.size, args.frames, args.steps)
    tpo.training.features._KEPT_BYTES = 0  # noqa: SLF001 the tower's output is not carried from pass to pass
    print(f"LLaVA-Video, {size}, {args.dtype} on {args.device}, LoRA r {LORA.r}, {PAIRS_PER_STEP} pairs a step")
    result: dict[str, Any] = {"size": size, "device": args.device, "dtype": args.dtype}
    with TemporaryDirectory() as scratch:
        for num_frames in frames:
            at = Setting(size, args.device, getattr(torch, args.dtype), num_frames, steps, Path(scratch))
            figures = compare(at, 1) | compare(at, 4) | phases(at, 4)
            result |= (
                figures if num_frames == frames[0] else {f"{k}_{num_frames}_frames": v for k, v in figures.items()}
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
