"""Next-frame prediction on a set of clips: every figure that samples, energies and latents allow, kept per
clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_ebm.data.read_watch import watched
from ssl_ebm.evaluation.controls import Ensemble
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.leakage import swap_test
from ssl_ebm.evaluation.perceptual import Distance, lpips_if_on_disk
from ssl_ebm.evaluation.protocols import Clips, EnergyModel, FramePredictor, Futures, KnownWorld, has_latent
from ssl_ebm.evaluation.records import (
    BoundsRecord,
    FrameEvaluation,
    ModelRecord,
    check_best_of,
    first_clips,
    group_of,
    most_diverse,
)
from ssl_ebm.evaluation.samples import diversity, gradient_energy, squared_error
from ssl_ebm.evaluation.scores import coincide, free_energies, partners
from ssl_ebm.evaluation.similarity import structural_similarity
from ssl_ebm.evaluation.world import Modes, exact_bounds, posterior_mean

BEST_OF = (1, 5, 20, 100)
UNCERTAIN_SHARE = 0.25  # of the clips, where the data does not say which futures are uncertain
CACHED_VALUES = 2**17  # float32: half a megabyte
_ORDER, _NOISE, _BOUNDS, _SAMPLES = range(4)  # streams of random numbers


def evaluate_frames(
    models: Mapping[str, Sequence[FramePredictor]],
    dataset: Clips,
    clips: Sequence[int] | None = None,
    *,
    samples: int = 100,
    best_of: Sequence[int] = BEST_OF,
    beta: float = 1.0,
    split: str = "test",
    seed: int = 0,
    model_seeds: Sequence[int] = (),
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    least_squares: str = "least_squares",
    latent: str = "latent_ebm",
    progress: Callable[[int, int], None] | None = None,
) -> FrameEvaluation:
    """Draws ``samples`` next frames a clip from every model and keeps a few numbers of each.

    Args:
        models: name -> one network for each training seed (any number M; a control may have one).
        dataset: items with ``video`` (T, C, H, W), ``clip``, and ``group`` and ``uncertain`` where known; a
            :class:`KnownWorld` gives the figures that need the truth.
        clips: indices into ``dataset``; all of it if None.
        beta: inverse temperature of the second set of free energies.
        seed: of all draws: the order of clips (which decides their partners), noise, samples. A model's
            samples depend on its place among its seeds and on ``batch_size``, not on the other models.
        least_squares: name of the models whose prediction is the blurred mean where the world is unknown.
        latent: name of the models whose diversity tells which futures are uncertain where the data does not.
        progress: called with (clips done, clips in all).

    Memory: one batch's samples, ``batch_size * samples`` frames, and ``8 * 2 * samples`` bytes a clip and
    network. Networks are moved to ``device`` and stay there; modes, gradients and global random states are
    left as they were.
    """
    indices = np.arange(len(dataset)) if clips is None else np.asarray(clips, dtype=np.int64)
    best_of = check_best_of(best_of, samples)
    if not len(indices):
        raise ValueError("no clips to evaluate")
    everyone = [model for networks in models.values() for model in networks]
    for model in everyone:
        if isinstance(model, nn.Module):
            model.to(device)
    context = everyone[0].context_frames
    records = {
        name: ModelRecord.empty(len(m), len(indices), samples, any(isinstance(one, Ensemble) for one in m))
        for name, m in models.items()
    }
    bounds = BoundsRecord.empty(len(indices), len(best_of)) if isinstance(dataset, KnownWorld) else None
    clip, group = np.zeros((2, len(indices)), dtype=np.int64)
    gradient = np.zeros(len(indices))
    uncertain: list[tuple[int, bool]] = []
    lpips = lpips_if_on_disk(device)
    pixels = 0

    order = torch.randperm(len(indices), generator=generator_for(seed, _ORDER)).numpy()
    batches = np.array_split(order, -(-len(order) // batch_size))  # nearly equal: no batch without a partner
    done = 0
    with isolated(*everyone):
        for number, rows in enumerate(batches):
            batch = _load(dataset, indices[rows], context, device)
            noise = generator_for(seed, _NOISE, number)
            batch.candidates["noise"] = torch.rand(batch.y.shape, generator=noise).to(device)
            clip[rows], group[rows] = batch.clip.numpy(), batch.group
            gradient[rows] = gradient_energy(batch.y).cpu().numpy()
            uncertain += [(int(r), bool(u)) for r, u in zip(rows, batch.uncertain, strict=False)]
            pixels = batch.y[0].numel()
            if bounds is not None:
                _record_bounds(bounds, rows, batch, best_of, samples, generator_for(seed, _BOUNDS, number))
            for name, networks in models.items():
                for m, model in enumerate(networks):
                    generator = generator_for(seed, _SAMPLES, number, m, device=device)
                    _record_samples(records[name], m, rows, model, batch, samples, generator, lpips)
                    blurred = None
                    if batch.futures is None and least_squares in models:
                        blurred = models[least_squares][m % len(models[least_squares])]
                    _record_energies(records[name], m, rows, model, batch, beta, blurred)
                    _record_latent(records[name], m, rows, model, batch)
            done += len(rows)
            if progress is not None:
                progress(done, len(order))

    if len(uncertain) == len(indices):
        mask = np.zeros(len(indices), dtype=bool)
        mask[[row for row, _ in uncertain]] = [value for _, value in uncertain]
        by = "the data"
    else:
        judge = latent if latent in records else next(iter(records))
        mask = most_diverse(records[judge].diversity, UNCERTAIN_SHARE)
        by = f"the {UNCERTAIN_SHARE:.0%} of clips whose samples by {judge} are most diverse"
    return FrameEvaluation(
        models=records,
        bounds=bounds,
        clip=clip,
        recording=first_clips(clip, group),
        gradient=gradient,
        uncertain=mask,
        uncertain_by=by,
        pixels=pixels,
        samples=samples,
        best_of=best_of,
        beta=beta,
        split=split,
        seed=seed,
        model_seeds=tuple(model_seeds),
    )


@dataclass
class _Batch:
    """B items, and what does not depend on the model."""

    x: Tensor  # (B, T, C, H, W)
    y: Tensor  # (B, C, H, W)
    clip: Tensor  # (B,)
    group: list[int]
    uncertain: list[bool]  # empty where the data does not say
    partner: Tensor  # (B,), -1 for none
    futures: list[Futures] | None
    modes: list[Modes | None]
    candidates: dict[str, Tensor]  # (B, C, H, W) each; y itself where there is none
    valid: dict[str, Tensor]  # (B,) bool


def load_items(dataset: Clips, indices: Sequence[int]) -> list[dict[str, Any]]:
    """The items, by the dataset's own batched access where it has one."""
    batched = getattr(dataset, "__getitems__", None)
    with watched():
        return batched(list(indices)) if batched is not None else [dataset[i] for i in indices]


