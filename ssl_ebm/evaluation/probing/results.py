"""What probes find, with intervals that respect which items belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.statistics import Bootstrap, Interval, grouped_share_interval, share_interval
from ssl_ebm.networks.text import pooled

RESAMPLES = 1000


@dataclass(frozen=True)
class Samples:
    """Items that a probe is fitted to, or tested on.

    Attributes:
        features: (N, D) float, or (N, T, D) where the probe looks at tokens.
        target: (N,) int64 classes, or (N, K) float.
        groups: (N,) which items belong together (windows of one clip, or of the clips of one recording;
            pictures of one group); None: each stands alone.
        seen: (N, T) bool, which tokens stand for input; None: all.

    Raises:
        UserError: no items, labels or `seen` for others, features that are not finite, an item without a
            token that stands for input.
    """

    features: Tensor
    target: Tensor
    groups: Tensor | None = None
    seen: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.features) != len(self.target) or not len(self.target):
            raise UserError(
                f"probe: {len(self.features)} features and {len(self.target)} labels: give one label for "
                "each, and at least one"
            )
        if not bool(self.features.isfinite().all()):
            raise UserError("probe: the features are not finite: the checkpoint, or its input, is broken")
        if self.seen is None:
            return
        if self.features.ndim != 3 or self.seen.shape != self.features.shape[:2]:
            raise UserError(
                f"probe: features {tuple(self.features.shape)} and seen {tuple(self.seen.shape)}: give one "
                "value of seen for each token"
            )
        if not bool(self.seen.any(1).all()):
            raise UserError("probe: an item has no token but padding: leave it out")

    def pooled(self) -> Tensor:
        """One vector for each item, the mean of its tokens that are seen: (N, D)."""
        if self.features.ndim < 3:
            return self.features
        return self.features.mean(1) if self.seen is None else pooled(self.features, self.seen)

    def of_seen(self) -> Tensor:
        """The tokens that are seen, of all items one after another: (n, D)."""
        return self.features.flatten(0, 1) if self.seen is None else self.features[self.seen]

    def __len__(self) -> int:
        return len(self.target)


def of_one_length(parts: Sequence[Tensor]) -> list[Tensor]:
    """Tensors (N, T, *D), each with a T of its own, filled up with 0 to the largest; others as they are."""
    if len({part.shape[1:] for part in parts}) < 2:
        return list(parts)
    longest = max(part.shape[1] for part in parts)
    return [pad(part, (*(0, 0) * (part.ndim - 2), 0, longest - part.shape[1])) for part in parts]


@dataclass(frozen=True)
class Classified:
    """How a probe classifies the test items.

    Attributes:
        accuracy: share that is right, with its 95 % interval over items, or over groups.
        chance: share of the most frequent class among the test items.
        confusion: (C, C) counts, truth by prediction.
        predicted: (N,) int64, of the test items.
        chosen: what was chosen on training items alone, by name.
        train_items, test_items: how many.
    """

    accuracy: Interval
    chance: float
    confusion: Tensor
    predicted: Tensor
    chosen: dict[str, float] = field(default_factory=dict)
    train_items: int = 0
    test_items: int = 0

    @property
    def figures(self) -> dict[str, Interval]:
        """By name."""
        return {"accuracy": self.accuracy}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "accuracy": self.accuracy.to_json(),
            "chance": self.chance,
            "classes": len(self.confusion),
            **self.chosen,
            "train_items": self.train_items,
            "test_items": self.test_items,
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True)
class Regressed:
    """How a probe foresees numbers of the test items.

    Attributes:
        r2: for each target 1 - squared error / variance, with its 95 % interval (bootstrap).
        predicted: (N, K) float, of the test items.
        chosen, train_items, test_items: as in `Classified`.
    """

    r2: dict[str, Interval]
    predicted: Tensor
    chosen: dict[str, float] = field(default_factory=dict)
    train_items: int = 0
    test_items: int = 0

    @property
    def figures(self) -> dict[str, Interval]:
        """By name."""
        return {f"r2_{name}": value for name, value in self.r2.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "r2": {name: value.to_json() for name, value in self.r2.items()},
            **self.chosen,
            "train_items": self.train_items,
            "test_items": self.test_items,
        }


def check_labels(labels: Tensor) -> None:
    """Raises UserError where one of these classes is below 0, which stands for none (as in Hugging Face's
    sets); numbers of a regression may be."""
    if not labels.is_floating_point() and labels.min() < 0:
        raise UserError(
            f"probe: a label is {int(labels.min())}, which stands for no class: wrap the data in "
            "ssl_ebm.data.LabelledShare, which leaves out what has no label"
        )


def check_classes(train: Samples, test: Samples) -> int:
    """Number of classes of two sets.

    Raises:
        UserError: labels of one class or below 0, fewer training items than classes, or sets that do not
            match.
    """
    if train.features.shape[1:] != test.features.shape[1:]:
        raise UserError(
            f"probe: training features are {tuple(train.features.shape)}, test features "
            f"{tuple(test.features.shape)}: take both from one layer"
        )
    if train.target.ndim != 1 or train.target.is_floating_point():
        raise UserError("probe: these labels are no classes: use RegressionProbe for numbers")
    labels = torch.cat([train.target, test.target])
    check_labels(labels)
    classes = int(labels.max()) + 1
    if len(train.target.unique()) < 2:
        raise UserError("probe: all training labels are of one class: give two classes or more")
    if len(train) < classes:
        raise UserError(f"probe: {len(train)} training items for {classes} classes: give at least as many")
    return classes


def classified(
    predicted: Tensor, train: Samples, test: Samples, classes: int, chosen: dict[str, float]
) -> Classified:
    """The result of predictions (N,) for the test items."""
    right = (predicted == test.target).double()
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    confusion.index_put_((test.target, predicted), torch.ones((), dtype=torch.int64), accumulate=True)
    chance = float(test.target.bincount().max()) / len(test)
    return Classified(share(right, test.groups), chance, confusion, predicted, chosen, len(train), len(test))


def share(right: Tensor, groups: Tensor | None) -> Interval:
    """The mean of zeros and ones (N,), with its 95 % interval."""
    if groups is None:
        return share_interval(int(right.sum()), len(right))
    return grouped_share_interval(right.numpy(), groups.numpy())


def regressed(
    predicted: Tensor, train: Samples, test: Samples, names: Sequence[str], chosen: dict[str, float]
) -> Regressed:
    """The result of predictions (N, K) for the test items."""
    groups = np.arange(len(test)) if test.groups is None else test.groups.numpy()
    drawn = Bootstrap(groups, RESAMPLES)
    wrong = (predicted - test.target).square().double().numpy()
    spread = (test.target - test.target.mean(0)).square().double().numpy()
    r2 = {}
    for k, name in enumerate(names):
        if not spread[:, k].any():
            raise UserError(f"probe: {name} is the same for all test items: there is nothing to foresee")
        r2[name] = drawn.ratio(wrong[:, k], spread[:, k]).map(lambda part: 1 - np.asarray(part)).interval()
    return Regressed(r2, predicted, chosen, len(train), len(test))


def held_out(target: Tensor, groups: Tensor | None = None, parts: int = 5) -> Tensor | None:
    """One item in `parts` of every class, (N,) bool, to choose a setting on; None where some class has too
    few for that.

    For targets that are no classes, one item in `parts`. Of groups (see `Samples`) one in `parts` with all
    its items: what holds for other windows of the same clip says nothing about new clips. A group counts to
    the class of its first item.
    """
    if groups is not None and len(groups.unique()) < len(groups):
        _, group = groups.unique(return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(group)).scatter_reduce(
            0, group, torch.arange(len(group)), "amin"
        )
        held_groups = held_out(target[first], parts=parts)
        if held_groups is None:
            return None
        held = held_groups[group]
        classes = target.ndim == 1 and not target.is_floating_point()
        # A group may hold items of several classes, and the only ones of some.
        return None if classes and len(target[~held].unique()) < len(target.unique()) else held
    if target.ndim > 1 or target.is_floating_point():
        return None if len(target) < 2 * parts else torch.arange(len(target)) % parts == 0
    held = torch.zeros(len(target), dtype=torch.bool)
    for one in target.unique():
        places = (target == one).nonzero()[:, 0]
        if len(places) < 2:
            return None
        held[places[:: min(parts, len(places))]] = True
    return held
