"""Sparse coding: E(y, z) = |y - W z|^2 + lambda |z|_1 on image patches, and an encoder that infers z."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.energy import Amortised, Fista, Ista, Lista, PredictiveEnergy, Sparse
from ssl_ebm.energy.objectives import Amortisation
from ssl_ebm.energy.unconditional import LatentEnergy
from ssl_ebm.evaluation.drawing import Figure, Theme, curve
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.images import grey_images, patches
from ssl_ebm.lecture.training import batches_of, train
from ssl_ebm.networks import Dictionary

TITLE = "Sparse coding, and an encoder that has learnt to infer"
SENTENCE = (
    "A sparse z limits how much can be explained: patches become sums of few parts. FISTA minimises over z "
    "step by step; LISTA, a network of the same form, learns to do it in a few."
)
SIDE, ATOMS = 8, 100
WEIGHT = 0.18  # lambda; patches have norm 1
ITERATIONS = (1, 2, 3, 5, 8, 12)
LISTA_ITERATIONS = 3
CONVERGED = 300


def learn_dictionary(data: Tensor, seed: int) -> Tensor:
    """W (P, K) with columns of norm 1: z by FISTA, then a step on W down the energy at that z."""
    torch.manual_seed(seed)
    dictionary = Dictionary(data.shape[1], ATOMS)
    model = PredictiveEnergy(dictionary, Sparse(ATOMS), regularisation=WEIGHT)

    def objective(model: PredictiveEnergy, y: Tensor, generator: torch.Generator) -> Tensor:
        return model.infer(Fista(25, lipschitz=dictionary.curvature()), y, None).energy.mean()

    train(model, objective, batches_of(data, 256, seed), 400, 2e-2, seed)
    return dictionary.matrix().detach()


def with_dictionary(matrix: Tensor) -> PredictiveEnergy:
    """The energy with a dictionary that stays as it is."""
    decoder = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    with torch.no_grad():
        decoder.weight.copy_(matrix)
    decoder.requires_grad_(requires_grad=False)
    return PredictiveEnergy(decoder, Sparse(matrix.shape[1]), regularisation=WEIGHT)


def train_lista(matrix: Tensor, data: Tensor, iterations: int, seed: int) -> Lista:
    """Starts as ISTA; learns to make the energy at its output small."""
    encoder = Lista.from_dictionary(matrix, WEIGHT, iterations - 1)
    model = LatentEnergy(with_dictionary(matrix), Amortised(encoder))
    train(model, Amortisation(), batches_of(data, 256, seed), 500, 2e-3, seed)
    return encoder


def run(setting: Setting) -> Outcome:
    """Learns a dictionary, then compares inferences at equal iterations on unseen patches."""
    seeds = setting.seeds
    curves: dict[str, list[list[float]]] = {"ISTA": [], "FISTA": [], "LISTA": []}
    excess_ratio, used, explained, shown = [], [], [], None
    for seed in seeds:
        data = patches(grey_images(setting, 400, seed, "train"), SIDE, 8000, seed)
        unseen = patches(grey_images(setting, 200, seed, "test"), SIDE, 2000, seed + 1)
        matrix = learn_dictionary(data, seed)
        shown = matrix if shown is None else shown
        model = with_dictionary(matrix)
        limit = 2 * float(torch.linalg.matrix_norm(matrix, 2)) ** 2
        best = model.infer(Fista(CONVERGED, limit), unseen, None)
        lowest = float(best.energy.mean())
        for name, kind in (("ISTA", Ista), ("FISTA", Fista)):
            found = [float(model.infer(kind(n, limit), unseen, None).energy.mean()) for n in ITERATIONS]
            curves[name].append([value - lowest for value in found])
        encoders = {n: train_lista(matrix, data, n, seed) for n in ITERATIONS if n <= 5}
        found = [float(model.infer(Amortised(one), unseen, None).energy.mean()) for one in encoders.values()]
        curves["LISTA"].append([value - lowest for value in found])
        place = ITERATIONS.index(LISTA_ITERATIONS)
        excess_ratio.append(curves["LISTA"][-1][place] / curves["FISTA"][-1][place])
        used.append(float((best.z != 0).float().mean()))
        error = (unseen - best.z @ matrix.T).square().sum(1).mean()
        explained.append(1 - float(error))  # patches have norm 1
    claims = [
        Claim(
            "sparse_lista", "L12",
            f"Energy above the minimum after {LISTA_ITERATIONS} iterations, LISTA over FISTA, unseen patches",
            excess_ratio, most=0.5,
        ),
        Claim("sparse_used", "L12", f"Share of the {ATOMS} entries of z that are not zero", used, most=0.15),
        Claim(
            "sparse_explained", "L12", "Share of an unseen patch's squared norm that the code explains",
            explained, least=0.85,
        ),
    ]  # fmt: skip
    assert shown is not None
    atoms = shown

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        order = atoms.abs().amax(0).argsort()
        tiles = atoms[:, order].T.reshape(-1, SIDE, SIDE)
        rows = round(ATOMS**0.5)
        sheet = torch.full((rows * (SIDE + 1) + 1, rows * (SIDE + 1) + 1), float("nan"))
        for i, tile in enumerate(tiles):
            row, column = 1 + (i // rows) * (SIDE + 1), 1 + (i % rows) * (SIDE + 1)
            sheet[row : row + SIDE, column : column + SIDE] = tile / tile.abs().max()
        drawn = axes[0].imshow(sheet.numpy(), cmap="PuOr", vmin=-1, vmax=1)
        axes[0].set(xticks=[], yticks=[], title="dictionary")
        axes[0].figure.colorbar(drawn, ax=axes[0], label="weight, each over its largest", shrink=0.85)
        colours = {"ISTA": theme.soft, "FISTA": theme.second, "LISTA": theme.first}
        for name, runs in curves.items():
            steps = ITERATIONS[: len(runs[0])]
            for i, values in enumerate(runs):
                curve(axes[1], steps, values, colours[name], "" if i else name, marker="o", ms=4)
        axes[1].set(xlabel="iterations", ylabel="energy above the minimum", yscale="log")
        axes[1].legend()

    caption = (
        f"Left: the {ATOMS} columns of the dictionary, learnt on patches of {SIDE} by {SIDE} pixels. "
        "Right: energy above its minimum on unseen patches; a line for each seed. Each LISTA is trained "
        "for its number of iterations."
    )
    return Outcome(claims, [Figure(caption, draw, columns=2, width=4.8)])
