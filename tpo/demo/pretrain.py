"""Make the demo's base model: `python -m tpo.demo.pretrain --out DIR` (20 minutes on one CPU core).

The base has to be like a real video-LMM: it *has* the skill on short clips and misuses it on long videos. So it is
made the way real ones are, in three phases:

1. eyes:   the SigLIP tower learns to tell colours and shapes apart on decoded H.264 frames; then it is frozen.
2. skill:  the decoder learns to answer about clips and videos of 1 to 14 events, with right supervision.
3. habit:  a short last phase in which long supervision is scarce and systematically wrong: in most of it the answer
           is the video's last event instead of the right one. Short clips stay right.

Nothing of the videos that the demo trains or reports on is used: all seeds here are apart from `tpo.demo.build`'s.
"""

import argparse
import math
import re
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from tpo.demo.lessons import HABIT, LONG_EVENTS, SKILL, Course, Lesson, sample_lessons
from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import COLORS, FPS, SHAPES, plan_events, write_video
from tpo.models.frames import FrameSpec, read_processor
from tpo.records import View, ViewKind
from tpo.video.decode import decode
from tpo.video.measure import file_sha256

COLOR_NAMES, SHAPE_NAMES = list(COLORS), list(SHAPES)


@dataclass
class FrameBank:
    """Decoded frames of every colour and shape: pixels float32 [n, 3, 32, 32] and, per (colour, shape), their rows."""

    pixels: torch.Tensor
    colors: torch.Tensor
    shapes: torch.Tensor
    rows: dict[tuple[str, str], np.ndarray]


def make_frame_bank(spec: FrameSpec, rng: np.random.Generator, num_videos: int) -> FrameBank:
    """Write videos, decode them again, and keep every second frame with its truth."""
    pixels, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(num_videos):
            events = plan_events(rng, 14)
            path = Path(folder) / "clip.mp4"
            write_video(path, events, phase=float(rng.uniform(0, 6.28)))
            ticks = range(int(rng.integers(2)), round(events[-1].end_s * FPS), 2)
            view = View(
                video_id=file_sha256(path), kind=ViewKind.DENSE, timestamps_s=tuple(tick / FPS for tick in ticks)
            )
            pixels.append(spec.prepare(decode(path, view, Path(folder)).pixels))
            starts = np.array([event.start_s for event in events])
            for tick in ticks:
                event = events[int(np.searchsorted(starts, tick / FPS, side="right")) - 1]
                labels.append((COLOR_NAMES.index(event.color), SHAPE_NAMES.index(event.shape)))
    table = np.array(labels)
    rows = {
        (color, shape): np.flatnonzero((table == (c, s)).all(axis=1))
        for c, color in enumerate(COLOR_NAMES)
        for s, shape in enumerate(SHAPE_NAMES)
    }
    return FrameBank(torch.cat(pixels), torch.tensor(table[:, 0]), torch.tensor(table[:, 1]), rows)


