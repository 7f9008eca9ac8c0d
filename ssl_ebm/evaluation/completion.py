"""Completions of pictures with a hole: every figure that samples and energies allow, kept per picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_ebm.data.masks import Mask
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.prediction import BEST_OF, load_items
from ssl_ebm.evaluation.protocols import EnergyModel
from ssl_ebm.evaluation.records import check_best_of
from ssl_ebm.evaluation.samples import best_in_a_row, diversity, gradient_energy, squared_error
from ssl_ebm.evaluation.similarity import WINDOW, structural_similarity
from ssl_ebm.evaluation.statistics import Bootstrap, Estimate, decibels
from ssl_ebm.evaluation.summary import Figure, figure
from ssl_ebm.networks.completion import occlude

Array = NDArray[np.float64]

_MASKS, _SAMPLES = range(2)  # streams of random numbers


@runtime_checkable
class Completer(Protocol):
    """Completes pictures of which a part is hidden."""

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """x (B, C + 1, H, W) of `occlude` -> (B, S, C, H, W)."""
        ...


@dataclass
class CompletionRecord:
    """What is kept of one model: M networks, N pictures, S samples; sums over the hidden pixels.

    Attributes:
        squared_error, ssim: (M, N, S).
        gradient, diversity: (M, N).
        energy: F of the true completion and of another picture's, (M, N) each; empty without energies.
    """

    squared_error: Array
    ssim: Array
    gradient: Array
    diversity: Array
    energy: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def empty(cls, networks: int, pictures: int, samples: int) -> CompletionRecord:
        each = np.full((networks, pictures, samples), np.nan)
        one = np.full((networks, pictures), np.nan)
        return cls(each, each.copy(), one, one.copy())


@dataclass(frozen=True)
class CompletionEvaluation:
    """The record of all models on the same pictures with the same masks.

    Attributes:
        models: by name.
        hidden: pixel values in the hole, (N,).
        gradient: gradient energy of the true pictures in the hole, (N,).
        groups: a number that pictures of one group share, (N,); None: each stands alone.
        samples, best_of, seed, model_seeds, split: as in `evaluate_completions`.
    """

    models: dict[str, CompletionRecord]
    hidden: Array
    gradient: Array
    samples: int
    best_of: tuple[int, ...]
    seed: int
    model_seeds: tuple[int, ...]
    split: str
    groups: NDArray[np.int64] | None = None


def evaluate_completions(
    models: Mapping[str, Sequence[Completer]],
    dataset: Any,
    mask: Mask,
    indices: Sequence[int] | None = None,
    *,
    samples: int = 100,
    best_of: Sequence[int] = BEST_OF,
    split: str = "test",
    seed: int = 0,
    model_seeds: Sequence[int] = (),
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> CompletionEvaluation:
    """Hides a part of every picture, completes it `samples` times with every model, and scores the hole.

    Args:
        models: name -> one network for each training seed (any number M; a control may have one).
        dataset: items with `image` (C, H, W) in [0, 1], and `group` where that is known.
        mask: what is hidden; drawn from `seed` and the place among the pictures, the same for all models.
        indices: of the pictures; all if None.
        model_seeds: to be kept with the figures.
        progress: called with (pictures done, pictures in all).

    Figures of samples are of the hole alone: squared error summed over its pixel values; SSIM the mean of its
    map over the hole; gradient energy that of pairs of neighbours of which one is hidden at least. Energies:
    F(x, y) of the true y and of the y whose hole holds the pixels of another picture of the batch; of a batch
    of one neither.

    Raises:
        UserError: pictures too small for the mask.
    """
    order = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
    best_of = check_best_of(best_of, samples)
    if not len(order):
        raise ValueError("no pictures to evaluate")
    everyone = [model for networks in models.values() for model in networks]
    for model in everyone:
        if isinstance(model, nn.Module):
            model.to(device)
    records = {name: CompletionRecord.empty(len(m), len(order), samples) for name, m in models.items()}
    hidden, gradient = np.zeros(len(order)), np.zeros(len(order))
    groups: list[int] = []
    batches = np.array_split(np.arange(len(order)), -(-len(order) // batch_size))
    with isolated(*everyone):
        for number, rows in enumerate(batches):
            items = load_items(dataset, order[rows].tolist())
            y = torch.stack([item["image"] for item in items]).to(device)
            groups += [int(item["group"]) for item in items if "group" in item]
            size = (y.shape[2], y.shape[3])
            hole = mask.draw(len(y), size, generator_for(seed, _MASKS, number)).to(device)
            x = occlude(y, hole)
            other = torch.where(hole, y.roll(1, 0), y)
            hidden[rows] = hole.flatten(1).sum(1).cpu().numpy() * y.shape[1]
            gradient[rows] = gradient_energy(y, hole).cpu().numpy()
            for name, networks in models.items():
                for m, model in enumerate(networks):
                    generator = generator_for(seed, _SAMPLES, number, m, device=device)
                    drawn = model.sample(x, samples, generator)
                    _record(records[name], m, rows, drawn, y, hole)
                    if isinstance(model, EnergyModel) and len(y) > 1:  # else there is no other picture
                        _rate(records[name], m, rows, model, x, {"real": y, "swapped": other})
            if progress is not None:
                progress(int(rows[-1]) + 1, len(order))
    grouped = np.array(groups, np.int64) if len(groups) == len(order) else None
    return CompletionEvaluation(
        records, hidden, gradient, samples, best_of, seed, tuple(model_seeds), split, grouped
    )


def _record(
    record: CompletionRecord, m: int, rows: NDArray[np.int64], drawn: Tensor, y: Tensor, hole: Tensor
) -> None:
    # Samples that are one picture repeated, as those of least squares are, cost one.
    if drawn.stride(1) == 0:
        drawn = drawn[:, :1]
    record.squared_error[m, rows] = squared_error(drawn, y).cpu().numpy()
    if min(y.shape[2:]) > WINDOW // 2:
        for some in range(0, len(rows), 4):  # a few at a time stay in the processor's cache
            part = slice(some, some + 4)
            found = structural_similarity(drawn[part], y[part], hole[part])
            record.ssim[m, rows[part]] = found.cpu().numpy()
    record.gradient[m, rows] = gradient_energy(drawn, hole[:, None]).mean(1).cpu().numpy()
    if drawn.shape[1] > 1:
        values = hole.flatten(1).sum(1) * y.shape[1] / y[0].numel()  # share of the picture that is hidden
        record.diversity[m, rows] = (diversity(drawn) / values).cpu().numpy()


def _rate(
    record: CompletionRecord,
    m: int,
    rows: NDArray[np.int64],
    model: EnergyModel,
    x: Tensor,
    candidates: Mapping[str, Tensor],
) -> None:
    for name, y in candidates.items():
        table = record.energy.setdefault(name, np.full(record.gradient.shape, np.nan))
        table[m, rows] = model.free_energy(x, y).double().cpu().numpy()


def summarise_completions(
    evaluation: CompletionEvaluation, reference: str = "latent_ebm", resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Figures of every model, and paired differences of `reference` to the others.

    Returns {"models": {name: block}, "differences": {name: {"psnr_best_of": {K: figure}, "ssim_best_of":
    ...}}}. A figure is [value, low, high] (95 %, bootstrap over pictures, or groups of them, and training
    seeds), or None. A block holds, all of the hole alone:

        psnr_k1                one sample: dB, of pooled squared error
        psnr_best_of           {K: dB}, pooled; expected least error of K samples in a row
        ssim_best_of           {K: SSIM}, mean over pictures
        psnr_worst             dB, pooled; the worst of the S samples
        gradient_energy_ratio  samples over true pictures, sums over pictures
        diversity              mean squared distance of two samples, per pixel value
        auroc                  {"swapped": area}: F of the true hole below F of another picture's
        K, items, groups, seeds, model_seeds, split, seed
    """
    bootstrap = Bootstrap(np.arange(len(evaluation.hidden)), resamples, seed, evaluation.groups)
    curves = {name: _curves(evaluation, record, bootstrap) for name, record in evaluation.models.items()}
    blocks = {
        name: _block(evaluation, record, bootstrap, curves[name])
        for name, record in evaluation.models.items()
    }
    differences = {
        name: {
            kind: {k: figure(ours - curves[name][kind][k]) for k, ours in best.items()}
            for kind, best in curves[reference].items()
        }
        for name in evaluation.models
        if reference in curves and name != reference
    }
    return {"models": blocks, "differences": differences}


