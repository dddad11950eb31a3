"""What a training row takes, before it is tried, and what to do where that is too much."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tpo.errors import UserError
from tpo.models.video_lmm import VideoLMM

LESS_MEMORY = (
    "Show fewer frames (answer.full_frames), or set train.max_tokens, train.gradient_checkpointing: true, fewer "
    "train.pairs_per_video, train.lora, or model.quantization: 4bit."
)

_GB = 1e9
_ADAM_BYTES = 8  # two moments in float32 for each trained weight
_LOGIT_COPIES = 4  # of 512 tokens, in float32: logits, their log-softmax and both gradients
_SCORED_AT_ONCE = 512


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device, by arithmetic: what the largest of its tensors take, without what an allocator wastes."""

    weights: float
    training: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return self.weights + self.training + self.activations + self.logits

    def __str__(self) -> str:
        parts = {name: value / _GB for name, value in vars(self).items()}
        told = ", ".join(f"{name} {value:.2g}" for name, value in parts.items())
        return f"{self.total / _GB:.2g} GB ({told})"


def estimate_memory(
    model: VideoLMM, num_tokens: int, computed_in: torch.dtype, *, checkpointing: bool
) -> MemoryEstimate:
    """Of a row of so many tokens. With checkpointing each layer's input is kept, and the insides of one at a time.

    The model must have its adapter already, and what is trained must require gradients.

    Args:
        computed_in: dtype of the matrix products, which may be a smaller one than that of the weights.
    """
    parameters = list(model.model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    text: Any = model.bare.config.get_text_config()
    # Inside a layer: the MLP's three inner tensors, and about eight as wide as the decoder.
    inside = num_tokens * (3 * text.intermediate_size + 8 * text.hidden_size) * computed_in.itemsize
    kept = num_tokens * text.hidden_size * next(iter(parameters)).element_size()
    layers = text.num_hidden_layers
    # Autocast keeps its copy of every weight that is trained in a larger dtype until the forward has ended.
    copies = sum(one.numel() * computed_in.itemsize for one in trained if one.element_size() > computed_in.itemsize)
    return MemoryEstimate(
        weights=sum(parameter.nbytes for parameter in parameters) + copies,
        training=sum(parameter.nbytes + parameter.numel() * _ADAM_BYTES for parameter in trained),
        activations=layers * kept + 2 * inside if checkpointing else layers * inside,
        logits=_SCORED_AT_ONCE * text.vocab_size * 4 * _LOGIT_COPIES,
    )


@contextmanager
def out_of_memory_named(doing: str) -> Iterator[None]:
    """Raises UserError where the device's memory runs out meanwhile, with what was done and what takes less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"Out of memory {doing}: {str(error).splitlines()[0]} {LESS_MEMORY}") from error
