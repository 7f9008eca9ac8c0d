"""Classes from features: a linear head, mixed-up inputs, and the votes of a whole split."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.utilities import dim_zero_cat

HEAD_START = 2e-5  # deviation of the initial weights, as in MAE's fine-tuning


def linear_head(features: int, classes: int, drop_out: float, alone: bool) -> nn.Sequential:
    """W drop(norm(r)) + b: (B, features) -> (B, classes).

    norm is LayerNorm; where the head learns alone, batch normalisation without affine parameters, because the
    entries of frozen features have scales of their own.

    Source: He et al., "Masked autoencoders are scalable vision learners" (2022), appendix A.
    """
    norm = nn.BatchNorm1d(features, eps=1e-6, affine=False) if alone else nn.LayerNorm(features, eps=1e-6)
    linear = nn.Linear(features, classes)
    nn.init.trunc_normal_(linear.weight, std=HEAD_START)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(norm, nn.Dropout(drop_out), linear)


def mixed_up(x: Tensor, targets: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Inputs and targets mixed with those of other items of the batch.

        w x + (1 - w) x[order], the same of the targets, with w ~ Beta(strength, strength), one for the batch

    Args:
        x: (B, *X) float.
        targets: (B, K) probabilities.
        strength: above 0; towards 0 nothing is mixed, 1 is uniform.

    Source: Zhang et al., "mixup: beyond empirical risk minimization" (2018).
    """
    w = float(Beta(strength, strength).sample())
    order = torch.randperm(len(x), device=x.device)
    return w * x + (1 - w) * x[order], w * targets + (1 - w) * targets[order]


class Vote(NamedTuple):
    """What was found of each thing of a split that has a label of its own, U of them.

    Attributes:
        unit: (U,) int64, its number, rising.
        label: (U,) int64.
        predicted: (U,) int64.
        group: (U,) int64, units of one group depend on each other: the clips of one recording. None: each
            stands alone.
    """

    unit: Tensor
    label: Tensor
    predicted: Tensor
    group: Tensor | None = None

    @property
    def right(self) -> Tensor:
        """(U,) bool."""
        return self.label == self.predicted

    def confusion(self, classes: int) -> Tensor:
        """(K, K) counts: true class by predicted class."""
        return multiclass_confusion_matrix(self.predicted, self.label, num_classes=classes)


class Votes(Metric):
    """Class probabilities of all items of a split, averaged over the items of a unit: the windows of a clip.

    So a clip counts once, however long it is. An item that several processes evaluate, to have equal shares,
    counts once as well.
    """

    full_state_update = False
    probability: list[Tensor]
    label: list[Tensor]
    unit: list[Tensor]
    group: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name in ("probability", "label", "unit", "group"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, probability: Tensor, label: Tensor, unit: Tensor, group: Tensor | None = None) -> None:
        """(B, K) float, (B,) int64, (B,) int64, (B,) int64."""
        self.probability.append(probability)
        self.label.append(label)
        self.unit.append(unit)
        self.group.append(unit if group is None else group)

    def compute(self) -> Vote:
        found = (self.probability, self.label, self.unit, self.group)
        probability, label, unit, group = map(dim_zero_cat, found)
        units, place = unit.unique(return_inverse=True)
        total = probability.new_zeros(len(units), probability.shape[1]).index_add_(0, place, probability)
        labels = label.new_zeros(len(units)).scatter_(0, place, label)  # the same for all items of a unit
        groups = group.new_zeros(len(units)).scatter_(0, place, group)
        return Vote(units, labels, total.argmax(1), groups)