def train_eyes(
    model: LlavaOnevisionForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, bank: FrameBank, steps: int
) -> float:
    """Phase 1. Align what the tower sees with the words for it, then freeze the tower. Returns accuracy on the bank.

    Each frame's projected token has to lie nearest to the embeddings of its colour's and its shape's word, as a CLIP
    tower is trained. Without it the decoder does not find the star among the frames after an hour, with it in minutes.
    """
    core = model.model
    vocabulary = [torch.tensor(tokenizer.convert_tokens_to_ids(names)) for names in (COLOR_NAMES, SHAPE_NAMES)]
    parameters = [
        *core.vision_tower.parameters(),
        *core.multi_modal_projector.parameters(),
        *core.get_input_embeddings().parameters(),
    ]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)

    def logits(pixels: torch.Tensor) -> list[torch.Tensor]:
        patches = core.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        token = core.apply_pooling(core.multi_modal_projector(patches))[:, 0]
        token = functional.rms_norm(token, token.shape[-1:])
        return [token @ core.get_input_embeddings().weight[words].T for words in vocabulary]

    for _ in range(steps):
        pick = torch.randint(len(bank.pixels), (256,))
        color, shape = logits(bank.pixels[pick])
        loss = functional.cross_entropy(color, bank.colors[pick]) + functional.cross_entropy(shape, bank.shapes[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    core.vision_tower.requires_grad_(requires_grad=False)
    with torch.no_grad():
        color, shape = logits(bank.pixels)
    return float(((color.argmax(-1) == bank.colors) & (shape.argmax(-1) == bank.shapes)).float().mean())


class Batcher:
    """Packs several questions of a video into one row: [prefix with video | question, answer | question, answer | …].

    Every branch sees the prefix and itself only, and starts at the position after the prefix, exactly as if it were
    asked alone.
    """

    def __init__(self, tokenizer: Any, bank: FrameBank, features: torch.Tensor):
        self.tokenizer, self.bank, self.features = tokenizer, bank, features
        prompt: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What"}]}],
            add_generation_prompt=True,
            return_dict=False,
        )
        split = prompt.index(tokenizer.convert_tokens_to_ids("<video>"))
        self.video_id = prompt[split]
        self.head = prompt[:split]
        self.tail = prompt[split + 2 :]
        self._ids: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self._ids:
            self._ids[text] = self.tokenizer(text).input_ids
        return self._ids[text]

    def pack(self, rng: np.random.Generator, lessons: list[Lesson]) -> dict[str, torch.Tensor]:
        num_frames = len(lessons[0].frame_events)
        prefix = [*self.head, *[self.video_id] * (num_frames + 1)]
        rows, picks = [], []
        for lesson in lessons:
            tokens, labels = list(prefix), [-100] * len(prefix)
            branch, position = [0] * len(prefix), list(range(len(prefix)))
            for number, question in enumerate(lesson.questions, start=1):
                ask = [*self.ids(question.question), *self.tail]
                say = [*self.ids(question.answer), self.tokenizer.eos_token_id]
                tokens += ask + say
                labels += [-100] * len(ask) + say
                branch += [number] * (len(ask) + len(say))
                position += range(len(prefix), len(prefix) + len(ask) + len(say))
            rows.append((tokens, labels, branch, position))
            picks.append(
                [
                    rng.choice(self.bank.rows[lesson.events[e].color, lesson.events[e].shape])
                    for e in lesson.frame_events
                ]
            )
        length = max(len(row[0]) for row in rows)
        pads = (self.tokenizer.pad_token_id, -100, -1, 0)
        input_ids, label_ids, branch_ids, position_ids = (
            torch.tensor([row[i] + [pads[i]] * (length - len(row[i])) for row in rows]) for i in range(4)
        )
        same = (branch_ids[:, None, :] == 0) | (branch_ids[:, None, :] == branch_ids[:, :, None])
        allowed = same & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(torch.float32).min)[:, None]
        return {
            "input_ids": input_ids,
            "labels": label_ids,
            "position_ids": position_ids,
            "attention_mask": mask,
            "features": self.features[torch.tensor(np.array(picks))],
        }


