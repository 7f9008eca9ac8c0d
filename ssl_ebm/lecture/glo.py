"""Generative latent optimisation: a latent for every image, learnt with the decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.energy import Ball, GradientDescent, PredictiveEnergy
from ssl_ebm.energy.objectives import LatentBank, Variational
from ssl_ebm.energy.unconditional import LatentEnergy, VariationalEnergy
from ssl_ebm.evaluation.drawing import Figure, Theme
from ssl_ebm.evaluation.samples import gradient_energy
from ssl_ebm.evaluation.statistics import decibels
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.images import SIZE, grey_images
from ssl_ebm.lecture.training import train
from ssl_ebm.networks import ImageDecoder, ImageEncoder
from ssl_ebm.report.tables import table

TITLE = "GLO: images from a learnt bank of latents"
SENTENCE = (
    "Give every training image a latent of its own, inside of a ball, and learn it together with the "
    "decoder: no encoder, no discriminator, and the way between two latents is made of images."
)
UNSEEN = 64
DIM = 16
BATCH = 64
WIDTH = 16


class Budget(NamedTuple):
    """Training images, and steps on them."""

    images: int
    steps: int


DIGITS = Budget(320, 1200)  # of a font
PHOTOGRAPHS = Budget(2880, 4000)  # differ more: with 320 of them PCA is nearer to unseen ones, by 0.5 dB


def psnr(error: Tensor) -> float:
    """Of squared errors summed over pixels, pooled: (N,) -> dB."""
    return float(decibels(float(error.mean()) / SIZE**2))


def fit_glo(data: Tensor, steps: int, seed: int) -> tuple[LatentEnergy, LatentBank]:
    """Decoder and bank; the latents begin at the whitened principal components, as in the paper."""
    torch.manual_seed(seed)
    latent = Ball(DIM, 1.0)
    inference = GradientDescent(80, 0.05, "adam", restarts=2)
    model = LatentEnergy(PredictiveEnergy(ImageDecoder(DIM, (SIZE, SIZE), width=WIDTH), latent), inference)
    bank = LatentBank(len(data), latent)
    mean, components = principal_components(data)
    latents = (data.flatten(1) - mean) @ components.T
    bank.begin_at(latents / latents.std(0) / DIM**0.5)  # of length 1, the ball's radius, on average

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return torch.randint(len(data), (BATCH,), generator=generator)

    def objective(both: nn.ModuleList, index: Tensor, generator: torch.Generator) -> Tensor:
        return bank(model, data[index], generator, index)

    train(nn.ModuleList([model, bank]), objective, draw, steps, 5e-3, seed)
    return model, bank


def fit_vae(data: Tensor, steps: int, seed: int) -> VariationalEnergy:
    """An autoencoder with a noisy latent, the same decoder."""
    torch.manual_seed(seed)
    encoder = ImageEncoder(2 * DIM, width=8)
    model = VariationalEnergy(encoder, ImageDecoder(DIM, (SIZE, SIZE), width=WIDTH), beta=5.0)

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return data[torch.randint(len(data), (BATCH,), generator=generator)]

    train(model, Variational(), draw, steps, 2e-3, seed)
    return model


def principal_components(data: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of images (N, 1, H, W), as (H W), and their first components (DIM, H W), orthonormal."""
    flat = data.flatten(1)
    mean = flat.mean(0)
    return mean, torch.linalg.svd(flat - mean, full_matrices=False).Vh[:DIM]


def pca(data: Tensor, y: Tensor) -> Tensor:
    """What the first components of the data make of images y: (N, 1, H, W) -> the same shape."""
    mean, components = principal_components(data)
    return (mean + (y.flatten(1) - mean) @ components.T @ components).reshape(y.shape)


def between(model: LatentEnergy, bank: LatentBank, a: Tensor, b: Tensor, share: float) -> Tensor:
    """Images from latents on the way from those of a to those of b: (N,), (N,) -> (N, 1, H, W)."""
    with torch.no_grad():
        z = along_sphere(bank.codes(a), bank.codes(b), share)
        return model.model.decode(None, z[:, None])[:, 0]


def along_sphere(a: Tensor, b: Tensor, share: float) -> Tensor:
    """(N, D), (N, D) -> (N, D), the `share` of the way from a to b: direction and length change at an even
    pace. The straight way would lead through the inner ball, where learnt latents do not lie.

    Source: White, "Sampling generative networks" (2016).
    """
    lengths = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    one, two = a / lengths[0], b / lengths[1]
    angle = (one * two).sum(1, keepdim=True).clamp(-1, 1).arccos().clamp(1e-3, math.pi - 1e-3)
    turned = (((1 - share) * angle).sin() * one + (share * angle).sin() * two) / angle.sin()
    return turned * torch.lerp(*lengths, share)


