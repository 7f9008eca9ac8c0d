"""The images of a split as items: in memory or on disk, as they are or with crops and mirroring."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.augmentation import BOX, MIRRORED, Augmentation, augment
from ssl_ebm.data.broken_files import BrokenFiles
from ssl_ebm.data.picture_files import PictureFiles
from ssl_ebm.data.shards.folder import StoredGroups


@dataclass(frozen=True)
class Pixels:
    """The images of a split.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, or None.
        names: (N,) of their files, relative to the folder; None: they come from no files of their own.
        groups: (N,) int64, a number that the images of one group share; None: no groups are known.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    names: NDArray[np.bytes_] | None = None
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def name(self, index: int) -> str:
        """That of an image's file."""
        assert self.names is not None
        return os.fsdecode(self.names[index])


class ImageDataset(Dataset[dict[str, Tensor]]):
    """Images as items, a dictionary of tensors:

        image: (C, H, W) float32 in [0, 1].
        index: int64, number of the image in its split.
        label: int64, where there are classes; -1 for an image without one.
        group: int64, a number that the images of one group share, where groups are known.
        crop_box: (4,) int64 and mirrored: bool, what is still to be done, by `augment` on the device.

    Args:
        images: of the split, in memory or on disk.
        augmentation: crops and mirroring, drawn anew in each epoch (an index beyond the length is an item of
            a later epoch); None: the images as they are.
    """

    def __init__(self, images: Pixels | PictureFiles, augmentation: Augmentation | None = None) -> None:
        self.images, self.augmentation = images, augmentation

    def __len__(self) -> int:
        return len(self.images)

    @property
    def groups(self) -> NDArray[np.int64] | StoredGroups | None:
        """The number of each image's group; None: no groups are known."""
        return self.images.groups

    def plain(self) -> ImageDataset:
        """The same images as they are, for probes and nearest neighbours."""
        return ImageDataset(self.images)

    def broken_files(self) -> BrokenFiles | None:
        """Those that were found broken; None: all are in memory."""
        return self.images.found if isinstance(self.images, PictureFiles) else None

    def item_names(self, items: Sequence[int]) -> list[str] | None:
        """What the files of items are called; None: they have none of their own."""
        if isinstance(self.images, Pixels) and self.images.names is None:
            return None
        return [self.images.name(index % len(self)) for index in items]

    def names_in_batch(self, batch: Mapping[str, Tensor]) -> list[str] | None:
        """The same of a batch, which may hold other pictures in place of broken ones."""
        return self.item_names(batch["index"].tolist())

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """The items of a batch at once."""
        place = np.asarray(indices)
        index = place % len(self)
        drawn = self.augmentation
        columns = {}
        if isinstance(self.images, PictureFiles):
            images, index = self.images.load(index, place, drawn)
        else:
            images = self.images.images[index]
            if drawn is not None and drawn.crop < 1:
                height, width = images.shape[-2:]
                columns[BOX] = torch.from_numpy(drawn.boxes(place, height, width, width / height))
        if drawn is not None and drawn.flip:
            columns[MIRRORED] = torch.from_numpy(drawn.mirrored(place))
        columns |= {"image": torch.from_numpy(images).float().div_(255), "index": torch.from_numpy(index)}
        if self.images.labels is not None:
            columns["label"] = torch.from_numpy(self.images.labels[index])
        if self.groups is not None:
            columns["group"] = torch.tensor([int(self.groups[int(i)]) for i in index])
        if drawn is not None and drawn.where == "workers":
            columns = augment(columns)
        return [{name: values[i] for name, values in columns.items()} for i in range(len(place))]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]
