"""What a family of video-LMMs has to say about itself: the contract that each adapter file fills in.

A new family is one file with one `Family` and one row in `tpo.models.load.FAMILIES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo.video.decode import Frames


@dataclass(frozen=True)
class VideoInput:
    """One video, prepared for its family's tower and prompt.

    Attributes:
        pixels: float32, as the tower takes them: [n, 3, h, w], or [patches, values] for the Qwen-VL families.
        grid: what the decoder gets: steps in time, rows and columns of features.
        text: what stands for the video in the prompt, with one placeholder token per feature.
        num_features: how many placeholder tokens that is.
        timestamps_s: float [n], when each frame is on display, seconds from the start of the video.
        duration_s: of the whole video.
    """

    pixels: torch.Tensor
    grid: tuple[int, int, int]
    text: str
    num_features: int
    timestamps_s: tuple[float, ...]
    duration_s: float

    @property
    def num_frames(self) -> int:
        return len(self.timestamps_s)


class Family(ABC):
    """One family of models. An instance belongs to one checkpoint: it knows its config and its processor's numbers.

    Attributes:
        model_class: the class in the library (or ours) whose `from_pretrained` loads the weights.
        template_video: what the checkpoint's chat template writes for a video, replaced by `VideoInput.text`.
        trained: parts of the names of the weights that TPO trains; the tower stays frozen (paper, section 4).
        frames_apart: the tower sees each frame by itself: its output has one row for each, whatever the others are.
        tower: the part of the model that sees frames, by its name in its weights' names.
        axes: of its rotary positions: 1, or 3 for time, height and width.
        lora_targets: regular expression of the modules that get an adapter: the decoder's linear layers. Bare names
            such as "q_proj" would hit the tower as well.
    """

    model_class: ClassVar[Any]
    template_video: ClassVar[str]
    trained: ClassVar[tuple[str, ...]]
    frames_apart: ClassVar[bool] = False
    axes: ClassVar[int] = 1
    tower: ClassVar[str]
    lora_targets: ClassVar[str] = r".*language_model\.layers\..*\.(?:[qkvo]|gate|up|down)_proj"

    config: Any

    @abstractmethod
    def __init__(self, config: Any, processor: dict[str, Any], max_frame_pixels: int | None) -> None:
        """Raises UserError when the processor's numbers are incomplete or a setting does not apply to the family."""

    @property
    def video_token_id(self) -> int:
        """The placeholder's token id."""
        token: int = self.config.video_token_id
        return token

    @abstractmethod
    def prepare(self, frames: Frames) -> VideoInput:
        """Resize, normalise and lay out frames, and write down what stands for them in the prompt."""

    @abstractmethod
    def lay_out(self, height_px: int, width_px: int, timestamps_s: Sequence[float], duration_s: float) -> VideoInput:
        """What `prepare` makes of frames of this size, but for the pixels."""

    @abstractmethod
    def fewest_features(self, num_frames: int) -> int:
        """How many placeholder tokens a video of so many frames takes at least, whatever the size of its frames."""

    @abstractmethod
    def encode(self, model: Any, video: VideoInput) -> list[torch.Tensor]:
        """The vision tower's output for one video: what stays the same while projector and decoder are trained."""

    @abstractmethod
    def project(self, model: Any, encoded: Sequence[torch.Tensor]) -> BaseModelOutputWithPooling:
        """From the tower's output to features in the form in which the model takes them from outside."""

    @abstractmethod
    def positions(self, ids: Sequence[int], video: VideoInput) -> torch.Tensor:
        """Rotary positions of a prompt, with or without an answer behind it: int64 [axes, tokens].

        One axis counts tokens; the Qwen-VL families have three: time, height and width. Text that follows goes on from
        the last position by one on every axis.
        """

    def text_positions(self, ids: Sequence[int]) -> torch.Tensor:
        """`positions` of a prompt without a video."""
        return torch.arange(len(ids)).expand(self.axes, -1)

    @abstractmethod
    def forward_inputs(self, videos: Sequence[VideoInput]) -> dict[str, torch.Tensor]:
        """The videos of a batch, one a row, as keyword arguments of the model's own `forward`, on the CPU."""

    def token_types(self, ids: torch.Tensor) -> torch.Tensor:
        """0 for text and 2 for video, the library's `mm_token_type_ids`, shaped like `ids`."""
        return (ids == self.video_token_id).int() * 2
