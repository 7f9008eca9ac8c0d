"""The sets of images that torchvision knows, laid out on disk as torchvision lays them out."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import datasets

from ssl_ebm.data import fingerprints
from ssl_ebm.data.broken_files import check_on_broken
from ssl_ebm.data.file_lists import FilesOfFolder
from ssl_ebm.data.image_items import Pixels
from ssl_ebm.data.images import ImageData, sides
from ssl_ebm.data.listings import check_fractions
from ssl_ebm.data.loading import check_memory
from ssl_ebm.data.picture_files import SUFFIXES, PictureFiles
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.errors import UserError, in_one_line

Name = Literal["MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100", "STL10", "ImageNet"]
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, AssertionError, KeyError, pickle.UnpicklingError)
_STL10_IMAGES, _STL10_BYTES = 105_000, 3 * 96 * 96  # for training, with the unlabelled ones; of an image
_IMAGENET_SIZE = 224  # pixels; the usual one since AlexNet


class TorchvisionImages(ImageData):
    """MNIST, FashionMNIST, KMNIST, CIFAR10, CIFAR100, STL10 or ImageNet.

    Validation images are drawn from the training set by `seed`; test images are the set's own. ImageNet
    labels no test images, so its validation set is the test split.

    What must be there, unless it is downloaded:
        MNIST, FashionMNIST, KMNIST: root/NAME/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, unpacked;
            grey, 28 pixels a side.
        CIFAR10, CIFAR100: root/cifar-10-batches-py/ and root/cifar-100-python/; 32 pixels a side.
        STL10: root/stl10_binary/; 96 pixels a side.
        ImageNet: root/{train,val}/CLASS/*.JPEG, as torchvision.datasets.ImageNet unpacks the archives;
            meta.bin beside them gives the classes their names. Decoded on demand, as by `ImageFolder` with
            in_memory: false.

    Args:
        name: the set.
        root: folder of the set, or the one to download to.
        download: fetch the set where it is missing (not ImageNet: its terms forbid it).
        val_fraction: share of the (labelled) training images that validate.
        unlabelled: train on STL10's 100,000 unlabelled images too; their label is -1.
        size: height and width of ImageNet's pictures in pixels, one number for both; None: 224. Other sets
            keep their own.
        on_broken: what to do with a file of ImageNet that cannot be read: "skip" or "stop".
        max_broken: share of a split's files of ImageNet that may be broken, as in `ImageFolder`.
        **settings: those of ImageData.

    Raises:
        UserError: a setting out of its range, or one that the set lacks; files that are missing or broken.
    """

    def __init__(
        self,
        name: Name,
        root: str,
        download: bool = False,
        val_fraction: float = 0.1,
        unlabelled: bool = False,
        size: int | tuple[int, int] | None = None,
        on_broken: Literal["skip", "stop"] = "skip",
        max_broken: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if name not in get_args(Name):
            raise UserError(f"name is {name!r}: use one of {', '.join(get_args(Name))}")
        if unlabelled and name != "STL10":
            raise UserError(f"unlabelled is true, but {name} has no unlabelled images: leave it at false")
        if size is not None and name != "ImageNet":
            raise UserError(f"size is {size}, but the images of {name} have one size: leave it out")
        if name == "ImageNet":
            self.check_on_demand()
            if download:
                raise UserError(f"ImageNet may not be downloaded by a program: {_ON_DISK[name]}")
        check_fractions(val_fraction=val_fraction)
        check_on_broken(on_broken, max_broken)
        self.set_name: Name = name
        self.root = Path(root).expanduser()
        self.download = download
        self.val_fraction = val_fraction
        self.unlabelled = unlabelled
        self.size = sides(_IMAGENET_SIZE if size is None else size)
        self.on_broken: Literal["skip", "stop"] = on_broken
        self.max_broken = max_broken

    @property
    def source(self) -> str:
        return f"{self.set_name} in {self.root}"

    def fingerprint(self) -> fingerprints.Fingerprint:
        if self.set_name == "ImageNet":
            return fingerprints.of_folder(self.root, SUFFIXES)
        if self.set_name in _FOLDERS:
            folder = self.root / _FOLDERS[self.set_name]
            return fingerprints.of_paths([folder / name for name in self._names_read()])
        return fingerprints.of_paths([self.root / self.set_name / "raw" / name for name in _IDX_FILES])

    def _names_read(self) -> list[str]:
        """Those of CIFAR's and STL10's folders that are read; torchvision lists them."""
        kind = getattr(datasets, self.set_name)
        table = kind.class_names_file if self.set_name == "STL10" else kind.meta["filename"]
        names = [name for name, _ in kind.train_list + kind.test_list]
        return [table, *(name for name in names if self.unlabelled or "unlabeled" not in name)]

    def prepare_data(self) -> None:
        """Downloads the set, where it is missing and `download` asks for it; Lightning calls it once."""
        if self.download:
            try:
                self._torchvision("train", download=True)
            except _UNREADABLE as error:
                raise UserError(
                    f"{self.set_name} cannot be downloaded to {self.root} ({_first_words(error)}): "
                    f"try again, or {_ON_DISK[self.set_name]}"
                ) from error

    def read(self, split: str) -> Pixels | PictureFiles:
        if self.set_name == "ImageNet":
            return self._imagenet(split)
        images, labels = self._open("test" if split == "test" else "train")
        if split == "test":
            return Pixels(images, labels)
        validates = self._validates(len(images))
        if split == "val":
            return Pixels(images[validates], labels[validates])
        images, labels = images[~validates], labels[~validates]
        if self.unlabelled:
            need = 2 * _STL10_IMAGES * _STL10_BYTES  # as read, and together with the others
            check_memory(need, f"the unlabelled images of {self.source}", "set unlabelled to false")
            more, none = self._open("unlabeled")
            images, labels = np.concatenate([images, more]), np.concatenate([labels, none])
        return Pixels(images, labels)

    def _validates(self, count: int) -> NDArray[np.bool_]:
        """Which of so many training images (N,) validate: a share drawn by the seed, at least one."""
        drawn = uniforms(self.seed, f"split/{self.set_name}", np.arange(count), 1)[:, 0]
        chosen = np.zeros(count, bool)
        chosen[np.argsort(drawn, kind="stable")[: max(round(self.val_fraction * count), 1)]] = True
        return chosen

    def _open(self, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (N, C, H, W) and labels (N,) of torchvision's part "train", "test" or "unlabeled"."""
        try:
            try:
                held = self._torchvision(part, download=False)
            except _UNREADABLE:
                if not self.download or getattr(self, "trainer", None) is not None:
                    raise
                self.prepare_data()  # there is no Trainer that has called it
                held = self._torchvision(part, download=False)
        except _UNREADABLE as error:
            raise UserError(
                f"{self.set_name} cannot be read from {self.root} ({_first_words(error)}): "
                f"{_ON_DISK[self.set_name]}, or remove what is broken there and set download to true"
            ) from error
        self.classes = [str(name) for name in getattr(held, "classes", [])]
        images = np.asarray(held.data)
        if images.ndim == 3:  # MNIST and its kin: (N, H, W)
            images = images[:, None]
        elif self.set_name != "STL10":  # CIFAR: (N, H, W, C)
            images = images.transpose(0, 3, 1, 2)
        labels = held.labels if self.set_name == "STL10" else held.targets
        return np.ascontiguousarray(images), np.asarray(labels).astype(np.int64)

    def _torchvision(self, part: str, download: bool) -> Any:
        """torchvision's own dataset."""
        make = getattr(datasets, self.set_name)
        if self.set_name == "STL10":
            return make(self.root, split=part, download=download)
        return make(self.root, train=part == "train", download=download)

    def _imagenet(self, split: str) -> PictureFiles:
        found = {name for part in ("train", "val") for name in _entries(self.root / part)}
        classes = sorted(name for name in found if "." not in name)  # folders, not archives that were left
        part = self.root / ("val" if split == "test" else "train")
        names: list[bytes] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = [one for one in _entries(part / name) if one.lower().endswith(SUFFIXES)]
            names += [os.fsencode(f"{name}/{file}") for file in files]
            labels += [label] * len(files)
        if not names:
            raise UserError(f"no pictures in {part}/CLASS/: {_ON_DISK[self.set_name]}")
        chosen: Any = slice(None)
        if split != "test":
            validates = self._validates(len(names))
            chosen = validates if split == "val" else ~validates
        words = self._imagenet_words()
        self.classes = [", ".join(words[name]) if name in words else name for name in classes]
        paths, numbers = np.array(names)[chosen], np.array(labels, np.int64)[chosen]
        held = FilesOfFolder(part, paths)
        return PictureFiles(held, numbers, self.size, False, self.on_broken, self.max_broken)

    def _imagenet_words(self) -> dict[str, Any]:
        """What its classes are called, as torchvision writes it beside them; nothing where it has not."""
        meta = self.root / "meta.bin"
        if not meta.is_file():
            return {}
        try:
            return dict(torch.load(meta, weights_only=True)[0])
        except Exception as error:  # of another type for each way in which the file can be wrong
            raise UserError(
                f"{meta} is damaged ({in_one_line(error)}): remove it, or copy it again"
            ) from error

    def settings(self) -> dict[str, Any]:
        own: dict[str, Any] = {"set": self.set_name, "val_fraction": self.val_fraction}
        if self.set_name == "STL10":
            own["unlabelled"] = self.unlabelled
        if self.set_name == "ImageNet":
            own |= {"size": list(self.size), "broken": self.broken}
        return {**own, **super().settings()}


_FOLDERS = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "STL10": "stl10_binary",
}
_IDX_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
_ON_DISK = {
    **{
        name: f"set root to the folder that holds {name}/raw/ with its four unpacked files"
        for name in ("MNIST", "FashionMNIST", "KMNIST")
    },
    **{name: f"set root to the folder that holds {folder}/" for name, folder in _FOLDERS.items()},
    "ImageNet": "get its archives from image-net.org, have torchvision.datasets.ImageNet unpack them, and "
    "set root to the folder that holds train/ and val/",
}


def _entries(folder: Path) -> list[str]:
    """Sorted names in a folder, without hidden ones; none where there is no such folder."""
    return sorted(name for name in os.listdir(folder) if name[0] != ".") if folder.is_dir() else []


def _first_words(error: Exception) -> str:
    """What torchvision says is wrong, without its advice on arguments of its own."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")
