"""Stages that compute activations again, or are compiled: the same training, fewer activations kept."""

import copy
import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import LightningModule
from several_processes import BLOCKS, SIZE, ItemData, described, digits, inpainting, masked_autoencoder
from several_processes import MODELS as OTHERS
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from toy_task import ToyTask
from two_futures import both_futures, small, trainer

from ssl_ebm.data import PlanePoints
from ssl_ebm.energy.sampling import Langevin
from ssl_ebm.energy.stages import Staged
from ssl_ebm.errors import UserError
from ssl_ebm.networks import ImageEnergy, PointEnergy
from ssl_ebm.networks.convolutions import ResidualBlock
from ssl_ebm.networks.stages import PairedStages, Stage
from ssl_ebm.running.failures import NO_SECOND_DERIVATIVES, remedy_for
from ssl_ebm.tasks import DensityEstimation, blocks
from ssl_ebm.tasks.blocks import GRAPHS, checkpoint_activations, compile_stages
from ssl_ebm.tasks.seeding import SeededSteps

pytestmark = pytest.mark.usefixtures("fresh_compiler")

Change = Callable[[Any], None]
BATCH = 4
POINTS = described("networks.PointEnergy", width=16, frequencies=2, confine=0.1)
PICTURES = described("networks.ImageEnergy", size=[SIZE, SIZE], width=4, levels=2)


def score_of(name: str) -> dict[str, Any]:
    return described(f"energy.objectives.{name}", **({"noise": 0.3} if name.startswith("Denoising") else {}))


def density(energy: dict[str, Any], objective: dict[str, Any]) -> DensityEstimation:
    torch.manual_seed(0)
    kind = "point" if energy is POINTS else "image"
    return DensityEstimation(energy, objective, input=kind, lr=5e-3, warmup_steps=1)


def by_chains() -> DensityEstimation:
    noise = described("energy.noise.UniformNoise", shape=[1, SIZE, SIZE], low=0.0, high=1.0)
    buffer = described("energy.objectives.ReplayBuffer", size=32, noise=noise)
    langevin = described("energy.sampling.Langevin", step_size=0.01)
    name = "energy.objectives.PersistentContrastiveDivergence"
    return density(PICTURES, described(name, sampler=langevin, steps=3, buffer=buffer))


def contractive() -> DensityEstimation:
    encoder = described("networks.ImageEncoder", outputs=3, size=[SIZE, SIZE], width=4, levels=2)
    decoder = described("networks.ImageDecoder", inputs=3, size=[SIZE, SIZE], width=4)
    energy = described("energy.unconditional.ReconstructionEnergy", encoder=encoder, decoder=decoder)
    return density(energy, described("energy.objectives.Contractive", weight=0.1))


def by_ista() -> DensityEstimation:
    model = described(
        "energy.PredictiveEnergy",
        decoder=described("networks.Mlp", inputs=6, outputs=2, width=8),
        latent=described("energy.Sparse", dim=6),
    )
    energy = described(
        "energy.unconditional.LatentEnergy", model=model, inference=described("energy.Ista", steps=3)
    )
    return density({**energy}, described("energy.objectives.PushDown"))


SCORES = ("ScoreMatching", "SlicedScoreMatching", "DenoisingScoreMatching")
DIFFERENTIATED_TWICE: dict[str, Callable[[], Any]] = {
    **{f"points, {name}": functools.partial(density, POINTS, score_of(name)) for name in SCORES},
    **{f"images, {name}": functools.partial(density, PICTURES, score_of(name)) for name in SCORES[1:]},
    "images, Contractive": contractive,
}
MODELS: dict[str, Callable[[], Any]] = {
    **{name: make for name, make in OTHERS.items() if "text, " not in name or "tokens" in name},
    "frames in detail, one-hot": lambda: small(detail=8, layers=2),
    "frames, quantised": lambda: small(latent="quantised"),
    "points, likelihood": lambda: density(
        POINTS, described("energy.objectives.GridLikelihood", low=-4.0, high=4.0, points=20)
    ),
    "images, chains": by_chains,
    **DIFFERENTIATED_TWICE,
}


def data_of(name: str) -> Any:
    if name.startswith("frames"):
        return digits(2)
    return (
        PlanePoints("rings", train_points=64, batch_size=8)
        if name.startswith("points")
        else ItemData(BATCH, 0, 0)
    )


