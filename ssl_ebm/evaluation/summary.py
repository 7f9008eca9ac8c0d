"""From the record of an evaluation to the figures of ``results.json``, each as ``[value, low, high]``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_ebm.evaluation.records import BoundsRecord, FrameEvaluation, ModelRecord
from ssl_ebm.evaluation.samples import best_in_a_row, expected_best
from ssl_ebm.evaluation.scores import NEGATIVES
from ssl_ebm.evaluation.statistics import Bootstrap, Estimate, decibels

ITEM_CAP = 60.0  # dB: an item that is nearly exact counts this much in the mean over items

Figure = list[float | None] | None


def summarise(
    evaluation: FrameEvaluation, resamples: int = 1000, seed: int = 0, reference: str = "latent_ebm"
) -> dict[str, Any]:
    """Figures of every model on all clips and on the uncertain ones, the exact bounds, and paired
    differences.

    Returns ``{"models": {name: {"all": block, "uncertain": block}}, "bounds": {"all": ..., "uncertain": ...}
    or None, "differences": {name: {"all": ..., "uncertain": ...}}, "uncertain_by": str}``. A block holds,
    with a figure as ``[value, low, high]`` (95 %, see :mod:`statistics`), or None where it does not exist:

        psnr_k1                one sample: dB, of pooled squared error
        psnr_best_of           {K: dB}, pooled over clips; expected least error of K of the S samples
        ssim_best_of           {K: SSIM}, mean over clips; expected largest of K of the S samples
        psnr_mean              dB, pooled over all samples: psnr_k1 under its other name, for both are
                               estimated from all samples
        psnr_worst             dB, pooled; the worst of the S samples of each clip
        psnr_item_mean         dB, mean of each sample's own PSNR, capped at 60 dB; secondary
        psnr_of_mean_frame     dB, pooled; the mean of the S samples against the truth
        gradient_energy_ratio  samples over true frames, sums over clips
        diversity              mean squared distance of two samples, per pixel value
        lpips                  of one sample; None without its weights
        coverage, precision, total_variation
                               mean over the clips with several futures, where the truth is known
        auroc, auroc_beta      {negative: area}, by F and by F_beta
        leakage                see :func:`leakage_figures`
        K, horizon, clips, recordings, items, seeds, model_seeds, split, seed, beta
    """
    masks: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(evaluation.clip), dtype=bool)}
    masks["uncertain"] = evaluation.uncertain
    result: dict[str, Any] = {"models": {name: {} for name in evaluation.models}, "bounds": None}
    result["differences"] = {name: {} for name in evaluation.models if name != reference}
    result["uncertain_by"] = evaluation.uncertain_by
    if evaluation.bounds is not None:
        result["bounds"] = {}
    for part, mask in masks.items():
        bootstrap = Bootstrap(evaluation.clip[mask], resamples, seed, evaluation.recording[mask])
        curves = {}
        for name, record in evaluation.models.items():
            result["models"][name][part] = None
            if mask.any():
                curves[name] = _curves(evaluation, record, mask, bootstrap)
                result["models"][name][part] = _block(evaluation, record, mask, bootstrap, curves[name])
        if evaluation.bounds is not None:
            result["bounds"][part] = None
            if mask.any():
                result["bounds"][part] = _bounds(evaluation, evaluation.bounds, mask, bootstrap)
        for name, differences in result["differences"].items():
            if name in curves and reference in curves:
                differences[part] = {
                    kind: {k: figure(ours - curves[name][kind][k]) for k, ours in best.items()}
                    for kind, best in curves[reference].items()
                }
    return result


def figure(estimate: Estimate) -> Figure:
    """``[value, low, high]``; None where nothing was there to estimate."""
    return None if np.isnan(estimate.value) else estimate.interval().to_json()


Curves = dict[str, dict[str, Estimate]]


def _curves(
    evaluation: FrameEvaluation, record: ModelRecord, mask: NDArray[np.bool_], bootstrap: Bootstrap
) -> Curves:
    """Best-of-K curves of PSNR and SSIM, keyed by str(K): JSON's keys are strings."""
    error = torch.from_numpy(record.squared_error[:, mask])
    ssim = torch.from_numpy(record.ssim[:, mask])
    curves: Curves = {"psnr_best_of": {}, "ssim_best_of": {}}
    best = best_in_a_row if record.in_a_row else expected_best  # of independent samples less noisy
    for k in evaluation.best_of:
        curves["psnr_best_of"][str(k)] = bootstrap.psnr(best(error, k).numpy(), evaluation.pixels)
        curves["ssim_best_of"][str(k)] = bootstrap.mean(best(ssim, k, largest=True).numpy())
    return curves


