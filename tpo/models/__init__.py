"""Video-LMMs: load, prompt, answer, score. See `tpo.models.video_lmm`."""

from tpo.models.load import load_model, model_id
from tpo.models.video_lmm import VideoLMM

__all__ = ["VideoLMM", "load_model", "model_id"]
