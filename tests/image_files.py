"""Image files for tests, in MNIST's format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """A gzipped array of unsigned bytes; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + values.tobytes())


def write_idx_folder(folder: Path, images: dict[str, NDArray[np.uint8]]) -> None:
    """The four files of a set: images (N, H, W) of "train" and "t10k"; labels: the first pixel modulo 3."""
    for part, pixels in images.items():
        write_idx(folder / "raw" / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / "raw" / f"{part}-labels-idx1-ubyte.gz", (pixels[:, 0, 0] % 3).astype(np.uint8))
