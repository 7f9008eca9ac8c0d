"""Images: digits of a font, MNIST's file format, folders of pictures; in memory, or read on demand."""

from __future__ import annotations

import contextlib
import math
import os
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssl_ebm.data import fingerprints
from ssl_ebm.data.augmentation import Augmentation, augment
from ssl_ebm.data.broken_files import check_on_broken, check_share
from ssl_ebm.data.file_lists import Files, FilesOfFolder, FilesOfShards
from ssl_ebm.data.glyphs import find_idx, font_glyphs, read_idx
from ssl_ebm.data.image_items import ImageDataset, Pixels
from ssl_ebm.data.listings import (
    Listing,
    assign_splits,
    check_fractions,
    class_names,
    find_files,
    without_class,
)
from ssl_ebm.data.loading import StreamData, check_least, check_memory, warn_of_skipped
from ssl_ebm.data.picture_files import (
    SUFFIXES,
    BrokenPictureError,
    PictureFiles,
    decode,
    fit,
    stop_at,
)
from ssl_ebm.data.shards.drawing import rows_of_splits
from ssl_ebm.data.shards.folder import ShardFolder, StoredGroups, StoredLabels, open_shards
from ssl_ebm.data.shards.tables import Rows
from ssl_ebm.data.splits import group_numbers
from ssl_ebm.errors import UserError


