"""Images as bytes of one size, each made once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.buffers import allocate
from engine.errors import DataError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of each channel, as CLIP was trained with (Radford et al. 2021), and BLIP after it."""


class ImageTable:
    """N images as bytes, each opened and resized when it is first taken.

    A run that deletes few pairs of a large data set reads a small part of its images.

    Args:
        images: opened one at a time, by place.
        size: height and width in pixels.
        crop: keep the proportions and cut the middle out, instead of stretching.
    """

    def __init__(self, images: Sequence[Any], size: tuple[int, int], *, crop: bool = False) -> None:
        self._images, self._size, self._crop = images, size, crop
        self._pixels = allocate((len(images), 3, *size), torch.uint8)
        self._known = torch.zeros(len(images), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self._images)

    def take(self, rows: Tensor) -> Tensor:
        """Return the pixels ``(B, 3, H, W)`` of images ``rows`` ``(B,)``.

        Raises:
            DataError: an image is missing or broken, or is none.
        """
        for row in rows[~self._known[rows]].unique().tolist():
            self._pixels[row] = self._resized(self._images[row])
            self._known[row] = True
        return self._pixels[rows]

    def _resized(self, image: Any) -> Tensor:
        if not isinstance(image, Image.Image):
            raise DataError(f"an image was expected, and the data set gave {type(image).__name__}")
        height, width = self._size
        sized = image.convert("RGB")
        if self._crop:
            sized = _middle(sized, width, height)
        elif sized.size != (width, height):
            sized = sized.resize((width, height), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(sized)).permute(2, 0, 1)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the largest middle part of those proportions, ``width`` x ``height`` pixels large."""
    wide, high = width, image.height * width // image.width
    if high < height:
        wide, high = image.width * height // image.height, height
    sized = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - width) // 2, (high - height) // 2
    return sized.crop((left, top, left + width, top + height))


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn bytes ``(B, 3, H, W)`` into floats with the given mean and deviation of each channel."""
    shape = (1, 3, 1, 1)
    centre = torch.tensor(mean, device=pixels.device).view(shape)
    scale = torch.tensor(std, device=pixels.device).view(shape)
    return (pixels.float() / 255 - centre) / scale