def _load(dataset: Clips, indices: np.ndarray, context: int, device: torch.device | str) -> _Batch:
    numbers = [int(i) for i in indices]
    items = load_items(dataset, numbers)
    video = torch.stack([item["video"] for item in items]).to(device)
    x, y = video[:, :context], video[:, context]
    clip = torch.as_tensor([int(item["clip"]) for item in items])
    uncertain = [bool(item["uncertain"]) for item in items if "uncertain" in item]
    group = [group_of(item) for item in items]
    batch = _Batch(x, y, clip, group, uncertain, partners(clip), None, [None] * len(items), {}, {})
    everywhere = torch.ones(len(items), dtype=torch.bool)
    _add(batch, "other_clip", y[batch.partner.clamp_min(0).to(device)], batch.partner >= 0)
    _add(batch, "time_shuffled", x[:, 0], everywhere)
    if isinstance(dataset, KnownWorld):
        batch.futures = [dataset.futures(i) for i in numbers]
        batch.modes = [Modes.of(futures) for futures in batch.futures]
        through = [dataset.impossible(i) for i in numbers]
        frames = [y[i] if frame is None else frame.to(device) for i, frame in enumerate(through)]
        _add(batch, "impossible", torch.stack(frames), torch.tensor([frame is not None for frame in through]))
        blurred = torch.stack([posterior_mean(futures) for futures in batch.futures]).to(device)
        _add(batch, "blurred_mean", blurred, everywhere)
    return batch


