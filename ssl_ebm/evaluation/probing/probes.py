"""Probes: simple models of frozen features, fitted to training items and tested on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing.logistic import Regression, fit_logistic, logits, standardise
from ssl_ebm.evaluation.probing.results import (
    Classified,
    Regressed,
    Samples,
    check_classes,
    classified,
    held_out,
    regressed,
)

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # tried on a part of the training items
RIDGES = (100.0, 10.0, 1.0, 1e-1, 1e-2, 1e-3)  # the same, of a regression
FEW = 1e-2  # penalty where there are too few items to choose it
BEYOND = 4  # how many times the outermost penalty is multiplied or divided by 10
CHUNK = 1024  # test items whose distances are held at once


def check_penalties(penalties: Sequence[float]) -> None:
    """Raises UserError where there is none, or one that is not above 0."""
    if not penalties or not all(0 < one < float("inf") for one in penalties):
        raise UserError(f"penalties are {list(penalties)}: give one or more, all above 0")


def linear_probe(train: Samples, test: Samples, penalties: Sequence[float] = PENALTIES) -> Classified:
    """Multinomial logistic regression on frozen features.

        minimise mean cross-entropy + penalty / 2 |W|^2, on features standardised by training statistics

    The penalty is chosen on one in five training items, or groups, of every class; then all are fitted.

    Args:
        train, test: features (N, D) with classes.
        penalties: to choose from, and beyond, as `choose_penalty` does.

    Raises:
        UserError: features or labels that cannot be probed, penalties out of their range.
    """
    check_penalties(penalties)
    classes = check_classes(train, test)
    x, unseen = standardise(train.features, test.features)
    best = choose_penalty(x, train.target, classes, penalties, groups=train.groups)
    weights = fit_logistic(x, train.target, classes, best)
    return classified(logits(unseen, weights).argmax(1), train, test, classes, {"penalty": best})


def choose_penalty(
    x: Tensor,
    y: Tensor,
    classes: int,
    penalties: Sequence[float],
    few: float = FEW,
    groups: Tensor | None = None,
) -> float:
    """The penalty of `fit_logistic` with the most right on one in five items of every class, fitted to the
    others; of equals the largest.

    Args:
        x: (N, D) float.
        y: (N,) int64 classes.
        classes: C.
        penalties: to choose from, two or more; where the largest or the smallest of them is the best, tens of
            times as much, or tenths, are tried while they are better. Where it is one, it is that.
        few: what is taken where a class has too few items, or groups, to choose.
        groups: as in `Samples`.
    """
    if len(penalties) == 1:
        return penalties[0]
    held = held_out(y, groups)
    if held is None:
        return few
    regression, weights = Regression(x[~held], y[~held], classes), None

    def right(penalty: float) -> float:
        nonlocal weights
        weights = regression.fit(penalty, weights)
        return float((logits(x[held], weights).argmax(1) == y[held]).double().mean())

    return _best(right, penalties)


def _best(score: Callable[[float], float], penalties: Sequence[float]) -> float:
    """The penalty of the highest score; of equals the largest.

    Where the largest of them is the best, ten times as much is tried, too, and so on while that is better;
    so is a tenth of the smallest.
    """
    scores = {penalty: score(penalty) for penalty in sorted(penalties, reverse=True)}
    best = max(scores, key=lambda penalty: scores[penalty])
    for edge, factor in ((max(scores), 10.0), (min(scores), 0.1)):
        if best != edge:
            continue
        for _ in range(BEYOND):
            further = score(best * factor)
            if not further > scores[best]:
                break
            best *= factor
            scores[best] = further
    return best


def check_knn(neighbours: int, temperature: float) -> None:
    """Raises UserError where one of the two is out of its range; see `knn_probe`."""
    if neighbours < 1 or not temperature > 0:
        raise UserError(
            f"knn: neighbours is {neighbours}, temperature {temperature}: use at least 1 and above 0"
        )


def knn_probe(train: Samples, test: Samples, neighbours: int = 20, temperature: float = 0.07) -> Classified:
    """The class with the most votes among the k training items of the largest cosine similarity s; each has
    exp(s / temperature) votes.

    Args:
        train, test: features (N, D) with classes.
        neighbours: k; all training items where there are fewer.
        temperature: above 0; infinite: one vote each.

    Raises:
        UserError: features or labels that cannot be probed, a setting out of its range.

    Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (2018),
    section 3.4.
    """
    check_knn(neighbours, temperature)
    classes = check_classes(train, test)
    known = torch.nn.functional.normalize(train.features, dim=1)
    votes = torch.nn.functional.one_hot(train.target, classes).to(known)
    predicted = []
    for part in torch.nn.functional.normalize(test.features, dim=1).split(CHUNK):
        similarity, place = (part @ known.T).topk(min(neighbours, len(known)), dim=1)
        weight = ((similarity - 1) / temperature).exp()[..., None]
        predicted.append((votes[place] * weight).sum(1).argmax(1))
    return classified(torch.cat(predicted), train, test, classes, {"neighbours": neighbours})


def regression_probe(
    train: Samples, test: Samples, names: Sequence[str], penalties: Sequence[float] = RIDGES
) -> Regressed:
    """Ridge regression of numbers on frozen features.

        minimise mean |x W + b - y|^2 + penalty |W|^2, on features standardised by training statistics

    The penalty, one for all targets that vary, is chosen on one in five training items, or groups, in units
    of each target's deviation; then all are fitted.
    scikit-learn's Ridge(alpha=N penalty) has the same minimum.

    Args:
        train, test: features (N, D) with numbers (N, K).
        names: of the K.
        penalties: to choose from, and beyond, as `choose_penalty` does.

    Raises:
        UserError: features that cannot be probed, a target that does not vary.
    """
    x, unseen = (one.double() for one in standardise(train.features, test.features))
    y = train.target.double()
    held, best = held_out(y, train.groups), FEW
    if held is not None and len(penalties) > 1:
        scaled = y / y.std(0).where(y.std(0) > 0, 1.0)

        def closeness(penalty: float) -> float:
            errors = _ridge(x[~held], scaled[~held], x[held], penalty) - scaled[held]
            return -float(errors.square().mean())

        best = _best(closeness, penalties)
    elif len(penalties) == 1:
        best = penalties[0]
    return regressed(_ridge(x, y, unseen, best), train, test, names, {"penalty": best})


def _ridge(x: Tensor, y: Tensor, unseen: Tensor, penalty: float) -> Tensor:
    """Predictions for unseen items."""
    level, centre = y.mean(0), x.mean(0)
    x, y = x - centre, y - level
    gram = x.T @ x / len(x) + penalty * torch.eye(x.shape[1]).to(x)
    return (unseen - centre) @ torch.linalg.solve(gram, x.T @ y / len(x)) + level
