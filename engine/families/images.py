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


def image_table(images: Sequence[Any], size: tuple[int, int]) -> ImageTable:
    """Resize RGB images to ``size`` (height, width), one after the other.

    Raises:
        DataError: an item is no image.
    """
    height, width = size
    pixels = allocate((len(images), 3, height, width), torch.uint8)
    for row, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise DataError(f"an image was expected, and the data set gave {type(image).__name__}")
        sized = image.convert("RGB")
        if sized.size != (width, height):
            sized = sized.resize((width, height), Image.Resampling.BICUBIC)
        pixels[row] = torch.from_numpy(np.array(sized)).permute(2, 0, 1)
    return ImageTable(pixels)


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn bytes ``(B, 3, H, W)`` into floats with the given mean and deviation of each channel."""
    shape = (1, 3, 1, 1)
    centre = torch.tensor(mean, device=pixels.device).view(shape)
    scale = torch.tensor(std, device=pixels.device).view(shape)
    return (pixels.float() / 255 - centre) / scale