def _psnr(evaluation: CompletionEvaluation, bootstrap: Bootstrap, error: Array) -> Estimate:
    return bootstrap.ratio(error, evaluation.hidden).map(decibels)


def _curves(
    evaluation: CompletionEvaluation, record: CompletionRecord, bootstrap: Bootstrap
) -> dict[str, dict[str, Estimate]]:
    error, similarity = (torch.from_numpy(table) for table in (record.squared_error, record.ssim))

    def psnr(k: int) -> Estimate:
        return _psnr(evaluation, bootstrap, best_in_a_row(error, k).numpy())

    def ssim(k: int) -> Estimate:
        return bootstrap.mean(best_in_a_row(similarity, k, largest=True).numpy())

    return {
        "psnr_best_of": {str(k): psnr(k) for k in evaluation.best_of},
        "ssim_best_of": {str(k): ssim(k) for k in evaluation.best_of},
    }


def _block(
    evaluation: CompletionEvaluation,
    record: CompletionRecord,
    bootstrap: Bootstrap,
    curves: Mapping[str, Mapping[str, Estimate]],
) -> dict[str, Any]:
    error = record.squared_error
    block: dict[str, Any] = {
        "psnr_k1": figure(_psnr(evaluation, bootstrap, error.mean(2))),
        **{kind: {k: figure(e) for k, e in curve.items()} for kind, curve in curves.items()},
        "psnr_worst": figure(_psnr(evaluation, bootstrap, error.max(2))),
        "gradient_energy_ratio": figure(bootstrap.ratio(record.gradient, evaluation.gradient)),
        "diversity": figure(bootstrap.mean(record.diversity)),
        "auroc": {"swapped": _area(record, bootstrap)},
    }
    return block | {
        "K": evaluation.samples,
        "items": bootstrap.items,
        "groups": bootstrap.recordings,
        "seeds": len(error),
        "model_seeds": list(evaluation.model_seeds) or None,
        "split": evaluation.split,
        "seed": evaluation.seed,
    }


def _area(record: CompletionRecord, bootstrap: Bootstrap) -> Figure:
    if not record.energy:
        return None
    return figure(bootstrap.auroc(record.energy["real"], record.energy["swapped"]))
