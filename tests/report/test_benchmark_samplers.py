"""The suite "samplers": ours and every peer do the same work, and a peer has a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_ebm.energy import CompiledEnergy
from ssl_ebm.networks import ImageEnergy, PointEnergy
from ssl_ebm.report.benchmarks import samplers
from ssl_ebm.report.benchmarks.neighbour import Neighbour, in_processes
from ssl_ebm.report.benchmarks.samplers import (
    BARE,
    HMC,
    LANGEVIN,
    NOT_COMPILED,
    PEER,
    Chain,
    Target,
    sampler_rows,
)
from ssl_ebm.report.benchmarks.timing import Effort, Work

CPU = torch.device("cpu")
ONCE = Effort(repeats=1, seconds=0, device=CPU)
POINTS = Target("points", partial(PointEnergy, 2, 8, 1), (6, 2))
IMAGES = Target("images", partial(ImageEnergy, (8, 8), 1, 4, 2), (3, 1, 8, 8))


def ours(target: Target, chain: Chain, steps: int) -> Tensor:
    energy, start = target.energy(CPU), target.start(CPU)
    torch.manual_seed(1)
    return chain.ours().sample(energy, start, steps).state


@pytest.mark.parametrize("target", [POINTS, IMAGES])
@pytest.mark.parametrize("chain", [LANGEVIN, HMC])
def test_the_bare_loop_takes_the_same_steps(target: Target, chain: Chain) -> None:
    energy, start = target.energy(CPU), target.start(CPU)
    torch.manual_seed(1)
    bare = samplers.bare_loop(chain)(energy, start, 7)
    assert not torch.equal(bare, start)
    torch.testing.assert_close(ours(target, chain, 7), bare)


@pytest.mark.parametrize("target", [POINTS, IMAGES])
@pytest.mark.parametrize("chain", [LANGEVIN, HMC])
def test_torchebm_takes_the_same_steps(target: Target, chain: Chain) -> None:
    pytest.importorskip(PEER, reason="torchebm is not installed")
    energy, start = target.energy(CPU), target.start(CPU)
    peer = samplers.peer_sampler(energy, target.shape, chain, CPU)
    torch.manual_seed(1)
    theirs = peer.sample(x=start.flatten(1), n_steps=7).reshape(target.shape)
    torch.testing.assert_close(ours(target, chain, 7), theirs)


@pytest.mark.parametrize(("chain", "name"), [(LANGEVIN, "LangevinDynamics"), (HMC, "HamiltonianMonteCarlo")])
def test_another_process_gets_the_same_sampler(chain: Chain, name: str) -> None:
    pytest.importorskip(PEER, reason="torchebm is not installed")
    sent: Chain = pickle.loads(pickle.dumps(chain))
    assert type(sent.ours()) is type(chain.ours())
    peer = samplers.peer_sampler(POINTS.energy(CPU), POINTS.shape, sent, CPU)
    assert type(peer).__name__ == name


def test_rows_stand_beside_every_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "CompiledEnergy", partial(CompiledEnergy, backend="eager"))
    rows = list(sampler_rows(ONCE, POINTS, LANGEVIN))
    peers = [row.peer_name for row in rows]
    assert {BARE, NOT_COMPILED} < set(peers)
    assert all(row.unit == "chain-steps/s" and row.ratio is not None for row in rows)
    assert all(row.ceiling_share is not None and 0 < row.ceiling_share < 1 for row in rows)
    lines = samplers.summary(rows)
    if samplers.find_spec(PEER):
        assert sum(name is not None and name.startswith(PEER) for name in peers) == 5
        assert sum("at least 1.5" in line for line in lines) == 5
    else:
        assert "ssl_ebm[bench]" in lines[-1]


@pytest.mark.parametrize(("backend", "compiles"), [("eager", True), ("no such backend", False)])
def test_whether_anything_can_be_compiled_is_tried(
    monkeypatch: pytest.MonkeyPatch, backend: str, compiles: bool
) -> None:
    monkeypatch.setattr(samplers, "CompiledEnergy", partial(CompiledEnergy, backend=backend))
    assert samplers._compiles(POINTS.energy(CPU), POINTS.start(CPU)) == compiles


@pytest.mark.parametrize("target", [POINTS, IMAGES])
def test_a_compiled_energy_takes_the_same_steps(target: Target) -> None:
    energy, start = target.energy(CPU), target.start(CPU)
    torch.manual_seed(1)
    compiled = LANGEVIN.ours().sample(CompiledEnergy(energy, "aot_eager"), start, 7).state
    torch.testing.assert_close(ours(target, LANGEVIN, 7), compiled)


@pytest.mark.parametrize("target", [POINTS, IMAGES])
def test_the_peers_network_is_the_same_in_torchs_layers(target: Target) -> None:
    energy, start = target.energy(CPU), target.start(CPU)
    plain = samplers.in_torchs_layers(energy)
    assert {type(m).__module__.split(".")[0] for m in plain.modules() if not list(m.children())} == {"torch"}
    torch.testing.assert_close(plain(start), energy(start))


def test_the_arithmetic_is_that_of_forward_and_backward_products() -> None:
    target = Target("points", partial(PointEnergy, 2, 8, 2), (40_000, 2))  # by oneDNN where it is there
    forward = 2 * 40_000 * (2 * 8 + 8 * 8 + 8 * 1)
    assert samplers.flops_of_gradient(target.energy(CPU), target.start(CPU)) == 2 * forward


def write_process(folder: Path) -> Work:
    return Work(lambda units: (folder / str(units)).write_text(str(os.getpid())))


def fail() -> Work:
    raise ValueError("no such work")


def test_a_neighbour_has_a_process_for_each_block(tmp_path: Path) -> None:
    work = Neighbour(partial(write_process, tmp_path)).work
    for block in (3, 5):
        assert ONCE.rate(work, block) > 0  # one unit before, untimed
    first, second = ((tmp_path / name).read_text() for name in ("3", "5"))
    assert len({first, second, (tmp_path / "1").read_text(), str(os.getpid())}) == 3
    assert not multiprocessing.active_children()


def test_a_neighbour_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="ValueError: no such work"):
        ONCE.rate(Neighbour(fail).work, 1)
    assert not multiprocessing.active_children()


def who_and_threads() -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def test_each_measurement_has_a_process_and_our_number_of_threads() -> None:
    ours = torch.get_num_threads()
    torch.set_num_threads(3)  # what a process would not have of itself
    try:
        found = list(in_processes(who_and_threads, 2))
    finally:
        torch.set_num_threads(ours)
    assert len({os.getpid(), *(pid for pid, _ in found)}) == 3
    assert {threads for _, threads in found} == {3}
    assert not multiprocessing.active_children()


def test_a_measurement_that_fails_elsewhere_is_raised_here() -> None:
    with pytest.raises(ValueError, match="no such work"):
        list(in_processes(fail, 1))
