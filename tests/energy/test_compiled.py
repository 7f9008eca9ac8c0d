"""An energy with one compiled graph, against autograd of the energy itself."""

from __future__ import annotations

import copy
import os
import pickle
import shutil

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy import CompiledEnergy
from ssl_ebm.energy.sampling import Hmc, Langevin, Mala, Sampler
from ssl_ebm.errors import UserError
from ssl_ebm.networks import ImageEnergy, PointEnergy

ENERGIES = {
    "2 inputs": (lambda: PointEnergy(2, 16, 2), (5, 2)),
    "waves and a bowl": (lambda: PointEnergy(2, 16, 2, confine=0.1, frequencies=2), (5, 2)),
    "20 inputs": (lambda: PointEnergy(20, 16, 2), (5, 20)),
    "images": (lambda: ImageEnergy((8, 8), 1, 4, 2), (3, 1, 8, 8)),
}


def energy_and_start(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    make, shape = ENERGIES[name]
    torch.manual_seed(0)
    return make().to(dtype), torch.randn(shape, dtype=dtype)


def truth(energy: nn.Module, y: Tensor) -> tuple[Tensor, Tensor]:
    y = y.clone().requires_grad_()
    energies = energy(y)
    return energies.detach(), torch.autograd.grad(energies.sum(), y)[0]


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("learns", [True, False])
def test_values_and_gradients_are_those_of_autograd(name: str, learns: bool) -> None:
    energy, y = energy_and_start(name)
    found = CompiledEnergy(energy.requires_grad_(learns), "aot_eager").with_gradient(y)
    torch.testing.assert_close(found, truth(energy, y))
    assert not any(part.requires_grad for part in found)


@pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))),
    reason="inductor needs a C++ compiler",
)
def test_inductor_computes_alike() -> None:
    energy, y = energy_and_start("2 inputs", torch.float32)
    found = CompiledEnergy(energy.requires_grad_(False)).with_gradient(y)
    torch.testing.assert_close(found, truth(energy, y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampler", [Langevin(0.01), Mala(0.01), Hmc(0.05)], ids=lambda s: type(s).__name__)
def test_chains_are_the_same(sampler: Sampler) -> None:
    energy, y = energy_and_start("2 inputs")
    ended = []
    for each in (energy, CompiledEnergy(energy, "aot_eager")):
        chains = sampler.sample(each, y, 6, torch.Generator().manual_seed(0), record_every=2)
        ended.append([chains.state, chains.energy, chains.draws, chains.acceptance])
    torch.testing.assert_close(*ended)
    assert all(weights.requires_grad for weights in energy.parameters())


def test_weights_may_change_and_so_may_the_number_of_chains() -> None:
    energy, y = energy_and_start("2 inputs")
    compiled = CompiledEnergy(energy, "aot_eager")
    compiled.with_gradient(y)
    with torch.no_grad():
        for weights in energy.parameters():
            weights.mul_(1.5)
    for several in (y, torch.cat([y, 2 * y])):
        torch.testing.assert_close(compiled.with_gradient(several), truth(energy, several))


def test_it_learns_as_the_energy_does() -> None:
    energy, y = energy_and_start("2 inputs")
    compiled = CompiledEnergy(energy, "aot_eager")
    torch.testing.assert_close(compiled(y), energy(y))
    compiled(y).sum().backward()
    assert all(weights.grad is not None for weights in energy.parameters())


class Flat(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return torch.zeros(len(y), dtype=y.dtype)


def test_an_energy_that_is_the_same_everywhere_has_no_slope() -> None:
    energies, gradient = CompiledEnergy(Flat(), "aot_eager").with_gradient(torch.ones(3, 2))
    assert torch.equal(energies, torch.zeros(3))
    assert torch.equal(gradient, torch.zeros(3, 2))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda energy: pickle.loads(pickle.dumps(energy))])
def test_copies_and_other_processes_compile_for_themselves(again: object) -> None:
    energy, y = energy_and_start("2 inputs")
    compiled = CompiledEnergy(energy, "aot_eager")
    compiled.with_gradient(y)
    made = again(compiled)  # type: ignore[operator]
    with torch.no_grad():
        for weights in made.parameters():
            weights.mul_(2)
    torch.testing.assert_close(made.with_gradient(y), truth(made.energy, y))
    torch.testing.assert_close(compiled.with_gradient(y), truth(energy, y))


class Waiting(nn.Module):
    """What no graph has: a jump that depends on a value."""

    def forward(self, y: Tensor) -> Tensor:
        return y.sum(1) if y.sum().item() > 0 else y.square().sum(1)


def test_what_cannot_be_compiled_says_so() -> None:
    with pytest.raises(UserError, match="Waiting cannot be compiled here, so sample from it without"):
        Langevin(0.1).sample(CompiledEnergy(Waiting(), "aot_eager"), torch.ones(3, 2), 2)


def test_a_backend_that_is_not_there_says_so() -> None:
    energy, y = energy_and_start("2 inputs")
    with pytest.raises(UserError, match="PointEnergy cannot be compiled here"):
        CompiledEnergy(energy, "no such backend").with_gradient(y)


@torch._dynamo.config.patch(recompile_limit=2)
def test_more_energies_than_torch_has_graphs_for_one_function() -> None:
    torch._dynamo.reset()
    for count in range(1, 5):
        energy = PointEnergy(2, 4, count).double()
        y = torch.randn(3, 2, dtype=torch.float64)
        torch.testing.assert_close(CompiledEnergy(energy, "aot_eager").with_gradient(y), truth(energy, y))


def test_the_energys_own_complaint_comes_first() -> None:
    energy, _ = energy_and_start("2 inputs")
    with pytest.raises(UserError, match="PointEnergy: y must be"):
        Langevin(0.1).sample(CompiledEnergy(energy, "aot_eager"), torch.ones(3, 5, dtype=torch.float64), 2)


class Column(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return y.sum(1, keepdim=True)


def test_one_energy_per_item() -> None:
    with pytest.raises(UserError, match="one number per item"):
        Langevin(0.1).sample(CompiledEnergy(Column(), "aot_eager"), torch.ones(3, 2), 2)
