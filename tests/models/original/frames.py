"""The video that the frozen numbers were computed on: made by integer arithmetic, the same on every machine."""

import numpy as np


def video(num_frames: int, size_px: int) -> np.ndarray:
    """uint8 [num_frames, size_px, size_px, 3]: slanted stripes plus blocks, other ones in each frame and color."""
    frame, y, x, color = np.ogrid[:num_frames, :size_px, :size_px, :3]
    stripes = x * (3 + 2 * color) // 4 + y * (2 + color) // 3
    blocks = (x // 40 + frame) * (y // 24 + 2 * color) * (5 + 3 * frame)
    return ((stripes + blocks + 61 * frame * (color + 1)) % 256).astype(np.uint8)
