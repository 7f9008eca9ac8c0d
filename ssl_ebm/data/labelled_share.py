"""A share of the training labels of any set, for fine-tuning and few-label curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.clip_windows import ClipWindows
from ssl_ebm.data.image_items import ImageDataset
from ssl_ebm.data.labelled_text import LabelledText
from ssl_ebm.data.loading import StreamData
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.errors import UserError

READ_AT_ONCE = 1024  # items whose labels are looked up together
BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
Labels = NDArray[np.int64]


class Chosen(Dataset[dict[str, Tensor]]):
    """Some items of a dataset, in every epoch.

    Args:
        dataset: of which.
        places: (n,) their indices in its first epoch.
        first_epoch: always the items of the first epoch: where each epoch has other items, and not only other
            windows or crops of the same, they would have other labels.
    """

    def __init__(self, dataset: Any, places: Labels, first_epoch: bool = False) -> None:
        self.dataset, self.places, self.first_epoch = dataset, places, first_epoch

    def __len__(self) -> int:
        return len(self.places)

    def plain(self) -> Chosen:
        """The same items as they are, for probes."""
        inner = self.dataset.plain() if hasattr(self.dataset, "plain") else self.dataset
        return Chosen(inner, self.places, self.first_epoch)

    def item_names(self, items: Sequence[int]) -> list[str] | None:
        """What the files of items are called; None: they have none of their own."""
        names = getattr(self.dataset, "item_names", None)
        return None if names is None else names(self._wanted(items))

    def _wanted(self, items: Sequence[int]) -> list[int]:
        """Their indices in the whole dataset."""
        epoch, place = np.divmod(np.asarray(items), len(self))
        wanted = self.places[place] + (0 if self.first_epoch else epoch * len(self.dataset))
        return wanted.tolist()

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        return _items(self.dataset, self._wanted(indices))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]


class LabelledShare(StreamData):
    """Another set of labelled data, with labels for a share of its training items, and those items alone.

    Shares are stratified by class and nested: a class's items have an order, drawn by the seed, of which a
    share takes the first ones, so what 1 % has is among what 10 % has. Of clips whole clips are chosen, with
    all their windows. Validation and test are as they were, without items that have no label.

    Batches are those of the set, and so are the hooks that change them.

    Args:
        data: the set; its own seed splits it.
        share: of the training labels, above 0 and at most 1; of every class the nearest whole number.
        per_class: so many training labels of every class instead; null: the share.
        seed: which labels, and in which order they are trained on.

    Attributes:
        counts: training labels of each class, by name; there after `setup`.

    Raises:
        UserError: a setting out of its range; data without labels, with one class, with a class of which no
            item would be left, or with too few for `per_class`.
    """

    def __init__(
        self, data: StreamData, share: float = 1.0, per_class: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(data.batch_size, data.workers, seed)
        if not 0 < share <= 1:
            raise UserError(f"the share of labels is {share}: use one above 0 and at most 1")
        if per_class is not None and (per_class < 1 or share != 1):
            raise UserError(
                f"labels: a share of {share} and {per_class} per class: give one of the two, of at least 1"
            )
        self.data, self.share, self.per_class = data, share, per_class
        self.counts: dict[str, int] = {}
        for hook in BATCH_HOOKS:
            if is_overridden(hook, data):  # Lightning asks whether there is one
                setattr(self, hook, getattr(data, hook))

    @property
    def classes(self) -> list[str]:
        """Names of the classes; there after `setup`."""
        return list(getattr(self.data, "classes", None) or [])

    @property
    def tokenizer_json(self) -> str | None:
        """Of text."""
        return getattr(self.data, "tokenizer_json", None)

    def prepare_data(self) -> None:
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        self.data.trainer = self.trainer
        self.data.setup(stage)
        super().setup(stage)

    def make_dataset(self, split: str) -> Dataset[Any]:
        dataset = getattr(self.data, f"{split}_dataset")
        labels, units = labels_of(dataset)
        if split == "train":
            return self._share_of(dataset, labels, units)
        known = np.flatnonzero(labels >= 0)
        # No label at all: there is nothing to measure, but there may be something to predict.
        return dataset if len(known) in (0, len(dataset)) else Chosen(dataset, known)

    def _share_of(self, dataset: Any, labels: Labels, units: Labels) -> Chosen:
        if not self.classes:
            raise UserError(f"{type(self.data).__name__} has no labels: {self.how_to_label()}")
        if len(self.classes) < 2:
            raise UserError(f"all labels are {self.classes[0]!r}: give data of two classes or more")
        _, first = np.unique(units, return_index=True)
        kept = choose_labels(labels[first], self.classes, self.share, self.per_class, self.seed)
        self.counts = {
            name: int((labels[first[kept]] == label).sum()) for label, name in enumerate(self.classes)
        }
        places = np.flatnonzero(np.isin(units, units[first[kept]]))
        return Chosen(dataset, places, getattr(dataset, "fresh_items", False))

    def without_class(self) -> str | None:
        return self.data.without_class()

    def fingerprint(self) -> Mapping[str, object] | None:
        return self.data.fingerprint()

    def settings(self) -> dict[str, Any]:
        return {
            "share_of_labels": self.share,
            "labels_per_class": self.per_class,
            "labels": self.counts,
            "data": self.data.describe(),
        }


def choose_labels(
    labels: Labels, classes: Sequence[str], share: float, per_class: int | None, seed: int
) -> Labels:
    """Which of N labelled things keep their label, sorted: round(share * n) of the n of each class.

    Args:
        labels: (N,); -1 for what has none.
        classes: names.
        share, per_class, seed: as in `LabelledShare`.

    Raises:
        UserError: a class would be left with none, or has fewer than `per_class`.
    """
    kept = []
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        wanted = int(np.floor(share * len(members) + 0.5)) if per_class is None else per_class
        if not len(members):
            raise UserError(f"no training item is of class {name!r}: add some, or leave the class out")
        if wanted > len(members):
            raise UserError(
                f"class {name!r} has {len(members)} training labels, too few for {wanted} per class: ask for "
                "fewer"
            )
        if not wanted:
            raise UserError(
                f"{share:g} of the {len(members)} training labels of class {name!r} is none: take a larger "
                "share, or a number per class"
            )
        order = uniforms(seed, f"labels of class {label}", members, 1)[:, 0].argsort(kind="stable")
        kept.append(members[order[:wanted]])
    return np.sort(np.concatenate(kept))


def labels_of(dataset: Any) -> tuple[Labels, Labels]:
    """Label of every item of a dataset, -1 where there is none; and the thing that was labelled, by number.

    An item is such a thing by itself, but for the windows of a clip.
    """
    if isinstance(dataset, ClipWindows):
        clips = np.repeat(np.arange(len(dataset.clips)), dataset.items_of_clips())
        labels = np.full(len(clips), -1) if dataset.labels is None else np.asarray(dataset.labels)[clips]
        return labels.astype(np.int64), clips
    items = np.arange(len(dataset))
    if isinstance(dataset, ImageDataset):
        known = dataset.images.labels
        return np.full(len(items), -1) if known is None else np.asarray(known, np.int64), items
    if isinstance(dataset, LabelledText):
        return dataset.labels.numpy(), items
    found = []
    for some in np.array_split(items, max(1, -(-len(items) // READ_AT_ONCE))):
        found += [int(item.get("label", torch.tensor(-1))) for item in _items(dataset, some.tolist())]
    return np.array(found, np.int64), items


def _items(dataset: Any, indices: list[int]) -> list[dict[str, Tensor]]:
    if hasattr(dataset, "__getitems__"):
        found: list[dict[str, Tensor]] = dataset.__getitems__(indices)
        return found
    return [dataset[index] for index in indices]
