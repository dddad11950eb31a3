"""A video-LMM: frames and questions in, answers and their log-probabilities out.

    model = load_model(ModelParams(base="demo/checkpoint", dtype="float32"))
    model.generate(frames, ["What comes right after the red star?", "What comes first?"], max_new_tokens=8)

Everything about one video shares its prefix: tower and decoder run over the video once, and each question or answer
goes on from there (`tpo.models.prefix`). The families differ in what `tpo.models.family` lists, and in nothing else.
"""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tpo.errors import TooLongError, UserError
from tpo.models.checkpoint import ORIGIN, PROCESSOR_FILES
from tpo.models.family import Family, VideoInput
from tpo.models.prefix import Rows, VideoPrefix, common_prefix
from tpo.records import Prompt, content_id
from tpo.video.decode import Frames

# Behind a video's newlines, this is what LLaVA-Video was trained with, down to the missing space after the list
# (LLaVA-NeXT, train.py and docs/LLaVA_Video_1003.md; lmms-eval's llava_vid puts it in the same place).
_TIME_INSTRUCTION = (
    "The video lasts for {duration_s:.2f} seconds, and {num_frames} frames are uniformly sampled from it. "
    "These frames are located at {times}.Please answer the following questions related to this video.\n"
)


_KEPT_FRAMES = 256  # ours: the tower's output for so many takes 0.4 GB at 7B


@dataclass(frozen=True)
class Generated:
    """What a model wrote; `ended` says whether it ended by itself, not at the longest that was allowed."""

    text: str
    num_tokens: int
    ended: bool


@dataclass(frozen=True)
class _Row:
    """One answer to be written: behind which video, after which prompt, by chance or not, and where it goes."""

    prefix: VideoPrefix
    prompt: list[int]
    chance: torch.Generator | None
    answers: list[Generated]


