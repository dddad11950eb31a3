"""A video-LMM: frames and questions in, answers and their log-probabilities out.

    model = load_model("demo/checkpoint", dtype="float32", device="cpu")
    model.answer(frames, "What comes right after the red star?", max_new_tokens=8)

The same code loads a 7B checkpoint of the same family, a hub id, or an adapter folder on top of either.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging as transformers_logging

from tpo.errors import UserError
from tpo.models import llava_onevision
from tpo.models.frames import FrameSpec, prepare_frames
from tpo.records import content_id
from tpo.store import MANIFEST, digest
from tpo.video.decode import Frames

FAMILIES = {llava_onevision.MODEL_TYPE: llava_onevision}


@dataclass
class VideoLMM:
    """A loaded model with everything needed to prompt it. `id` stands for its files, which lie in `folder`."""

    id: str
    folder: Path
    model: Any
    tokenizer: Any
    frame_spec: FrameSpec
    family: Any

    def prompt_ids(self, question: str, num_frames: int) -> list[int]:
        """Token ids of "video, question, your turn", the video as one placeholder per feature."""
        content = [{"type": "video"}, {"type": "text", "text": question}]
        ids: list[int] = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, return_dict=False
        )
        video = self.model.config.video_token_id
        if ids.count(video) != 1:
            raise UserError(
                f"The chat template made {ids.count(video)} video placeholders of one video and the question "
                f"{question!r}; expected 1. Does the question contain the placeholder's text?"
            )
        at = ids.index(video)
        return [*ids[:at], *[video] * self.family.num_video_tokens(self.model.config, num_frames), *ids[at + 1 :]]

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, with the token that ends the model's turn."""
        return [*self.tokenizer(answer, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]

    def pixel_values(self, frames: Frames) -> torch.Tensor:
        """float [n, 3, h, w] in the model's dtype on its device."""
        return prepare_frames(frames.pixels, self.frame_spec).to(self.model.device, self.model.dtype)

    def answer(self, frames: Frames, question: str, max_new_tokens: int) -> str:
        """The model's greedy answer to one question about these frames."""
        return self.answers([(frames, question)], max_new_tokens, batch_size=1)[0]

    def answers(self, asked: Sequence[tuple[Frames, str]], max_new_tokens: int, batch_size: int) -> list[str]:
        """Greedy answers, in the order asked. Up to `batch_size` prompts with equally many frames run together."""
        answers = [""] * len(asked)
        by_frames: dict[int, list[int]] = {}
        for number, (frames, _) in enumerate(asked):
            by_frames.setdefault(len(frames.pixels), []).append(number)
        for numbers in by_frames.values():
            for first in range(0, len(numbers), batch_size):
                batch = numbers[first : first + batch_size]
                for number, text in zip(batch, self._generate([asked[n] for n in batch], max_new_tokens), strict=True):
                    answers[number] = text
        return answers

    @torch.inference_mode()
    def _generate(self, asked: Sequence[tuple[Frames, str]], max_new_tokens: int) -> list[str]:
        prompts = [self.prompt_ids(question, len(frames.pixels)) for frames, question in asked]
        longest = max(len(prompt) for prompt in prompts)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        output = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            pixel_values_videos=torch.stack([self.pixel_values(frames) for frames, _ in asked]),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        texts = self.tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @torch.inference_mode()
    def answer_logprobs(
        self, frames: Frames, questions: Sequence[str], answers: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Log-probability (sum over tokens, end of turn included) of each candidate answer to each question.

        The tower runs once for all questions; the candidates of one question run as one batch.
        """
        features = self.family.encode_video(self.model, self.pixel_values(frames)[None])
        scores = []
        for question, candidates in zip(questions, answers, strict=True):
            prompt = self.prompt_ids(question, len(frames.pixels))
            scores.append(self._score(prompt, [self.answer_ids(answer) for answer in candidates], features))
        return scores

    def _score(self, prompt: list[int], answers: list[list[int]], features: torch.Tensor) -> list[float]:
        longest = max(len(answer) for answer in answers)
        pad = self.tokenizer.pad_token_id
        rows = torch.tensor([prompt + answer + [pad] * (longest - len(answer)) for answer in answers])
        rows = rows.to(self.model.device)
        is_answer = torch.tensor([[i < len(answer) for i in range(longest)] for answer in answers])
        repeated = BaseModelOutputWithPooling(pooler_output=features.expand(len(answers), -1, -1))
        logits = self.model(
            input_ids=rows,
            attention_mask=torch.cat([torch.ones(len(answers), len(prompt)), is_answer], dim=1).to(rows),
            mm_encoder_outputs={"video": repeated},
            logits_to_keep=longest + 1,
            use_cache=False,
        ).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1).gather(-1, rows[:, len(prompt) :, None])[..., 0]
        total = (logprobs * is_answer.to(logprobs)).sum(dim=1)
        return [float(value) for value in total]


def load_model(checkpoint: str, *, revision: str | None = None, dtype: str, device: str = "auto") -> VideoLMM:
    """Load a checkpoint folder, a hub id, or an adapter folder (its base is loaded first, the adapter is merged).

    Raises:
        UserError: there is no such folder, it holds no checkpoint, or its family is not supported.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = Path(checkpoint)
    adapter = None
    if (folder / "adapter_config.json").is_file():
        adapter = folder
        config = json.loads((folder / "adapter_config.json").read_text())
        checkpoint, revision = config["base_model_name_or_path"], config.get("revision")
        folder = Path(checkpoint)
    config = _read_config(checkpoint, revision)
    if config.model_type not in FAMILIES:
        raise UserError(
            f"{checkpoint} is a {config.model_type!r} model; supported are: {', '.join(FAMILIES)}. "
            "A new family is a new file in tpo/models and a row in FAMILIES."
        )
    family = FAMILIES[config.model_type]
    model = family.MODEL_CLASS.from_pretrained(checkpoint, revision=revision, dtype=getattr(torch, dtype))
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    local = _local_folder(checkpoint, revision)
    return VideoLMM(
        id=content_id(*[_content(part) for part in (local, adapter) if part is not None], dtype),
        folder=local,
        model=model.eval().to(device),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint, revision=revision),
        frame_spec=FrameSpec.load(local),
        family=family,
    )


def _content(folder: Path) -> str:
    """A digest of a checkpoint's own files: neither where they lie nor when a stage made them changes it."""
    return digest(*sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST))


def _read_config(checkpoint: str, revision: str | None) -> Any:
    looks_like_folder = checkpoint.startswith((".", "/")) or checkpoint.count("/") != 1
    if not (Path(checkpoint) / "config.json").is_file() and (looks_like_folder or Path(checkpoint).exists()):
        raise UserError(
            f"The base model folder {checkpoint!r} does not exist or has no config.json. "
            "Set model.base in params.yaml to a checkpoint folder or a hub id."
        )
    try:
        return AutoConfig.from_pretrained(checkpoint, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint!r} is neither a checkpoint folder nor a reachable hub id: {str(error).splitlines()[0]} "
            "Set model.base in params.yaml to a checkpoint folder or a hub id."
        ) from error


def _local_folder(checkpoint: str, revision: str | None) -> Path:
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(checkpoint, revision=revision))
