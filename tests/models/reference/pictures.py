"""Moving pictures made of integers alone, the same on every machine and in every numpy."""

import numpy as np


def video(num_frames: int, height_px: int, width_px: int) -> np.ndarray:
    """uint8 [n, h, w, 3]: soft gradients, a checkerboard, one-pixel lines, grain, and a square and a disc that move."""
    t = np.arange(num_frames, dtype=np.int64)[:, None, None]
    y = np.arange(height_px, dtype=np.int64)[None, :, None]
    x = np.arange(width_px, dtype=np.int64)[None, None, :]
    short_px = min(height_px, width_px)

    red = 255 * x // max(1, width_px - 1) + 0 * y + 0 * t
    green = 255 * y // max(1, height_px - 1) + 9 * t + 0 * x
    blue = abs((3 * x + 2 * y + 31 * t) % 510 - 255)
    pixels = np.stack([red, green % 256, blue], axis=-1)

    grain = ((x * 7919 + y * 104729 + t * 1299709) * 2654435761 >> 13) & 15
    pixels = np.clip(pixels + grain[..., None] - 8, 0, 255)

    field_px = max(1, short_px // 24)
    checkered = (x >= width_px // 2) & (y >= height_px // 2) & ((x // field_px + y // field_px) % 2 == 0)
    pixels[np.broadcast_to(checkered, pixels.shape[:3])] = (250, 250, 250)
    lines = ((x % 16 == 5) & (y < height_px // 4)) | ((y % 16 == 11) & (x < width_px // 4))
    pixels[np.broadcast_to(lines, pixels.shape[:3])] = (0, 0, 0)

    side_px = max(2, short_px // 5)
    left_px = (width_px // 8 + t * max(1, width_px // 11)) % width_px
    square = (x >= left_px) & (x < left_px + side_px) & (y >= height_px // 3) & (y < height_px // 3 + side_px)
    pixels[square] = (255, 16, 32)
    middle_px = (height_px // 6 + t * max(1, height_px // 9)) % height_px
    disc = (x - 2 * width_px // 3) ** 2 + (y - middle_px) ** 2 <= (short_px // 8) ** 2
    pixels[disc] = (16, 64, 255)
    return pixels.astype(np.uint8)
