"""Video-LMMs: load (`load`), prompt, answer, score (`video_lmm`); `identity` knows one without loading it."""
