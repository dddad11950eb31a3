"""LLaVA-Video and LongVA, the models of the TPO paper: LLaVA-OneVision's parts in another layout.

|             | tower        | pool                | newline                  | tokens a frame |
|-------------|--------------|---------------------|--------------------------|----------------|
| LLaVA-Video | SigLIP so400m| bilinear or average | grid: behind every row   | 210 or 182     |
| LongVA      | CLIP L/336   | average             | none                     | 144            |

The library has no class for them; `tpo convert` makes such checkpoints from the authors' (`tpo.models.llava_next`).
Their public checkpoints pool "bilinear" in LLaVA-Video's training and "average" in both harnesses that evaluate them
(lmms-eval's llava_vid and longva), so `video_pool` in config.json is part of what a result depends on.
"""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionPreTrainedModel,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo.models.llava_onevision import LlavaOnevision, Newline, Pool, add_newlines, pool_frames

MODEL_TYPE = "llava_video"


class LlavaVideoConfig(LlavaOnevisionConfig):
    """LLaVA-OneVision's config and the layout of a video's features."""

    model_type = MODEL_TYPE

    video_pool: Pool = "bilinear"
    video_newline: Newline = "grid"


class _WithoutNewline(LlavaOnevisionPreTrainedModel):
    """The library's initialisation expects a newline token; LongVA has none."""

    def _init_weights(self, module: Any) -> None:
        if getattr(module, "image_newline", module) is not None:
            super()._init_weights(module)  # type: ignore[no-untyped-call]


class LlavaVideoModel(_WithoutNewline, LlavaOnevisionModel):
    """Tower, projector and decoder."""

    config: LlavaVideoConfig

    def __init__(self, config: LlavaVideoConfig) -> None:
        super().__init__(config)
        if config.video_newline == "none":
            self.register_parameter("image_newline", None)

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        vision_feature_layer: int | None = None,
        vision_feature_select_strategy: str | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPooling:
        """Float [b, n, 3, h, w] → `pooler_output` [b, tokens, d]."""
        layer = self.config.vision_feature_layer if vision_feature_layer is None else vision_feature_layer
        strategy = vision_feature_select_strategy or self.config.vision_feature_select_strategy
        outputs = self.vision_tower(pixel_values_videos.flatten(0, 1), output_hidden_states=True)
        encoded = outputs.hidden_states[layer]
        if strategy == "default":
            encoded = encoded[:, 1:]
        grid = pool_frames(self.multi_modal_projector(encoded), self.config.video_pool)
        videos = grid.unflatten(0, pixel_values_videos.shape[:2])
        tokens = [add_newlines(video, self.image_newline, self.config.video_newline) for video in videos]
        return BaseModelOutputWithPooling(pooler_output=torch.stack(tokens))


class LlavaVideoForConditionalGeneration(_WithoutNewline, LlavaOnevisionForConditionalGeneration):
    """With the language model's head."""

    config: LlavaVideoConfig

    def __init__(self, config: LlavaVideoConfig) -> None:
        super(LlavaOnevisionForConditionalGeneration, self).__init__(config)
        self.model = LlavaVideoModel(config)
        decoder: Any = config.text_config
        self.lm_head = nn.Linear(decoder.hidden_size, decoder.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]


AutoConfig.register(MODEL_TYPE, LlavaVideoConfig)
# Weights have the names that they have in LLaVA-OneVision's files.
register_checkpoint_conversion_mapping(MODEL_TYPE, get_checkpoint_conversion_mapping("llava_onevision"))


class LlavaVideo(LlavaOnevision):
    """Every model of class LlavaVideoForConditionalGeneration."""

    model_class = LlavaVideoForConditionalGeneration

    @property
    def layout(self) -> tuple[Pool, Newline]:
        return self.config.video_pool, self.config.video_newline
