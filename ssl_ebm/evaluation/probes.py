"""Linear probes: what a frozen representation says about labels that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.isolation import isolated
from ssl_ebm.evaluation.prediction import load_items

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # tried on a part of the training items
HELD_OUT = 5  # one in five of them
STEPS = 200  # of L-BFGS


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        accuracy: share of the test items that are classified rightly.
        low, high: its 95 % interval over test items (Wilson).
        penalty: the one chosen, on training items alone.
        train_items, test_items, classes: how many.
    """

    accuracy: float
    low: float
    high: float
    penalty: float
    train_items: int
    test_items: int
    classes: int


def linear_probe(
    features: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], penalties: tuple[float, ...] = PENALTIES
) -> ProbeResult:
    """Multinomial logistic regression on frozen features, fitted on the first of each pair, tested on the
    second.

        minimise mean cross-entropy + penalty / 2 |W|^2, on features standardised by training statistics

    The penalty is chosen on one in five training items; then all are fitted. By L-BFGS on the whole set.

    Args:
        features: (N, D) float of training and of test items.
        labels: (N,) int64 of the same.

    Raises:
        UserError: features that are not finite, or sizes that do not match.
    """
    (x, test), (y, truth) = features, labels
    if len(x) != len(y) or len(test) != len(truth) or x.shape[1:] != test.shape[1:] or not len(x):
        raise UserError(
            f"probe: features are {tuple(x.shape)} and {tuple(test.shape)}, labels {tuple(y.shape)} and "
            f"{tuple(truth.shape)}: give one label for each, of training and of test items"
        )
    if not bool(x.isfinite().all() and test.isfinite().all()):
        raise UserError("probe: the features are not finite: the checkpoint is broken")
    mean, deviation = x.mean(0), x.std(0).clamp_min(1e-6)
    x, test = (x - mean) / deviation, (test - mean) / deviation
    classes = int(torch.cat([y, truth]).max()) + 1
    held = torch.arange(len(x)) % HELD_OUT == 0
    scores = []
    for penalty in penalties if len(penalties) > 1 else ():
        weights = _fit(x[~held], y[~held], classes, penalty)
        scores.append(float((_logits(x[held], weights).argmax(1) == y[held]).double().mean()))
    best = penalties[int(np.argmax(scores))] if scores else penalties[0]
    right = _logits(test, _fit(x, y, classes, best)).argmax(1) == truth
    share = float(right.double().mean())
    low, high = _wilson(share, len(truth))
    return ProbeResult(share, low, high, best, len(x), len(truth), classes)


def features_of(
    represent: Callable[[Tensor], Tensor], dataset: Any, indices: list[int], batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels (N,) of items, in evaluation mode, without augmentation.

    Args:
        represent: images (B, C, H, W) -> (B, D): a task's `representation`, or a function for a baseline
            (``lambda images: images.flatten(1)`` gives raw pixels).
        dataset: items with `image` and `label`.

    Raises:
        UserError: the items have no labels.
    """
    found, labels = [], []
    owner = getattr(represent, "__self__", None)
    device = getattr(owner, "device", "cpu")
    with isolated(*([owner] if isinstance(owner, torch.nn.Module) else [])):
        for start in range(0, len(indices), batch_size):
            items = load_items(dataset, indices[start : start + batch_size])
            if "label" not in items[0]:
                raise UserError("probe: these images have no labels: put them in a folder for each class")
            images = torch.stack([item["image"] for item in items]).to(device)
            found.append(represent(images).float().cpu())
            labels.append(torch.stack([item["label"] for item in items]))
    return torch.cat(found), torch.cat(labels)


def _fit(x: Tensor, y: Tensor, classes: int, penalty: float) -> Tensor:
    """Weights with the bias as last row, (D + 1, classes)."""
    weights = x.new_zeros(x.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=STEPS, tolerance_grad=1e-6, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(_logits(x, weights), y)
        value = value + 0.5 * penalty * weights[:-1].square().sum()
        value.backward()
        return value

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(loss)
    return weights.detach()


def _logits(x: Tensor, weights: Tensor) -> Tensor:
    return x @ weights[:-1] + weights[-1]


def _wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson (1927): 95 % interval of a share."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * ((share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5) / (1 + z * z / count)
    return middle - half, middle + half
