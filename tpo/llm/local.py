"""A text or image-text model loaded here by transformers: captions, questions and verdicts without any server."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from tpo.errors import UserError
from tpo.llm.chat import ChatRequest, Failed, Keep, Picture, Reply
from tpo.params import LocalParams
from tpo.progress import waiting
from tpo.records import Reason, content_id
from tpo.store import MANIFEST, digest


class Local:
    """A `Backend`. Replies are written in batches; threads take turns."""

    usd_per_million = (0.0, 0.0)

    def __init__(self, params: LocalParams) -> None:
        """Raises UserError when there is no such checkpoint, or it is no chat model, or cannot be loaded here."""
        transformers_logging.disable_progress_bar()
        self.max_reply_tokens = params.max_reply_tokens
        self._params = params
        self._lock = Lock()
        try:
            config = AutoConfig.from_pretrained(params.checkpoint, **_source(params))
            self._sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            self._processor = _processor(params, config) if self._sees else _tokenizer(params)
            self._tokenizer = self._processor.tokenizer if self._sees else self._processor
            if self._processor.chat_template is None:
                raise UserError(f"{params.checkpoint} has no chat template: it is no model to chat with.")
            self._model = _model(params, AutoModelForImageTextToText if self._sees else AutoModelForCausalLM)
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            raise UserError(
                f"{params.checkpoint} is neither a folder nor a reachable hub id of a text or image-text model with "
                f"safetensors that transformers knows: {_first_line(error)}"
            ) from error
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._max_tokens: int = config.get_text_config().max_position_embeddings
        settings = (params.max_reply_tokens, params.temperature, params.dtype)
        self.id = f"{Path(params.checkpoint).name}@{content_id(_weights(params), *settings)}"

    def replies(self, requests: Iterable[tuple[int, ChatRequest]], keep: Keep) -> Iterator[tuple[int, Reply | Failed]]:
        """See `Backend.replies`. What does not fit the context is set aside, never cut."""
        drawn = iter(requests)
        while batch := list(islice(drawn, self._params.batch_size)):
            fitting = []
            for number, request in batch:
                with self._lock:
                    length = self._inputs([request])["input_ids"].shape[1]
                if length + self.max_reply_tokens <= self._max_tokens:
                    fitting.append((number, request))
                    continue
                detail = f"{length} tokens and a reply of {self.max_reply_tokens} do not fit {self._max_tokens}"
                yield number, Failed(Reason.REQUEST_FAILED, detail)
            for group in self._groups(fitting):
                written = self._write([request for _, request in group])
                for (number, _), reply in zip(group, written, strict=True):
                    keep(number, reply)
                    yield number, reply

    def _temperature(self, request: ChatRequest) -> float:
        return self._params.temperature if request.temperature is None else request.temperature

    def _groups(self, batch: Sequence[tuple[int, ChatRequest]]) -> Iterator[list[tuple[int, ChatRequest]]]:
        """Greedy ones together; one that is drawn by chance alone, so that its chance is its own."""
        greedy = [one for one in batch if not self._temperature(one[1])]
        if greedy:
            yield greedy
        yield from ([one] for one in batch if self._temperature(one[1]))

    @torch.inference_mode()
    def _write(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        temperature = self._temperature(requests[0])
        chance: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with self._lock:
            inputs = self._inputs(requests).to(self._model.device)
            if "pixel_values" in inputs:
                inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
            if temperature:
                chance = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
                torch.manual_seed(int(content_id(requests[0].prompt_id, requests[0].sample), 16) >> 1)
            output = self._model.generate(
                **inputs, max_new_tokens=self.max_reply_tokens, pad_token_id=self._tokenizer.pad_token_id, **chance
            )
        start = inputs["input_ids"].shape[1]
        used = inputs["attention_mask"].sum(-1).tolist()
        return [self._reply(ids[start:].tolist(), count) for ids, count in zip(output, used, strict=True)]

    def _reply(self, ids: list[int], input_tokens: int) -> Reply:
        ends = self._model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {self._tokenizer.eos_token_id}
        at = next((at for at, token in enumerate(ids) if token in ends), None)
        said = ids if at is None else ids[:at]
        text = self._tokenizer.decode(said, skip_special_tokens=True)
        return Reply(text=text, ended=at is not None, input_tokens=input_tokens, output_tokens=len(said))

    def _inputs(self, requests: Sequence[ChatRequest]) -> Any:
        """Tokens and pictures of a batch, as the model takes them. Under the lock: padding is a tokenizer's state."""
        turns = [self._turns(request) for request in requests]
        try:
            return self._processor.apply_chat_template(
                turns,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **({"processor_kwargs": {"padding": True}} if self._sees else {"padding": True}),
            )
        except TemplateError as error:  # some take no instructions, and say so
            raise UserError(
                f"The chat template of {self._params.checkpoint} does not take instructions and a question: "
                f"{_first_line(error)}. Choose another model."
            ) from error

    def _turns(self, request: ChatRequest) -> list[dict[str, Any]]:
        if not self._sees:
            if any(isinstance(part, Picture) for part in request.parts):
                raise UserError(f"{self._params.checkpoint} sees no pictures: captions need an image-text model.")
            text = "\n".join(part for part in request.parts if isinstance(part, str))
            return [{"role": "system", "content": request.system}, {"role": "user", "content": text}]
        content: list[dict[str, Any]] = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": Image.open(BytesIO(part.jpeg)).convert("RGB")}
            for part in request.parts
        ]
        system = {"role": "system", "content": [{"type": "text", "text": request.system}]}
        return [system, {"role": "user", "content": content}]