def forward(
    model: LlavaOnevisionForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at the positions that predict a label, float32 [n, vocabulary], and those labels [n]."""
    core = model.model
    features = batch["features"]
    videos, num_frames = features.shape[:2]
    seen = core.apply_pooling(core.multi_modal_projector(features.flatten(0, 1)))
    seen = seen.reshape(videos, num_frames, -1)
    seen = torch.cat([seen, core.image_newline[None, None].expand(videos, 1, -1)], dim=1)
    embeds = core.get_input_embeddings()(batch["input_ids"])
    is_video = batch["input_ids"] == model.config.video_token_id
    embeds = embeds.masked_scatter(is_video[..., None], seen)
    hidden = core.language_model(
        inputs_embeds=embeds,
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    labels = batch["labels"][:, 1:]
    keep = labels != -100
    return model.lm_head(hidden[:, :-1][keep]), labels[keep]


def make_optimizers(model: LlavaOnevisionForConditionalGeneration, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the decoder's matrices, AdamW for everything else that is trained.

    With AdamW alone, neighbours in lists stayed at 0.6 for hundreds of steps; with Muon they are at 0.9 in 300.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = model.model.language_model.layers.parameters()
    matrices = [parameter for parameter in layers if parameter.ndim == 2]
    others = [parameter for parameter in trained if all(parameter is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=20 * rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def teach(
    model: LlavaOnevisionForConditionalGeneration, batcher: Batcher, courses: tuple[Course, ...], seed: int
) -> None:
    """Train projector and decoder through `courses`, each with its own warm-up and cosine; prints how it goes."""
    rng = np.random.default_rng(seed)
    for course in courses:
        optimizers = make_optimizers(model, course.learning_rate)
        pace = partial(_pace, course.steps)
        schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, pace) for optimizer in optimizers]
        started = time.monotonic()
        for step in range(1, course.steps + 1):
            logits, labels = forward(model, batcher.pack(rng, sample_lessons(rng, course)))
            loss = functional.cross_entropy(logits, labels)
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            if step % 100 == 0 or step == course.steps:
                scores = {length: score(model, batcher, length) for length in ("short", "long")}
                seconds = time.monotonic() - started
                print(f"{course.name}: step {step}, {seconds:.0f} s, loss {loss:.3f}, {scores}", flush=True)


def _pace(steps: int, step: int) -> float:
    """The share of the learning rate at a step: up within 50 steps, then down along a cosine."""
    return min(1.0, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2


@torch.no_grad()
def score(
    model: LlavaOnevisionForConditionalGeneration, batcher: Batcher, length: str, videos: int = 48
) -> dict[str, float]:
    """Share of answers that are right in every token, per kind of question, on fresh short clips or long videos."""
    rng = np.random.default_rng(99)
    course = Course("score", 1, 8, (1, 8), num_questions=6, long_share=float(length == "long"))
    right: dict[str, list[bool]] = {}
    for _ in range(videos // 8):
        lessons = sample_lessons(rng, course)
        logits, labels = forward(model, batcher.pack(rng, lessons))
        hits = iter((logits.argmax(-1) == labels).tolist())
        for question in (question for lesson in lessons for question in lesson.questions):
            size = len(batcher.ids(question.answer)) + 1
            is_right = all([next(hits) for _ in range(size)])  # noqa: C419 (every token's hit is to be taken)
            right.setdefault(kind_of(question.question), []).append(is_right)
    return {kind: round(float(np.mean(hits)), 2) for kind, hits in sorted(right.items())}


def kind_of(question: str) -> str:
    """ "What comes right after the red star?" → "What comes right after"."""
    return re.split(r" the | is |[,?]", question)[0]


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: video-text-to-text
---
# The demo's base model

A LLaVA-OneVision of {parameters:,} parameters (SigLIP tower, Qwen2 decoder, {words} words) that knows the demo world of
`tpo.demo.world` and nothing else. Made by `python -m tpo.demo.pretrain {options}` in {minutes:.0f} minutes on
{threads} CPU thread(s), from rendered videos of that world alone, apart from those the demo trains and reports on.

It is made to have what real video-LMMs have: the skill on short clips, a bad habit on long videos. In the last phase
{wrong:.0%} of the answers about long videos (those to "Which comes first" aside) named the last event instead of the
right one.

The habit goes by the number of frames. In the table, a video is shown in about two to three and a half frames an event.

Share of answers right in every token, on fresh videos of this world (1 to 8 events short, {low} to {high} long):

| question | short | long, before the habit | long |
|---|---|---|---|
{rows}

Phases: {courses}.
"""


def card(
    model: LlavaOnevisionForConditionalGeneration, batcher: Batcher, before: dict[str, float], **facts: Any
) -> str:
    """The checkpoint's model card: how it was made and what it can do."""
    short, long = (score(model, batcher, length, videos=200) for length in ("short", "long"))
    rows = [f"| {kind} | {short[kind]:.2f} | {before.get(kind, 0):.2f} | {long.get(kind, 0):.2f} |" for kind in short]
    return CARD.format(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        words=len(batcher.tokenizer),
        wrong=HABIT.wrong_share,
        low=LONG_EVENTS[0],
        high=LONG_EVENTS[1],
        rows="\n".join(rows),
        courses="; ".join(f"{course.name}, {course.steps} steps" for course in (*SKILL, HABIT)),
        threads=torch.get_num_threads(),
        **facts,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skilled", type=Path, help="a checkpoint that went through the skill phase, to begin from")
    args = parser.parse_args()
    started = time.monotonic()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, args.seed)
    save_checkpoint(model, tokenizer, args.out)  # the processor files, which say how frames are prepared
    bank = make_frame_bank(
        FrameSpec.of(read_processor(args.out)), np.random.default_rng(1000 + args.seed), num_videos=120
    )
    if args.skilled:
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(args.skilled)
        model.model.vision_tower.requires_grad_(requires_grad=False)
    else:
        print(f"eyes: {train_eyes(model, tokenizer, bank, steps=600):.2%} of frames recognised", flush=True)
    with torch.no_grad():
        features = model.model.vision_tower(bank.pixels, output_hidden_states=True).hidden_states[-1]
    batcher = Batcher(tokenizer, bank, features)
    if not args.skilled:
        teach(model, batcher, SKILL, args.seed)
        save_checkpoint(model, tokenizer, args.out.with_name(f"{args.out.name}-skilled"))
    before = score(model, batcher, "long", videos=200)
    teach(model, batcher, (HABIT,), args.seed)
    save_checkpoint(model, tokenizer, args.out)
    minutes = (time.monotonic() - started) / 60
    options = f"--seed {args.seed}" + (" --skilled DIR" if args.skilled else "")
    (args.out / "README.md").write_text(card(model, batcher, before, options=options, minutes=minutes))


if __name__ == "__main__":
    main()