def after_training(name: str, change: Change | None = None) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Losses and weights of three steps in double precision, with a validation between."""
    task = MODELS[name]()
    if change is not None:
        change(task)
    losses: list[Tensor] = []
    step = task.training_step
    task.training_step = lambda *batch: losses.append(loss := step(*batch)) or loss
    fitter = trainer(
        3, precision="64-true", callbacks=[SeededSteps(0)], val_check_interval=1, limit_val_batches=1,
        num_sanity_val_steps=0, check_val_every_n_epoch=None,
    )  # fmt: skip
    fitter.fit(task, datamodule=data_of(name))
    assert len(losses) == 3
    return [one.detach() for one in losses], task.state_dict()


plain = functools.cache(after_training)


def aot_eager(task: LightningModule) -> None:
    compile_stages(task, "aot_eager")


def both(task: LightningModule) -> None:
    aot_eager(task)
    checkpoint_activations(task)


def both_the_other_way(task: LightningModule) -> None:
    checkpoint_activations(task)
    aot_eager(task)


# --- the same training ---


@pytest.mark.parametrize("name", MODELS)
def test_activations_that_are_computed_again_train_alike_to_the_bit(name: str) -> None:
    expected, found = plain(name), after_training(name, checkpoint_activations)
    assert list(found[1]) == list(expected[1])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DIFFERENTIATED_TWICE])
def test_compiled_stages_train_alike(name: str) -> None:
    expected = plain(name)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        found = after_training(name, aot_eager)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]
    assert list(found[1]) == list(expected[1])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("change", [both, both_the_other_way])
def test_both_at_once_train_alike(change: Change) -> None:
    name = "frames in detail, one-hot"
    torch.testing.assert_close(after_training(name, change), plain(name), rtol=1e-7, atol=1e-8)


@pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))),
    reason="inductor needs a C++ compiler",
)
def test_a_block_compiled_by_inductor_computes_alike() -> None:
    """In single precision, as a user's are, through the C++ that it writes."""
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        task = LightningModule()
        task.block = ResidualBlock(16)
        if compiled:
            compile_stages(task, "inductor")
        x = torch.rand(2, 16, 8, 8, requires_grad=True)
        loss = task.block(x).square().sum()
        found.append([loss.detach(), *torch.autograd.grad(loss, [x, *task.parameters()])])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