def _source(params: LocalParams) -> dict[str, Any]:
    return {"revision": params.revision, "trust_remote_code": False}


def _tokenizer(params: LocalParams) -> Any:
    return AutoTokenizer.from_pretrained(params.checkpoint, **_source(params))


def _processor(params: LocalParams, config: Any) -> Any:
    """What prepares text and pictures. Most bring what prepares videos, which needs torchvision: then without that."""
    try:
        return AutoProcessor.from_pretrained(params.checkpoint, **_source(params))
    except (ImportError, ValueError) as error:
        whole: Any = PROCESSOR_MAPPING.get(type(config), None)
        if whole is None or "torchvision" not in str(error).lower():
            raise
    parts = [part for part in whole.get_attributes() if part != "video_processor"]
    of_pictures: Any = type(whole.__name__, (whole,), {"get_attributes": staticmethod(lambda: parts)})
    try:
        return of_pictures.from_pretrained(params.checkpoint, **_source(params))
    except (ImportError, ValueError) as error:
        told = f"{params.checkpoint} cannot be loaded here: {_first_line(error)}."
        raise UserError(f"{told} `pip install torchvision` brings what prepares its pictures.") from error


def _model(params: LocalParams, kind: Any) -> Any:
    with waiting(f"loading {params.checkpoint}"):
        model, loaded = kind.from_pretrained(
            params.checkpoint,
            dtype=getattr(torch, params.dtype),
            device_map=_device_map(params),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are an error all the same, below, with what to do
            output_loading_info=True,
            **_source(params),
        )
    # The library fills what it does not find, or finds in another shape, with random numbers.
    absent = sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    if absent:
        raise UserError(
            f"{params.checkpoint} does not hold the weights that its config.json describes: {absent[0]} is missing or "
            f"has another shape ({len(absent)} such weights). Is it complete?"
        )
    return model.eval()


def _device_map(params: LocalParams) -> str | dict[str, str]:
    if params.device == "balanced":
        return "balanced"
    if params.device == "auto":
        return {"": "cuda" if torch.cuda.is_available() else "cpu"}
    if params.device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{params.checkpoint}: device is cuda, but no GPU is visible here. Set it to auto or cpu.")
    return {"": params.device}


def _weights(params: LocalParams) -> str:
    """Stands for the model's files: their content in a folder, their commit at the hub."""
    folder = Path(params.checkpoint)
    if folder.is_dir():
        return digest(*sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST))
    config: Any = cached_file(params.checkpoint, "config.json", revision=params.revision)
    return f"{params.checkpoint} {Path(config).parent.name}"


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.rstrip(".")