class ImageData(StreamData):
    """Batches {"image": (B, C, H, W) float32 in [0, 1], "index": (B,) int64, "label": (B,) int64}.

    Where groups of images are known, "group": (B,) int64, a number that those of one group share.

    Attributes:
        classes: names of the classes, there after `setup`; empty where there are none.
        image_shape: (C, H, W), there after `setup`.

    Args:
        flip: mirror training images left to right, half of the time.
        crop: least share of a training image's area, in (0, 1], that a random crop of it keeps; the crop is
            brought to the size of the image. 1: no crops.
        augment_on: where crops and mirroring are done: in the "workers", or on the "device", batched, after
            the transfer. The batches are the same up to rounding. A loader that is iterated without a
            Trainer then yields what is still to be done (see `ImageDataset`).
        batch_size, workers, seed: as in `StreamData`.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(
        self,
        flip: bool = False,
        crop: float = 1.0,
        augment_on: Literal["workers", "device"] = "workers",
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        self.augmentation = Augmentation(crop, flip, augment_on, seed)
        self.flip = flip
        self.classes: list[str] = []
        self.image_shape: tuple[int, int, int] | None = None
        self._skipped: list[str] = []
        self._files: list[PictureFiles] = []

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the images lie, for messages."""

    @abstractmethod
    def read(self, split: str) -> Pixels | PictureFiles:
        """All images of a split."""

    @property
    def broken(self) -> list[str]:
        """Files that could not be read; of those that are read on demand: what was met (`BrokenFiles`)."""
        return self._skipped + [name for files in self._files for name in files.broken]

    def make_dataset(self, split: str) -> ImageDataset:
        images = self.read(split)
        self.image_shape = images.shape
        if isinstance(images, PictureFiles):
            self._files.append(images)
        augmented = split == "train" and (self.flip or self.augmentation.crop < 1)
        return ImageDataset(images, self.augmentation if augmented else None)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Crops and mirrors training images on their device, where `augment_on` asks for it."""
        return augment(batch)

    def check_on_demand(self) -> None:
        """Raises UserError where files that are read on demand are to be augmented on the device."""
        if self.augmentation.where == "device":
            raise UserError(
                "augment_on is device, but pictures read on demand are cropped from their full resolution as "
                "they are decoded: set augment_on to workers"
            )

    def settings(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "flip": self.flip,
            "crop": self.augmentation.crop,
            "augment_on": self.augmentation.where,
            "image_shape": None if self.image_shape is None else list(self.image_shape),
            "unit": "intensity in [0, 1]",
        }


class FontDigits(ImageData):
    """Digits of the font that Pillow carries, each with its own affine jitter: nothing to download.

    The splits share no shape.

    Args:
        size: pixels a side.
        train_images, val_images, test_images: sizes of the splits.
        flip, crop, augment_on, batch_size, workers, seed: as in `ImageData`.

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
        crop: float = 1.0,
        augment_on: Literal["workers", "device"] = "workers",
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(flip, crop, augment_on, batch_size, workers, seed)
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
        flip, crop, augment_on, batch_size, workers, seed: as in `ImageData`.

    Raises:
        UserError: a file is missing or broken.
    """

    def __init__(
        self,
        folder: str,
        flip: bool = False,
        crop: float = 1.0,
        augment_on: Literal["workers", "device"] = "workers",
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(flip, crop, augment_on, batch_size, workers, seed)
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

    def fingerprint(self) -> fingerprints.Fingerprint:
        kinds = ("images-idx3", "labels-idx1")
        found = []
        for stem in (f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in kinds):
            with contextlib.suppress(UserError):  # training needs no files of the test
                found.append(find_idx(self.folder, stem))
        return fingerprints.of_paths(found)


class ImageFolder(ImageData):
    """A folder of pictures, in class folders or not, decoded once into memory or read on demand.

    Or of shards that `ssl-ebm shard` has made of such a folder: batches are the same, to the bit.

    With `train`, `val` and `test` folders, or split by a seeded draw; `images.csv` may give a `group` and a
    `label` for a `path` (see `find_files`): a group is on one side, and intervals take its pictures for one.
    Pictures are turned upright, 16 bits become 8, and what is transparent shows a white ground.

    Args:
        folder: of the pictures.
        size: height and width in pixels, one number for both; pictures are resized to cover it, keeping
            their aspect ratio, and their centre is cut out.
        grayscale: one channel instead of three.
        in_memory: decode all pictures once, at `size`; crops are then enlarged. False: the workers decode
            each picture whenever it comes up, for folders larger than the memory, and take training crops
            from its full resolution.
        on_broken: what to do with a file that cannot be read: "skip" it with a warning, or "stop". Read on
            demand, the next picture of the split that can be read takes the place of a skipped one.
        max_broken: share of a split's files, in (0, 1], that may be broken where they are skipped; with more,
            training stops. 1, the default, stops where none can be read: a crawl may well hold more broken
            files than a share that would tell of failing storage, and of five files one is a fifth. Read on
            demand, files count as they are met, in each process its own.
        val_fraction, test_fraction: shares of the pictures, where the folder fixes no such split.
        flip, crop, augment_on, batch_size, workers, seed: as in `ImageData`.

    Raises:
        UserError: a setting out of its range, a folder without pictures, more than fits into memory.
    """

    def __init__(
        self,
        folder: str,
        size: int | tuple[int, int] = 32,
        grayscale: bool = False,
        in_memory: bool = True,
        on_broken: Literal["skip", "stop"] = "skip",
        max_broken: float = 1.0,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        flip: bool = False,
        crop: float = 1.0,
        augment_on: Literal["workers", "device"] = "workers",
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(flip, crop, augment_on, batch_size, workers, seed)
        self.size = sides(size)
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        check_on_broken(on_broken, max_broken)
        if not in_memory:
            self.check_on_demand()
        self.folder = Path(folder)
        self.grayscale = grayscale
        self.in_memory = in_memory
        self.on_broken: Literal["skip", "stop"] = on_broken
        self.max_broken = max_broken
        self.fractions = val_fraction, test_fraction
        self._found: list[Listing] | None = None
        self._shards: ShardFolder | None = None
        self._rows: dict[str, Rows] | None = None  # of shards, in each split

    @property
    def source(self) -> str:
        return str(self.folder)

    def fingerprint(self) -> fingerprints.Fingerprint:
        if shards := self._shards or open_shards(self.folder, "images"):
            return fingerprints.of_shards(shards)
        return fingerprints.of_folder(self.folder, SUFFIXES, [self.folder / "images.csv"])

    def without_class(self) -> str | None:
        return None if self._shards is not None else without_class(self.folder, SUFFIXES, "images")

    def _listings(self) -> list[Listing]:
        if self._found is None:
            if self._shards is not None:
                found = list(self._shards.listings())
            else:
                found = find_files(self.folder, SUFFIXES, "images")
            fixed = {one.split for one in found}
            self._found = assign_splits(found, fixed, self.source, *self.fractions, seed=self.seed)
            self.classes = class_names(self._found)
        return self._found

    def read(self, split: str) -> Pixels | PictureFiles:
        if self._shards is None:
            self._shards = open_shards(self.folder, "images")
        if self.in_memory:
            return self._decoded([one for one in self._listings() if one.split == split], split)
        files: Files
        labels: NDArray[np.int64] | StoredLabels | None
        groups: NDArray[np.int64] | StoredGroups | None
        if self._shards is not None:
            self.classes = self._shards.manifest.classes
            if self._rows is None:
                self._rows = rows_of_splits(self._shards, *self.fractions, seed=self.seed)
            rows = self._rows[split]
            files, labels = FilesOfShards(self._shards, rows), self._shards.labels(rows)
            groups = self._shards.groups_of(rows)
        else:
            found = [one for one in self._listings() if one.split == split]
            files = FilesOfFolder(self.folder, _names(found))
            labels, groups = self._labels(found), self._groups(found)
        return PictureFiles(files, labels, self.size, self.grayscale, self.on_broken, self.max_broken, groups)

    def _decoded(self, found: list[Listing], split: str) -> Pixels:
        shape = (1 if self.grayscale else 3, *self.size)
        need = len(self._listings()) * math.prod(shape)  # of all splits
        check_memory(need, f"the images of {self.source}", "lower size, or set in_memory to false")
        images = np.empty((len(found), *shape), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
            wrong = list(pool.map(self._attempt, found, images))
        broken = [one for one in wrong if one is not None]
        if broken and (self.on_broken == "stop" or len(broken) == len(found)):
            raise stop_at(broken[0], self.source)
        check_share(len(broken), len(found), broken, self.max_broken, self.source)
        if broken:
            warn_of_skipped(self.source, f"image(s) of {split}", broken)
            self._skipped += broken
        places = [place for place, one in enumerate(wrong) if one is None]
        kept = [found[place] for place in places]
        pixels = images[places] if broken else images
        return Pixels(pixels, self._labels(kept), _names(kept), self._groups(kept))

    def _labels(self, found: list[Listing]) -> NDArray[np.int64] | None:
        number = {name: label for label, name in enumerate(self.classes)}
        labels = [number[one.label] for one in found if one.label is not None]
        return np.array(labels, np.int64) if labels else None

    def _groups(self, found: list[Listing]) -> NDArray[np.int64] | None:
        """None where no picture of any split has a group but itself."""
        if all(one.group == one.name for one in self._listings()):
            return None
        return np.array(group_numbers(os.fsencode(one.group) for one in found), np.int64)

    def _attempt(self, listing: Listing, image: NDArray[np.uint8]) -> str | None:
        """Writes the picture into `image` (C, H, W), or says what is wrong with it."""
        try:
            image[:] = fit(decode(listing.path, listing.name, self.grayscale), self.size)
            return None
        except BrokenPictureError as broken:
            return str(broken)

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "size": list(self.size),
            "in_memory": self.in_memory,
            "classes": self.classes,
            "broken": self.broken,
            **({} if self._shards is None else {"shards": self._shards.manifest.fingerprint}),
        }


def _names(found: list[Listing]) -> NDArray[np.bytes_]:
    return np.array([os.fsencode(one.name) for one in found])


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a setting that may be one number for both.

    Raises:
        UserError: a number below 1.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise UserError(f"size is {size}: use a positive number of pixels")
    return height, width
