"""Tensors with one row an item, in memory or, when large, in an unlinked temporary file."""

import errno
import math
import os
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.errors import StorageFull

MEMORY_LIMIT = 4 * 2**30
"""Bytes above which a buffer is mapped from a file, so that the system may page it out."""


def allocate(shape: Sequence[int], dtype: torch.dtype, limit: int = MEMORY_LIMIT) -> Tensor:
    """Return a zeroed tensor of ``shape`` on the CPU.

    Args:
        shape: sizes; the first one counts rows.
        dtype: element type.
        limit: bytes up to which the tensor lives in memory.

    Raises:
        StorageFull: the temporary folder has no room for the file behind a large buffer.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= limit:
        return torch.zeros(tuple(shape), dtype=dtype)
    return _mapped(tuple(shape), dtype, size)


def _mapped(shape: tuple[int, ...], dtype: torch.dtype, size: int) -> Tensor:
    # The file has no name, so nothing is left behind however the process ends.
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise StorageFull(
                f"{size} bytes were needed in {tempfile.gettempdir()} and are not free; "
                "free space there or set TMPDIR to a larger disk"
            ) from error
        raw = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
    return torch.from_numpy(raw).view(dtype).view(shape)
