"""Small images, in memory with 8 bits a channel: digits of a font, MNIST's file format, folders."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.glyphs import find_idx, font_glyphs, read_idx
from ssl_ebm.data.listings import Listing, assign_splits, check_fractions, class_names, find_files
from ssl_ebm.data.loading import StreamData, check_least, check_memory, warn_of_skipped
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Pixels:
    """The images of a split.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, or None.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)


class ImageDataset(Dataset[dict[str, Tensor]]):
    """Images as items, a dictionary of tensors:

        image: (C, H, W) float32 in [0, 1].
        index: int64, number of the image in its split.
        label: int64, where there are classes.

    Args:
        pixels: the images.
        flip: mirror each left to right with probability one half, drawn anew in each epoch (an index beyond
            the length is an item of a later epoch).
        seed, split: name the random numbers.
    """

    def __init__(self, pixels: Pixels, flip: bool, seed: int, split: str) -> None:
        self.pixels, self.flip, self.seed, self.split = pixels, flip, seed, split

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """The items of a batch at once."""
        place = np.asarray(indices)
        index = place % len(self)
        images = self.pixels.images[index]
        if self.flip:
            mirrored = uniforms(self.seed, f"{self.split}/flip", place, 1)[:, 0] < 0.5
            images[mirrored] = images[mirrored][..., ::-1]
        columns = {"image": torch.from_numpy(images).float().div_(255), "index": torch.from_numpy(index)}
        if self.pixels.labels is not None:
            columns["label"] = torch.from_numpy(self.pixels.labels[index])
        return [{name: values[i] for name, values in columns.items()} for i in range(len(place))]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]


