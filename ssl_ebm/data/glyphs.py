"""Images of the digits 0 to 9: drawn with the font that Pillow carries, or read from MNIST's files."""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ssl_ebm.data.loading import DEFLATED, check_memory
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.errors import UserError

_STRETCH = 1.4  # of MNIST's digits, most of which then fill their square
_SUPERSAMPLING = 4  # drawn this much larger, then shrunk: smooth edges after rotation


@dataclass(frozen=True)
class Glyphs:
    """A bank of digit images.

    Attributes:
        images: (G, size, size) float32 in [0, 1], ink is 1.
        labels: (G,) int64, the digit.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def _crop(image: Image.Image) -> Image.Image:
    """The part of the image that holds its ink."""
    box = image.getbbox()
    if box is None:
        raise ValueError("an image without ink has no glyph")
    return image.crop(box)


def _fit(image: Image.Image, size: int) -> NDArray[np.float32]:
    """The ink scaled to a longer side of `size` and centred in a square of `size` pixels.

    The shorter side is stretched towards the longer one, by `_STRETCH` at most: a narrow digit in a wide
    square would bounce off a wall that it does not seem to touch.
    """
    ink = _crop(image)
    longer = max(ink.size)
    width, height = (max(1, round(size * min(1.0, _STRETCH * side / longer))) for side in ink.size)
    square = Image.new("L", (size, size))
    square.paste(
        ink.resize((width, height), Image.Resampling.BILINEAR),
        ((size - width) // 2, (size - height) // 2),
    )
    return np.asarray(square, dtype=np.float32) / 255.0


def _fill(image: Image.Image, size: int) -> NDArray[np.float32]:
    """The ink scaled to a square of `size` pixels: what touches a wall is seen to touch it."""
    ink = _crop(image).resize((size, size), Image.Resampling.BOX)
    return np.asarray(ink, dtype=np.float32) / 255.0


@lru_cache(maxsize=16)
def font_glyphs(
    size: int,
    per_digit: int,
    seed: int,
    stream: str,
    rotation: float = 15.0,
    shear: float = 0.2,
) -> Glyphs:
    """Digits in Pillow's own font (Aileron), each with its own affine jitter, all filling their square.

    Args:
        size: side of the square, pixels.
        per_digit: images of each digit.
        seed, stream: which jitters are drawn. Streams share none, so test shapes are not those of training.
        rotation: largest rotation either way, degrees.
        shear: largest horizontal shear either way, pixels sideways per pixel of height.
    """
    font = ImageFont.load_default(_SUPERSAMPLING * size)
    canvas = 3 * _SUPERSAMPLING * size  # room for the rotated, sheared digit
    drawn = []
    for digit in range(10):
        image = Image.new("L", (canvas, canvas))
        ImageDraw.Draw(image).text((canvas // 2, canvas // 2), str(digit), fill=255, font=font, anchor="mm")
        drawn.append(image)
    labels = np.arange(10 * per_digit) % 10
    jitter = uniforms(seed, f"{stream}/glyphs", np.arange(10 * per_digit), 2)
    images = np.empty((10 * per_digit, size, size), dtype=np.float32)
    for i, (turn, slant) in enumerate(jitter):
        angle = np.deg2rad((2 * turn - 1) * rotation)
        lean = (2 * slant - 1) * shear
        cos, sin = np.cos(angle), np.sin(angle)
        a, b, d, e = cos, cos * lean - sin, sin, sin * lean + cos  # rotation after shear
        centre = canvas / 2
        shift = (a, b, centre - a * centre - b * centre, d, e, centre - d * centre - e * centre)
        image = drawn[labels[i]].transform(
            (canvas, canvas), Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR
        )
        images[i] = _fill(image, size)
    return Glyphs(images, labels.astype(np.int64))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of unsigned bytes in MNIST's IDX format (http://yann.lecun.com/exdb/mnist), gzipped or not.

    Raises:
        UserError: the file is no such array, or one that is larger than half of the memory.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zero, kind, dims = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{dims}I", file.read(4 * dims))
            if zero != 0 or kind != 8:
                raise ValueError("not an IDX file of unsigned bytes")
            if math.prod(shape) > path.stat().st_size * (DEFLATED if path.suffix == ".gz" else 1):
                raise ValueError("it announces more values than it holds")
            check_memory(math.prod(shape), f"the values of {path}", "use fewer")
            content = file.read(math.prod(shape) + 1)  # not what a damaged file holds beyond
            return np.frombuffer(content, np.uint8).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as an MNIST file ({error}); copy it again") from error


def find_idx(folder: Path, name: str) -> Path:
    """Where MNIST's file of this name is, gzipped or not, in the folder or in raw/ or MNIST/raw/.

    Raises:
        UserError: it is not there.
    """
    candidates: Iterator[Path] = (
        root / f"{name}{end}"
        for root in (folder, folder / "raw", folder / "MNIST" / "raw")
        for end in ("", ".gz")
    )
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(
        f"no file {name} or {name}.gz in {folder}: put MNIST's four IDX files there (nothing is downloaded)"
    )


@lru_cache(maxsize=16)
def mnist_glyphs(folder: str, split: str, size: int, count: int, seed: int) -> Glyphs:
    """Handwritten digits from MNIST's IDX files (or any set in that format), cropped to their ink and scaled
    to fit.

    Args:
        folder: holds {train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped or not (also in raw/ or
            MNIST/raw/).
        split: "train" (the first five sixths of the training images), "val" (the rest of them) or "test"
            (t10k).
        size: side of the square, pixels.
        count: at most this many images, chosen by `seed`.
    """
    part = "t10k" if split == "test" else "train"
    images = read_idx(find_idx(Path(folder), f"{part}-images-idx3-ubyte"))
    labels = read_idx(find_idx(Path(folder), f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise UserError(
            f"the {part} images and labels in {folder} do not belong together; copy the files again"
        )
    border = len(images) * 5 // 6  # 50,000 of MNIST's 60,000
    chosen = {
        "train": np.arange(border),
        "val": np.arange(border, len(images)),
        "test": np.arange(len(images)),
    }[split]
    chosen = chosen[images[chosen].any(axis=(1, 2))]
    order = np.argsort(uniforms(seed, f"{split}/mnist", chosen, 1)[:, 0], kind="stable")
    chosen = np.sort(chosen[order[:count]])
    if len(chosen) == 0:
        raise UserError(f"no {split} digits in {folder}: the files are empty")
    fitted = np.stack([_fit(Image.fromarray(images[i]), size) for i in chosen])
    return Glyphs(fitted, labels[chosen].astype(np.int64))