@dataclass
class VideoLMM:
    """A loaded model with everything needed to prompt it.

    Attributes:
        id: stands for its files and for the settings that change what it answers.
        folder: where its files lie.
        chat_template: the checkpoint's own.
        time_instruction: whether the prompt says in words how long the video is and when its frames are.
        max_tokens: the longest sequence that the decoder was made for.
    """

    id: str
    folder: Path
    model: Any
    tokenizer: Any
    family: Family
    chat_template: str
    time_instruction: bool
    max_tokens: int

    @property
    def bare(self) -> Any:
        """The model without PEFT's wrapper around it, if it has one; adapters act inside all the same."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def prepare(self, frames: Frames) -> VideoInput:
        """Frames as the model takes them. Preparing them once serves any number of questions."""
        return self.family.prepare(frames)

    def encode_video(self, video: VideoInput) -> list[torch.Tensor]:
        """The vision tower's output, the same for every question; `Family.project` makes features of it."""
        return self.family.encode(self.bare, video)

    def prompt_ids(self, video: VideoInput | None, question: str | Prompt, room: int = 0) -> list[int]:
        """Token ids of "video, question, your turn", with one placeholder for every feature of the video.

        Args:
            video: none = the question is asked without one.
            question: is data: what looks like a special token in it is written as plain text.
            room: tokens that must fit behind the prompt.

        Raises:
            UserError: the chat template does not show a video.
            TooLongError: the prompt is longer than the decoder can take. A prompt is never cut.
        """
        ids = self.prompt(video, question)
        if len(ids) + room > self.max_tokens:
            if video is None:
                raise TooLongError(
                    f"A prompt of {len(ids)} tokens and an answer of up to {room} are too long: {self.folder} was made "
                    f"for {self.max_tokens}."
                )
            most = (self.max_tokens - room - len(ids) + video.num_features) * video.num_frames // video.num_features
            raise TooLongError(
                f"{video.num_frames} frames make a prompt of {len(ids)} tokens and the answer takes up to {room}, but "
                f"{self.folder} was made for {self.max_tokens}. At this frame size at most {max(most, 0)} frames fit."
            )
        return ids

    def prompt(self, video: VideoInput | None, question: str | Prompt) -> list[int]:
        """`prompt_ids` of any length."""
        asked = question if isinstance(question, Prompt) else Prompt(user=question)
        content = [{"type": "video"}] * (video is not None)
        content.append({"type": "text", "text": self._asked(video, asked.user)})
        messages = [{"role": "user", "content": content}]
        if asked.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self._plain(asked.system)}]})
        text = self.tokenizer.apply_chat_template(
            messages, chat_template=self.chat_template, add_generation_prompt=True, tokenize=False
        )
        shown, wanted = text.count(self.family.template_video), int(video is not None)
        if shown != wanted:
            raise UserError(
                f"The chat template of {self.folder} wrote {shown} times {self.family.template_video!r} for "
                f"{'one video; expected once' if wanted else 'no video; expected never'}. "
                "Is it the template of a text-only model?"
            )
        if video is not None:
            text = text.replace(self.family.template_video, video.text)
        ids: list[int] = self.tokenizer(text + self._plain(asked.prefill), add_special_tokens=False).input_ids
        placeholders, num_features = ids.count(self.family.video_token_id), video.num_features if video else 0
        if placeholders != num_features:
            raise UserError(
                f"The tokenizer of {self.folder} made {placeholders} video tokens of {num_features} features. "
                "Does the tokenizer belong to this checkpoint?"
            )
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, with the token that ends the model's turn."""
        ids: list[int] = self.tokenizer(self._plain(answer), add_special_tokens=False).input_ids
        return [*ids, self.tokenizer.eos_token_id]

    def answer(self, frames: Frames, question: str, max_new_tokens: int) -> str:
        """The model's greedy answer to one question about these frames."""
        return self.generate(frames, [question], max_new_tokens)[0]

    def generate(
        self, frames: Frames, questions: Sequence[str], max_new_tokens: int, batch_size: int = 16
    ) -> list[str]:
        """Greedy answers to questions about one video: see `generate_many`."""
        found = self.generate_many([(frames, questions)], max_new_tokens, batch_size)[0]
        return [generated.text for generated in found]

    @torch.inference_mode()
    def generate_many(
        self,
        asked: Iterable[tuple[Frames | None, Sequence[str | Prompt]]],
        max_new_tokens: int,
        batch_size: int = 16,
        temperature: float = 0,
        seed: int = 0,
    ) -> list[list[Generated]]:
        """Answers to many questions about many views, whatever a checkpoint's generation_config.json says.

        Args:
            asked: videos with their questions; each video is taken in its turn, and runs through the model once. Frames
                that several of them share (`Frames.keys`) run through the tower once, if the tower sees each by itself.
            batch_size: answers that are written together, be they about one video or about several.
            temperature: 0 = the most probable token each time. Otherwise an answer depends on the seed, the question
                and how often it was asked before about the same frames, not on what it is written together with.

        Raises:
            UserError: see `prompt_ids`.
        """
        answers: list[list[Generated]] = []
        batch: list[_Row] = []
        encoded: dict[str, torch.Tensor] = {}
        for frames, questions in asked:
            answers.append([])
            if not questions:
                continue
            video = None if frames is None else self.prepare(frames)
            keys = () if frames is None else frames.keys
            prompts = [self.prompt_ids(video, question, max_new_tokens) for question in questions]
            features = None if video is None else self._encode_once(video, keys, encoded)
            prefix = self._run_prefix(video, prompts, features)
            for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
                before = questions[:number].count(question)
                chance = _chance(seed, keys, _text(question), before) if temperature else None
                batch.append(_Row(prefix, prompt, chance, answers[-1]))
                if len(batch) == batch_size:
                    self._write(batch, max_new_tokens, temperature)
                    batch.clear()
        if batch:
            self._write(batch, max_new_tokens, temperature)
        return answers

    def _write(self, batch: Sequence[_Row], max_new_tokens: int, temperature: float) -> None:
        """Write the answers of a batch, each to its list."""
        rows = Rows([(row.prefix, row.prompt) for row in batch])
        end = self.tokenizer.eos_token_id

        def following(logits: torch.Tensor) -> torch.Tensor:
            if not temperature:
                return logits.argmax(-1)
            odds = (logits.float() / temperature).softmax(-1).cpu()  # where generators give the same on any machine
            drawn = [torch.multinomial(of, 1, generator=row.chance) for of, row in zip(odds, batch, strict=True)]
            return torch.cat(drawn).to(logits.device)

        tokens = following(rows.run(keep=1)[:, -1])
        chosen = [tokens]
        ended = tokens == end
        while len(chosen) < max_new_tokens and not ended.all():
            tokens = following(rows.append(tokens))
            chosen.append(tokens)
            ended |= tokens == end
        for row, ids in zip(batch, torch.stack(chosen, dim=1).tolist(), strict=True):
            said = ids[: ids.index(end)] if end in ids else ids
            text = self.tokenizer.decode(said, skip_special_tokens=True).strip()
            row.answers.append(Generated(text, len(said), end in ids))

    def _encode_once(
        self, video: VideoInput, keys: Sequence[str], encoded: dict[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """The tower's output, of frames that were seen before taken from `encoded`, where the others are put."""
        if not (keys and self.family.frames_apart):
            return self.encode_video(video)
        new = [number for number, key in enumerate(keys) if key not in encoded]
        if new:
            (features,) = self.encode_video(replace(video, pixels=video.pixels[new]))
            encoded.update({keys[number]: one for number, one in zip(new, features, strict=True)})
        output = [torch.stack([encoded[key] for key in keys])]
        for oldest in list(encoded)[:-_KEPT_FRAMES]:
            del encoded[oldest]
        return output

    def answer_logprobs(
        self, frames: Frames, question: str, answers: Sequence[str], batch_size: int = 16
    ) -> list[float]:
        """Log-probability of each candidate answer to one question: the sum over its tokens, end of turn included."""
        return self.option_logprobs(frames, [question], [answers], batch_size)[0]

    def option_logprobs(
        self,
        frames: Frames | None,
        questions: Sequence[str | Prompt],
        options: Sequence[Sequence[str]],
        batch_size: int = 16,
        *,
        whole: bool = True,
    ) -> list[list[float]]:
        """Of several multiple-choice questions about one video, the log-probability of every option as the answer.

        Args:
            frames: none = the questions are asked without the video.
            options: the candidate answers of each question.
            batch_size: candidates that go on from the video together.
            whole: whether an option is the whole answer, so that the end of the turn counts with it; of a letter what
                may follow it is left open.

        Raises:
            UserError: see `prompt_ids`.
        """
        return self.examine(frames, questions, options, [], 0, batch_size, whole=whole)[0]

    @torch.inference_mode()
    def examine(
        self,
        frames: Frames | None,
        questions: Sequence[str | Prompt],
        options: Sequence[Sequence[str]],
        written: Sequence[str | Prompt],
        max_new_tokens: int,
        batch_size: int = 16,
        *,
        whole: bool = True,
    ) -> tuple[list[list[float]], list[Generated]]:
        """`option_logprobs` of some questions and greedy answers to others, with the video run once for all of them.

        Args:
            written: questions to which answers of up to `max_new_tokens` tokens are written.
        """
        candidates = [[self.answer_ids(one)[: None if whole else -1] for one in of_one] for of_one in options]
        if not any(candidates) and not written:
            return [[] for _ in questions], []
        video = None if frames is None else self.prepare(frames)
        rooms = [max(map(len, of_one), default=0) for of_one in candidates]
        asked = [self.prompt_ids(video, one, room) for one, room in zip(questions, rooms, strict=True)]
        to_write = [self.prompt_ids(video, one, max_new_tokens) for one in written]
        prefix = self._run_prefix(video, asked + to_write, None if video is None else self.encode_video(video))
        rows = [(ids, one) for ids, of_one in zip(asked, candidates, strict=True) for one in of_one]
        batches = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
        scores = iter([score for batch in batches for score in _score(prefix, batch)])
        said: list[Generated] = []
        for first in range(0, len(to_write), batch_size):
            self._write(
                [_Row(prefix, ids, None, said) for ids in to_write[first : first + batch_size]], max_new_tokens, 0
            )
        return [[next(scores) for _ in of_one] for of_one in candidates], said

    def save(self, out: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write a folder that `load_model` reads: weights with tokenizer and processor files, or the adapter alone.

        Args:
            weights: of the model, whole, where it holds parts of them itself.
        """
        self.model.save_pretrained(out, state_dict=weights)
        if (out / "adapter_config.json").is_file():
            return
        self.tokenizer.save_pretrained(out)
        # Processors keep their own template beside the tokenizer's, which may be text-only.
        (out / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
        for name in PROCESSOR_FILES:
            if (self.folder / name).is_file():
                shutil.copy(self.folder / name, out / name)
        if (self.folder / ORIGIN).is_dir():
            shutil.copytree(self.folder / ORIGIN, out / ORIGIN)

    def _run_prefix(
        self, video: VideoInput | None, prompts: Sequence[list[int]], encoded: Sequence[torch.Tensor] | None
    ) -> VideoPrefix:
        shared = prompts[0][: common_prefix(prompts)]
        features = None if encoded is None else self.family.project(self.bare, encoded)
        return VideoPrefix(self.bare, self.family, video, features, shared)

    def _asked(self, video: VideoInput | None, question: str) -> str:
        if video is None or not self.time_instruction:
            return self._plain(question)
        times = ",".join(f"{time_s:.2f}s" for time_s in video.timestamps_s)
        instruction = _TIME_INSTRUCTION.format(duration_s=video.duration_s, num_frames=video.num_frames, times=times)
        return instruction + self._plain(question)

    def _plain(self, text: str) -> str:
        """Text without special tokens: a space behind the first character makes any of them plain words."""
        special = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        if not special:
            return text
        pattern = "|".join(re.escape(token) for token in special)
        return re.sub(pattern, lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _text(question: str | Prompt) -> str:
    return question if isinstance(question, str) else question.model_dump_json()


def _chance(seed: int, *what: Any) -> torch.Generator:
    """Of its own for each answer."""
    return torch.Generator().manual_seed(int(content_id(seed, *what), 16) >> 1)


def _score(prefix: VideoPrefix, batch: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """Sum of the log-probabilities of each answer's tokens behind its prompt.

    Answers of one token, such as letters, are read off where their prompt ends, which runs once for all of them.
    """
    if all(len(answer) == 1 for _, answer in batch):
        prompts = list(dict.fromkeys(tuple(prompt) for prompt, _ in batch))
        of_each = [prompts.index(tuple(prompt)) for prompt, _ in batch]
        return Rows([(prefix, prompt) for prompt in prompts]).score_next(of_each, [answer[0] for _, answer in batch])
    rows = Rows([(prefix, prompt + answer) for prompt, answer in batch])
    longest = max(len(answer) for _, answer in batch)
    logits = rows.run(keep=longest + 1)[:, :-1]
    logprobs = logits.float().log_softmax(-1).gather(-1, rows.ids[:, -longest:, None])[..., 0]
    return [float(row[longest - len(answer) :].sum()) for row, (_, answer) in zip(logprobs, batch, strict=True)]
