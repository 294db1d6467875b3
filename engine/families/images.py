"""Images as bytes of one size, made once for a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.buffers import allocate
from engine.errors import DataError


@dataclass(frozen=True)
class ImageTable:
    """``pixels``: ``(N, 3, H, W)`` uint8."""

    pixels: Tensor


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of each channel, as CLIP was trained with (Radford et al. 2021), and BLIP after it."""


def image_table(images: Sequence[Any], size: tuple[int, int], *, crop: bool = False) -> ImageTable:
    """Resize RGB images to ``size`` (height, width), one after the other.

    Args:
        images: loaded images.
        size: height and width in pixels.
        crop: keep the proportions and cut the middle out, instead of stretching.

    Raises:
        DataError: an item is no image.
    """
    height, width = size
    pixels = allocate((len(images), 3, height, width), torch.uint8)
    for row, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise DataError(f"an image was expected, and the data set gave {type(image).__name__}")
        sized = image.convert("RGB")
        if crop:
            sized = _middle(sized, width, height)
        elif sized.size != (width, height):
            sized = sized.resize((width, height), Image.Resampling.BICUBIC)
        pixels[row] = torch.from_numpy(np.array(sized)).permute(2, 0, 1)
    return ImageTable(pixels)


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