class Dropping(LightningModule):
    """Draws random numbers inside of a stage."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            Stage(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)), nn.Linear(8, 1)
        )


def test_random_numbers_of_a_stage_are_drawn_again_alike() -> None:
    found = []
    for change in (lambda task: None, checkpoint_activations):
        task = Dropping()
        change(task)
        torch.manual_seed(1)
        loss = task.network(torch.ones(16, 8)).square().sum()
        found.append([*torch.autograd.grad(loss, list(task.parameters())), torch.rand(3)])
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("change", [checkpoint_activations, lambda task: compile_stages(task, "eager")])
def test_a_copy_has_weights_of_its_own(change: Change) -> None:
    task = inpainting("least_squares", BLOCKS)
    change(task)
    copied = copy.deepcopy(task)
    x = task.occluded(torch.rand(2, 1, SIZE, SIZE), torch.Generator().manual_seed(0))
    expected = task.context(x).mean
    with torch.no_grad():
        for weights in task.parameters():
            weights.zero_()
    torch.testing.assert_close(copied.context(x).mean, expected)


# --- what is kept ---


def kept_bytes(loss: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch) -> int:
    """Of all tensors that are kept for the gradient, weights included: by autograd, and as arguments of
    stages that are computed again (those within a tuple are none of autograd's)."""
    kept: dict[int, Tensor] = {}  # by storage; kept alive, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def checkpoint(stage: Any, *arguments: Any, **more: Any) -> Any:
        for one in tree_leaves(arguments):
            if isinstance(one, Tensor):
                keep(one)
        return torch.utils.checkpoint.checkpoint(stage, *arguments, **more)

    with monkeypatch.context() as patched, torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        patched.setattr(blocks, "checkpoint", checkpoint)
        loss()
    return sum(one.untyped_storage().nbytes() for one in kept.values())


def test_a_stage_keeps_its_argument_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    task = LightningModule()
    task.block = ResidualBlock(16)
    x = torch.rand(2, 16, 32, 32, requires_grad=True)
    whole = kept_bytes(lambda: task.block(x), monkeypatch)
    checkpoint_activations(task)
    assert kept_bytes(lambda: task.block(x), monkeypatch) == x.nbytes
    assert whole > 4 * x.nbytes


def frames(objective: str) -> tuple[Any, Callable[[], Tensor]]:
    """At the sizes of configs/frame_prediction/clips_*.yaml, smaller pictures."""
    task = small(objective, context_frames=2, codes=25, width=32, levels=2, radius=3, paints=8, detail=16)
    x, y = both_futures(8)
    return task, lambda: task.losses(x, y[:, 0], 1.0)["loss"]


def pictures(objective: str) -> tuple[Any, Callable[[], Tensor]]:
    network = "networks.completion.ConvolutionalCompletion"
    network = described(network, channels=1, parts=16, width=48, levels=2)
    task = inpainting(objective, BLOCKS, network)
    y = torch.rand(8, 1, 32, 32)
    x = task.occluded(y, torch.Generator().manual_seed(0))
    return task, lambda: task.losses(x, y, 1.0)["loss"]


def energies(name: str) -> tuple[Any, Callable[[], Tensor]]:
    task = LightningModule()
    energy = task.energy = PointEnergy(width=64, depth=3) if name == "points" else ImageEnergy()
    y = torch.rand(256, 2) if name == "points" else torch.rand(64, 1, 28, 28)
    return task, lambda: energy(y).sum()


def autoencoder() -> tuple[Any, Callable[[], Tensor]]:
    task = masked_autoencoder()
    y = torch.rand(64, 1, SIZE, SIZE)
    x = task.occluded(y, torch.Generator().manual_seed(0))
    return task, lambda: task.losses(x, y, 1.0)["loss"]


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda: frames("latent_ebm"), 0.35),
        (lambda: frames("least_squares"), 0.35),
        (lambda: pictures("latent_ebm"), 0.45),
        (lambda: pictures("least_squares"), 0.45),
        (lambda: energies("images"), 0.5),
        (lambda: energies("points"), 0.55),
        (autoencoder, 0.45),
    ],
    ids=["frames, latent", "frames", "pictures, latent", "pictures", "images", "points", "autoencoder"],
)
def test_less_is_kept(make: Any, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    task, loss = make()
    before = kept_bytes(loss, monkeypatch)
    checkpoint_activations(task)
    assert kept_bytes(loss, monkeypatch) < most * before


def test_chains_whose_energy_is_frozen_compute_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    pair = PairedStages.pair

    def counted(self: PairedStages, *arguments: Any) -> Tensor:
        calls.append(next(self.parameters()).requires_grad)
        return pair(self, *arguments)

    monkeypatch.setattr(PairedStages, "pair", counted)
    task, loss = energies("points")
    checkpoint_activations(task)
    Langevin(0.01).sample(task.energy, torch.rand(4, 2), steps=5)
    assert calls == [False] * 3 * 5
    calls.clear()
    loss().backward()
    assert calls == [True] * 3 * 2


# --- what compiling costs ---


def test_batches_of_any_size_share_a_few_graphs() -> None:
    task = small()
    aot_eager(task)
    graphs = []
    for size in (8, 7, 5, 3, 9):
        x, y = both_futures(size)
        task.losses(x, y[:, 0], 1.0)["loss"].backward()
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[1:] == [graphs[1]] * 4
    assert graphs[1] <= 2 * graphs[0] < GRAPHS


def test_chains_and_training_of_any_size_share_a_few_graphs() -> None:
    task = by_chains()
    aot_eager(task)
    graphs = []
    for size in (8, 7, 5, 3, 9):
        y = torch.rand(size, 1, SIZE, SIZE)
        task.objective(task.energy, y).backward()
        with torch.no_grad():
            task.energy(y)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[1:] == [graphs[1]] * 4
    assert graphs[1] < GRAPHS


# --- what is refused ---


@pytest.mark.parametrize("make", [*DIFFERENTIATED_TWICE.values(), by_ista])
def test_second_derivatives_of_what_is_compiled_are_refused(make: Any) -> None:
    with pytest.raises(UserError, match="needs second derivatives, and compiled networks have none"):
        aot_eager(make())


def test_second_derivatives_of_an_objective_of_ones_own_are_said_in_one_line() -> None:
    """Torch's own error is known by its words."""
    task = density(POINTS, described("energy.objectives.Margin", noise=0.1))
    aot_eager(task)
    y = torch.rand(4, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(task.energy(y).sum(), y, create_graph=True)
    with pytest.raises(RuntimeError) as raised:
        slope.square().sum().backward()
    assert remedy_for(raised.value, None) == NO_SECOND_DERIVATIVES


class NoStages(LightningModule):
    """Modules that could be in stages, of which none is."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = PointEnergy(depth=0)


@pytest.mark.parametrize("change", [checkpoint_activations, aot_eager])
@pytest.mark.parametrize("make", [ToyTask, NoStages])
def test_a_task_without_stages_is_named(change: Change, make: Any) -> None:
    with pytest.raises(UserError, match=f"{make.__name__} has none: leave it out"):
        change(make())


def test_no_stage_is_inside_of_another() -> None:
    """It would be computed again twice."""
    for make in MODELS.values():
        for part in make().modules():
            if isinstance(part, Staged) and set(part.stages) & {"forward", "misfit"}:
                inner = part.decoder.modules() if "misfit" in part.stages else list(part.modules())[1:]
                assert not any(isinstance(one, Staged) for one in inner)


def test_what_is_compiled_twice_is_not_computed_again() -> None:
    task = by_chains()
    for _ in range(2):
        aot_eager(task)
    changed = [getattr(part, name).func for part, name in blocks.stages_of(task, "compile")]
    assert changed
    assert blocks._computed_again not in changed