def _block(
    evaluation: FrameEvaluation,
    record: ModelRecord,
    mask: NDArray[np.bool_],
    bootstrap: Bootstrap,
    curves: Curves,
) -> dict[str, Any]:
    pixels, error = evaluation.pixels, record.squared_error[:, mask]
    mean_psnr = bootstrap.psnr(error.mean(axis=2), pixels)
    items = np.minimum(decibels(error / pixels), ITEM_CAP).mean(axis=2)
    block: dict[str, Any] = {
        "psnr_k1": figure(mean_psnr),
        **{kind: {k: figure(e) for k, e in curve.items()} for kind, curve in curves.items()},
        "psnr_mean": figure(mean_psnr),
        "psnr_worst": figure(bootstrap.psnr(error.max(axis=2), pixels)),
        "psnr_item_mean": figure(bootstrap.mean(items)),
        "psnr_of_mean_frame": figure(bootstrap.psnr(record.mean_frame_error[:, mask], pixels)),
        "gradient_energy_ratio": figure(bootstrap.ratio(record.gradient[:, mask], evaluation.gradient[mask])),
    }
    for name in ("diversity", "lpips", "coverage", "precision", "total_variation"):
        block[name] = figure(bootstrap.mean(getattr(record, name)[:, mask]))
    block["auroc"] = _areas(record.energy, mask, bootstrap)
    block["auroc_beta"] = _areas(record.energy_beta, mask, bootstrap)
    block["leakage"] = leakage_figures(evaluation, record, mask, bootstrap, mean_psnr, curves)
    return block | {
        "K": evaluation.samples,
        "horizon": 1,
        "clips": bootstrap.clips,
        "recordings": bootstrap.recordings,
        "items": bootstrap.items,
        "seeds": record.seeds,
        "model_seeds": list(evaluation.model_seeds) or None,
        "split": evaluation.split,
        "seed": evaluation.seed,
        "beta": evaluation.beta,
    }


def _areas(
    energy: dict[str, NDArray[np.float64]], mask: NDArray[np.bool_], bootstrap: Bootstrap
) -> dict[str, Figure]:
    return {
        name: figure(bootstrap.auroc(energy["real"][:, mask], energy[name][:, mask]))
        if name in energy
        else None
        for name in NEGATIVES
    }


def leakage_figures(
    evaluation: FrameEvaluation,
    record: ModelRecord,
    mask: NDArray[np.bool_],
    bootstrap: Bootstrap,
    mean_psnr: Estimate,
    curves: Curves,
) -> dict[str, Figure]:
    """Whether z carries more than it should; None for a model without z, or without energies.

    psnr_z_from_y: dB, pooled, z inferred from the true next frame (an oracle: not a prediction).
    gap_mean: that minus the PSNR of samples with z from x. gap_best: that minus the best of all samples;
        near 0 says that z knows no more than which of the futures it is.
    swap_copied: share of clips where the z of another clip brought that clip's picture along; should be near
        0.
    energy_noise_ratio, energy_other_clip_ratio: mean F of uniform noise, and of another clip's frame, over
        mean F of the real next frame; near 1 is a flat energy.
    """
    oracle = bootstrap.psnr(record.oracle_error[:, mask], evaluation.pixels)
    best = curves["psnr_best_of"][str(evaluation.best_of[-1])]
    figures = {
        "psnr_z_from_y": figure(oracle),
        "gap_mean": figure(oracle - mean_psnr),
        "gap_best": figure(oracle - best),
        "swap_copied": figure(bootstrap.mean(record.swap_copied[:, mask])),
        "energy_noise_ratio": None,
        "energy_other_clip_ratio": None,
    }
    for name in ("noise", "other_clip"):
        if name in record.energy:
            ratio = bootstrap.ratio(record.energy[name][:, mask], record.energy["real"][:, mask])
            figures[f"energy_{name}_ratio"] = figure(ratio)
    return figures


def _bounds(
    evaluation: FrameEvaluation, bounds: BoundsRecord, mask: NDArray[np.bool_], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Of the exact posterior mean: its PSNR on the same clips and its gradient-energy ratio. Of an exact
    sampler with as many
    draws as the models: total variation, coverage, precision (1) and best-of-K."""
    best = {
        str(k): figure(bootstrap.psnr(bounds.best_squared_error[mask, i], evaluation.pixels))
        for i, k in enumerate(evaluation.best_of)
    }
    return {
        "posterior_mean": {
            "psnr": figure(bootstrap.psnr(bounds.mean_squared_error[mask], evaluation.pixels)),
            "gradient_energy_ratio": figure(
                bootstrap.ratio(bounds.mean_gradient[mask], evaluation.gradient[mask])
            ),
        },
        "exact_sampler": {
            "total_variation": figure(bootstrap.mean(bounds.total_variation[mask])),
            "coverage": figure(bootstrap.mean(bounds.coverage[mask])),
            "psnr_best_of": best,
        },
        "K": evaluation.samples,
        "clips": bootstrap.clips,
        "recordings": bootstrap.recordings,
        "items": bootstrap.items,
        "split": evaluation.split,
    }