class ImageData(StreamData):
    """Batches {"image": (B, C, H, W) float32 in [0, 1], "index": (B,) int64, "label": (B,) int64}.

    Attributes:
        classes: names of the classes, there after `setup`; empty where there are none.

    Args:
        flip: mirror training images left to right, half of the time.
        batch_size, workers, seed: as in `StreamData`.
    """

    def __init__(self, flip: bool = False, batch_size: int = 64, workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, workers, seed)
        self.flip = flip
        self.classes: list[str] = []

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the images lie, for messages."""

    @abstractmethod
    def read(self, split: str) -> Pixels:
        """All images of a split."""

    def make_dataset(self, split: str) -> ImageDataset:
        return ImageDataset(self.read(split), self.flip and split == "train", self.seed, split)

    def settings(self) -> dict[str, Any]:
        return {"source": self.source, "flip": self.flip, "unit": "intensity in [0, 1]"}


class FontDigits(ImageData):
    """Digits of the font that Pillow carries, each with its own affine jitter: nothing to download.

    The splits share no shape.

    Args:
        size: pixels a side.
        train_images, val_images, test_images: sizes of the splits.
        flip, batch_size, workers, seed: as in `ImageData`.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(
        self,
        size: int = 28,
        train_images: int = 5000,
        val_images: int = 1000,
        test_images: int = 1000,
        flip: bool = False,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(flip, batch_size, workers, seed)
        check_least(
            size=(size, 4), train_images=(train_images, 1), val_images=(val_images, 1),
            test_images=(test_images, 1),
        )  # fmt: skip
        self.size = size
        self.counts = {"train": train_images, "val": val_images, "test": test_images}
        self.classes = [str(digit) for digit in range(10)]

    @property
    def source(self) -> str:
        return "digits of a font"

    def read(self, split: str) -> Pixels:
        count = self.counts[split]
        glyphs = font_glyphs(self.size, -(-count // 10), self.seed, f"font digits/{split}")
        images = (255 * glyphs.images[:count, None]).round().astype(np.uint8)
        return Pixels(images, glyphs.labels[:count])


class IdxImages(ImageData):
    """MNIST, or another set with its files' names and format (Fashion-MNIST, KMNIST), read where it lies.

    The first five sixths of the training images are trained on, the rest is for validation, t10k for test.

    Args:
        folder: holds {train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped or not (also in raw/ or
            MNIST/raw/).
        flip, batch_size, workers, seed: as in `ImageData`.

    Raises:
        UserError: a file is missing or broken.
    """

    def __init__(
        self, folder: str, flip: bool = False, batch_size: int = 64, workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__(flip, batch_size, workers, seed)
        self.folder = Path(folder)

    @property
    def source(self) -> str:
        return str(self.folder)

    def read(self, split: str) -> Pixels:
        part = "t10k" if split == "test" else "train"
        images = read_idx(find_idx(self.folder, f"{part}-images-idx3-ubyte"))
        labels = read_idx(find_idx(self.folder, f"{part}-labels-idx1-ubyte")).astype(np.int64)
        if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels):
            raise UserError(
                f"the {part} images and labels in {self.folder} do not belong together; copy the files again"
            )
        self.classes = [str(label) for label in range(int(labels.max()) + 1)]
        border = len(images) * 5 // 6  # 50,000 of MNIST's 60,000
        chosen = {"train": slice(border), "val": slice(border, None), "test": slice(None)}[split]
        return Pixels(images[chosen, None], labels[chosen])


class ImageFolder(ImageData):
    """A folder of pictures, in class folders or not, decoded once into memory.

    With `train`, `val` and `test` folders, or split by a seeded draw; `images.csv` may give a `group` and a
    `label` for a `path` (see `find_files`).

    Args:
        folder: of the pictures.
        size: height and width in pixels, one number for both; pictures are resized to cover it, keeping
            their aspect ratio, and their centre is cut out.
        grayscale: one channel instead of three.
        on_broken: what to do with a file that cannot be read: "skip" it with a warning, or "stop".
        val_fraction, test_fraction: shares of the pictures, where the folder fixes no such split.
        flip, batch_size, workers, seed: as in `ImageData`.

    Raises:
        UserError: a setting out of its range, a folder without pictures, more than fits into memory.
    """

    def __init__(
        self,
        folder: str,
        size: int | tuple[int, int] = 32,
        grayscale: bool = False,
        on_broken: Literal["skip", "stop"] = "skip",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        flip: bool = False,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(flip, batch_size, workers, seed)
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if min(self.size) < 1:
            raise UserError(f"size is {size}: use a positive number of pixels")
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        if on_broken not in ("skip", "stop"):
            raise UserError(f"on_broken is {on_broken!r}: use skip or stop")
        self.folder = Path(folder)
        self.grayscale = grayscale
        self.on_broken = on_broken
        self.fractions = val_fraction, test_fraction
        self.broken: list[str] = []
        self._found: list[Listing] | None = None

    @property
    def source(self) -> str:
        return str(self.folder)

    def _listings(self) -> list[Listing]:
        if self._found is None:
            found = find_files(self.folder, SUFFIXES, "images")
            fixed = {one.split for one in found}
            self._found = assign_splits(found, fixed, self.source, *self.fractions, seed=self.seed)
            self.classes = class_names(self._found)
        return self._found

    def read(self, split: str) -> Pixels:
        shape = (1 if self.grayscale else 3, *self.size)
        need = len(self._listings()) * math.prod(shape)  # of all splits
        check_memory(need, f"the images of {self.source}", "lower size")
        found = [one for one in self._listings() if one.split == split]
        images = np.empty((len(found), *shape), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
            wrong = list(pool.map(self._attempt, found, images))
        broken = [one for one in wrong if one is not None]
        if broken and (self.on_broken == "stop" or len(broken) == len(found)):
            raise UserError(f"{broken[0]} in {self.source}: remove the file, or copy it again")
        if broken:
            warn_of_skipped(self.source, f"image(s) of {split}", broken)
            self.broken += broken
        kept = [place for place, one in enumerate(wrong) if one is None]
        names = [found[place].label for place in kept]
        labels = [self.classes.index(name) for name in names if name is not None]
        pixels = images[kept] if broken else images
        return Pixels(pixels, np.array(labels, np.int64) if labels else None)

    def _attempt(self, listing: Listing, image: NDArray[np.uint8]) -> str | None:
        """Writes the picture into `image` (C, H, W), or says what is wrong with it."""
        try:
            image[:] = self._decode(listing.path)
            return None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return f"{listing.name} cannot be read ({' '.join(str(error).split())})"

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        """(C, H, W)."""
        with Image.open(path) as file:
            upright = _eight_bits(ImageOps.exif_transpose(file)).convert("L" if self.grayscale else "RGB")
        height, width = self.size
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        return np.atleast_3d(np.asarray(fitted)).transpose(2, 0, 1)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "size": list(self.size), "classes": self.classes, "broken": self.broken}


def _eight_bits(image: Image.Image) -> Image.Image:
    """16 bits a pixel scaled to 8; Pillow alone would cut them off at 255.

    Raises:
        ValueError: a picture of numbers whose range is unknown.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are numbers of mode {image.mode}, whose range is unknown")
    return image
