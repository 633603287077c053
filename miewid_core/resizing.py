"""How a photo becomes a square, the same for chips on disk and for a network's input."""

import numpy as np
from PIL import Image


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) to (size, size, 3) uint8, aspect not kept, bilinear with antialiasing."""
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).copy()