def crossfade(a: Tensor, b: Tensor) -> Tensor:
    """The mean of two images each: what a linear decoder has half-way between their latents."""
    return (0.5 * (a + b)).clamp(0, 1)


def run(setting: Setting) -> Outcome:
    """Against PCA of the same dimension and a VAE: seen images, unseen images, and the way between two."""
    seeds = setting.seeds
    budget = DIGITS if setting.images is None else PHOTOGRAPHS
    seen: dict[str, list[float]] = {"GLO": [], "PCA": [], "VAE": []}
    unseen: dict[str, list[float]] = {"GLO": [], "PCA": [], "VAE": []}
    halfway, shown = [], None
    for seed in seeds:
        data = grey_images(setting, budget.images, seed, "train")
        new = grey_images(setting, UNSEEN, seed, "test")
        model, bank = fit_glo(data, budget.steps, seed)
        vae = fit_vae(data, budget.steps, seed)
        index = torch.arange(len(data))
        with torch.no_grad():
            made = between(model, bank, index, index, 0.0)
            seen["GLO"].append(psnr((made - data).square().flatten(1).sum(1)))
            for name, y in (("seen", data), ("new", new)):
                back = vae.decoder(vae.posterior(y)[0][:, None])[:, 0]
                (seen if name == "seen" else unseen)["VAE"].append(
                    psnr((back - y).square().flatten(1).sum(1))
                )
        found = model.model.infer(model.inference, new, None, torch.Generator().manual_seed(seed))
        unseen["GLO"].append(psnr(found.energy.detach()))
        seen["PCA"].append(psnr((pca(data, data) - data).square().flatten(1).sum(1)))
        unseen["PCA"].append(psnr((pca(data, new) - new).square().flatten(1).sum(1)))
        half = len(data) // 2
        a = index[:half]
        b = (a + half + 3) % len(data)  # another digit, where images are digits
        middle = between(model, bank, a, b, 0.5).clamp(0, 1)
        faded = crossfade(made[a], made[b])
        halfway.append(float(gradient_energy(middle).mean() / gradient_energy(faded).mean()))
        if shown is None:
            shown = (data, model, bank, vae)
    claims = [
        Claim(
            "glo_seen", "L12",
            f"PSNR of training images, GLO minus PCA, both with {DIM} numbers per image, dB",
            [g - p for g, p in zip(seen["GLO"], seen["PCA"], strict=True)], least=1.0,
        ),
        Claim(
            "glo_unseen", "L12",
            "PSNR of unseen images with z inferred by descent, GLO minus PCA, dB",
            [g - p for g, p in zip(unseen["GLO"], unseen["PCA"], strict=True)], least=0.0,
        ),
        Claim(
            "glo_between", "L12",
            "Gradient energy of images half-way between two latents, along the sphere, over that of the two "
            "images averaged",
            halfway, least=1.2,
        ),
    ]  # fmt: skip
    assert shown is not None
    data, model, bank, vae = shown

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        index = torch.arange(8)
        with torch.no_grad():
            rows = [
                data[:8],
                between(model, bank, index, index, 0.0),
                vae.decoder(vae.posterior(data[:8])[0][:, None])[:, 0],
            ]
        rows.insert(2, pca(data, data[:8]))
        _sheet(axes[0], rows, ["images", "GLO", "PCA", "VAE"])
        axes[0].set_title(f"{DIM} numbers per image")
        steps = torch.linspace(0, 1, 8).tolist()
        ways = []
        for a, b in ((0, 7), (11, 3), (24, 39), (52, 18)):
            one, two = torch.tensor([a]), torch.tensor([b])
            ways.append(torch.cat([between(model, bank, one, two, share) for share in steps]))
        _sheet(axes[1], ways, [""] * 4)
        axes[1].set_title("from one latent to another")

    caption = (
        "Left: training images, and what each model makes of them. Right: images from latents on the way "
        "along the sphere between those of two training images (first and last of each row)."
    )
    names = ["PSNR in dB, mean over the seeds", "training images", "unseen images"]
    means = {kind: [f"{sum(one[kind]) / len(seeds):.2f}" for one in (seen, unseen)] for kind in seen}
    numbers = table(names, list(means.items()))
    return Outcome(claims, [Figure(caption, draw, columns=2, width=5.6, height=3.2)], [numbers])


def _sheet(axes: Axes, rows: Sequence[Tensor], labels: Sequence[str]) -> None:
    picture = torch.cat([torch.cat(list(row[:, 0]), 1) for row in rows], 0).clamp(0, 1)
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[SIZE * (i + 0.5) for i in range(len(rows))])
    axes.set_yticklabels(labels)
    axes.tick_params(length=0)
