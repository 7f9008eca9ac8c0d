"""Multinomial logistic regression, exactly: the minimum of a convex function, found quickly."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_ebm.networks import onednn

STEPS = 500  # of L-BFGS, at most; tens are usual
LEAST = 1e-4  # of the mean of the bound's diagonal: penalty that it has at least
FLOOR = 0.1  # least deviation of a column, in root mean squares of all columns' deviations


def fit_logistic(x: Tensor, y: Tensor, classes: int, penalty: float, start: Tensor | None = None) -> Tensor:
    """Weights with the bias as last row, (D + 1, C), of

        minimise  mean cross-entropy(x W + b, y) + penalty / 2 |W|^2

    by L-BFGS in coordinates in which the Hessian's upper bound, 1/2 X^T X / N + penalty, is the identity:
    features that depend on each other, as those of a network do, then cost no more steps than others. With
    more features than items the search stays in the span of the items, where the minimum lies.

    scikit-learn's LogisticRegression(C=1 / (N penalty)) has the same minimum.

    Args:
        x: (N, D) float, finite; its columns should be of similar size (see `standardise`).
        y: (N,) int64, 0 .. classes - 1.
        classes: C.
        penalty: above 0.
        start: weights to begin with, (D + 1, C).

    Source: Boehning, "Multinomial logistic regression algorithm" (1992), for the bound.
    """
    return Regression(x, y, classes).fit(penalty, start)


class Regression:
    """`fit_logistic` for several penalties: what does not depend on them is computed once.

    Args:
        x, y, classes: as there.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._basis: Tensor | None = None
            if x.shape[1] > len(x):
                self._basis, small = torch.linalg.qr(x.T)  # x = small^T basis^T: (D, N), (N, N)
                x = small.T
            self._x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            self._truth = torch.nn.functional.one_hot(y, classes).T.to(x)  # (C, N)
            self._bound = _product(self._x.T.contiguous(), self._x) / (2 * len(x))

    def fit(self, penalty: float, start: Tensor | None = None) -> Tensor:
        """Weights (D + 1, C); `start` as in `fit_logistic`."""
        with torch.inference_mode(False), torch.no_grad():
            if self._basis is None:
                return self._fit(penalty, start)
            begin = None if start is None else torch.cat([self._basis.T @ start[:-1], start[-1:]])
            found = self._fit(penalty, begin)
            return torch.cat([self._basis @ found[:-1], found[-1:]])

    def _fit(self, penalty: float, start: Tensor | None) -> Tensor:
        x, truth = self._x, self._truth
        count, width = x.shape
        ridge = x.new_full((width,), penalty)
        ridge[-1] = 0  # of the bias
        bound = self._bound.double()
        # More of a penalty makes a bound as well, and one that can be factored: after products in float32,
        # features that depend on each other are a little below 0.
        bound.diagonal().add_(ridge.double().clamp_min(LEAST * bound.diagonal().mean()))
        root = torch.linalg.cholesky(bound)
        one = torch.eye(width).to(root)
        into = torch.linalg.solve_triangular(root.T, one, upper=True).to(x)  # W = into V
        # Weights as rows, (C, D + 1): few columns take up to ten times as long to multiply as few rows.
        v = x.new_zeros(len(truth), width) if start is None else (start.T.double() @ root).to(x)
        v.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [v],
            max_iter=STEPS,
            max_eval=2 * STEPS,
            tolerance_grad=1e-4,  # the loss is then within some 1e-6 of its minimum
            tolerance_change=1e-9,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss() -> float:
            weights = v.detach() @ into.T
            scores = torch.log_softmax(_product(weights, x.T), 0)  # (C, N)
            v.grad = (_product(scores.exp() - truth, x) / count + ridge * weights) @ into
            fit = -(scores * truth).sum() / count
            return float(fit + 0.5 * (ridge * weights.square()).sum())

        optimizer.step(loss)
        return (v.detach() @ into.T).T.contiguous()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b, by the faster of two libraries for float32 on a processor."""
    fast = onednn.FASTER and a.device.type == "cpu" and a.dtype == torch.float32
    return onednn.multiply(a, b) if fast else a @ b


def logits(x: Tensor, weights: Tensor) -> Tensor:
    """Scores of the classes, (N, C)."""
    return x @ weights[:-1] + weights[-1]


def logistic_loss(x: Tensor, y: Tensor, weights: Tensor, penalty: float) -> float:
    """What `fit_logistic` minimises."""
    fit = torch.nn.functional.cross_entropy(logits(x, weights).double(), y)
    return float(fit + 0.5 * penalty * weights[:-1].double().square().sum())


def standardise(train: Tensor, *others: Tensor) -> list[Tensor]:
    """All sets with the training set's mean taken out and divided by its deviation, column by column.

    A column that hardly varies is not blown up: no deviation counts as less than a tenth of all columns'
    root mean square. (A pixel that is dark in all but one training item would else rule some test items.)
    """
    mean, deviation = train.mean(0), train.std(0, correction=0)
    floor = FLOOR * deviation.square().mean().sqrt().clamp_min(1e-12)
    return [(one - mean) / deviation.maximum(floor) for one in (train, *others)]
