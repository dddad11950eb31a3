"""Video-LMMs: load, prompt, answer, score. See `tpo.models.video_lmm`."""

from tpo.models.video_lmm import VideoLMM, load_model

__all__ = ["VideoLMM", "load_model"]