def _add(batch: _Batch, name: str, frames: Tensor, valid: Tensor) -> None:
    """Registers a negative; a frame that equals a true future of its clip is none."""
    for i in range(len(frames)):
        futures = batch.y[i : i + 1] if batch.futures is None else batch.futures[i].frames.to(frames.device)
        valid[i] = bool(valid[i]) and not coincide(frames[i], futures)
    batch.candidates[name], batch.valid[name] = frames, valid


def _record_bounds(
    bounds: BoundsRecord,
    rows: np.ndarray,
    batch: _Batch,
    best_of: tuple[int, ...],
    samples: int,
    generator: torch.Generator,
) -> None:
    assert batch.futures is not None
    for row, futures, y in zip(rows, batch.futures, batch.y.cpu(), strict=True):
        exact = exact_bounds(futures, y, best_of, samples, generator)
        bounds.mean_squared_error[row] = exact.mean_squared_error
        bounds.mean_gradient[row] = exact.mean_gradient
        bounds.best_squared_error[row] = exact.best_squared_error
        bounds.total_variation[row] = exact.total_variation
        bounds.coverage[row] = exact.coverage


def _record_samples(
    record: ModelRecord,
    m: int,
    rows: np.ndarray,
    model: FramePredictor,
    batch: _Batch,
    samples: int,
    generator: torch.Generator,
    lpips: Distance | None,
) -> None:
    drawn = model.sample(batch.x, samples, 1, generator)[:, :, 0]  # (B, S, C, H, W)
    # A few clips at a time stay in the processor's cache, which halves the time; a GPU takes them all.
    at_once = len(drawn) if drawn.is_cuda else max(1, CACHED_VALUES // drawn[0].numel())
    for start in range(0, len(drawn), at_once):
        some, at = slice(start, start + at_once), rows[start : start + at_once]
        frames, y = drawn[some], batch.y[some]
        mean = frames.mean(1, keepdim=True)
        record.squared_error[m, at] = squared_error(frames, y).cpu().numpy()
        record.ssim[m, at] = structural_similarity(frames, y).cpu().numpy()
        record.mean_frame_error[m, at] = squared_error(mean, y)[:, 0].cpu().numpy()
        record.gradient[m, at] = gradient_energy(frames).mean(1).cpu().numpy()
        record.diversity[m, at] = diversity(frames).cpu().numpy()
    if lpips is not None:
        record.lpips[m, rows] = lpips(drawn[:, 0], batch.y).cpu().numpy()
    for row, modes, frames in zip(rows, batch.modes, drawn, strict=True):
        if modes is not None:
            scores = modes.score(frames)
            record.coverage[m, row] = scores.coverage
            record.precision[m, row] = scores.precision
            record.total_variation[m, row] = scores.total_variation


def _record_energies(
    record: ModelRecord,
    m: int,
    rows: np.ndarray,
    model: FramePredictor,
    batch: _Batch,
    beta: float,
    blurred: FramePredictor | None,
) -> None:
    if not isinstance(model, EnergyModel):
        return
    if blurred is not None:
        frames = blurred.sample(batch.x, 1, 1)[:, 0, 0]
        _add(batch, "blurred_mean", frames, torch.ones(len(frames), dtype=torch.bool))
    candidates = {"real": batch.y, **batch.candidates}
    both = free_energies(model, batch.x, candidates, (float("inf"), beta))
    for table, energies in zip((record.energy, record.energy_beta), both, strict=True):
        for name, values in energies.items():
            column = table.setdefault(name, np.full(record.gradient.shape, np.nan))
            valid = batch.valid.get(name, torch.ones(len(rows), dtype=torch.bool)).numpy()
            column[m, rows] = np.where(valid, values.numpy(), np.nan)


def _record_latent(
    record: ModelRecord, m: int, rows: np.ndarray, model: FramePredictor, batch: _Batch
) -> None:
    if not has_latent(model):
        return
    futures = None if batch.futures is None else [f.frames for f in batch.futures]
    test = swap_test(model, batch.x, batch.y, batch.partner, futures)  # type: ignore[arg-type]
    record.oracle_error[m, rows] = test.oracle.numpy()
    record.swap_copied[m, rows] = test.copied.numpy()
