"""Two processes train as one with the joint batch does, and stop as one."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from two_processes import (
    BATCH,
    MODELS,
    STEPS,
    fine_tuned,
    one_of_two_diverges,
    one_of_two_fine_tunes,
    one_of_two_keeps_chains,
    one_of_two_steps,
    take_steps,
)

from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import last_checkpoint


def in_two_processes(work: Callable[[int, int, str], None], folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(folder)), nprocs=2)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """What one process saw, and what each of two did."""
    folder = tmp_path_factory.mktemp("steps")
    in_two_processes(one_of_two_steps, folder)
    return take_steps(1), *(torch.load(folder / f"{rank}.pt") for rank in (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_those_of_the_joint_batch(seen: tuple[Any, Any, Any], model: str) -> None:
    one, *two = (process[model] for process in seen)
    assert len(one["gradients"]) == STEPS
    for process in two:
        for expected, found in zip(one["gradients"], process["gradients"], strict=True):
            size = torch.cat([g.flatten() for g in expected.values()]).norm()
            assert size > 0
            assert found.keys() == expected.keys()
            for name, gradient in expected.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9 * float(size))
        for name, weight in one["weights"].items():
            torch.testing.assert_close(process["weights"][name], weight, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_processes_share_the_clips_of_one(seen: tuple[Any, Any, Any], model: str) -> None:
    one, first, second = (process[model]["clips"] for process in seen)
    for whole, *halves in zip(one, first, second, strict=True):
        assert sorted(halves[0] + halves[1]) == sorted(whole)
        assert len(set(whole)) == len(whole)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_is_not_saved_by_the_other(tmp_path: Path) -> None:
    """Its gradient reaches the weights of all processes; the first one writes the checkpoint."""
    with pytest.raises(Exception, match="not finite"):
        in_two_processes(one_of_two_diverges, tmp_path)
    assert not last_checkpoint(tmp_path).exists()


@pytest.mark.slow
def test_chains_live_on_in_each_process_and_the_weights_are_the_same(tmp_path: Path) -> None:
    """Every process moves chains of its own with noise of its own; the first one's are in the checkpoint."""
    in_two_processes(one_of_two_keeps_chains, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first["weights"], second["weights"])
    for process in (first, second):
        moved = (process["began"] != process["ended"]).any(1)
        assert BATCH // 2 <= int(moved.sum()) <= STEPS * BATCH // 2
    assert not torch.equal(first["ended"], second["ended"])
    saved = read_checkpoint(last_checkpoint(tmp_path))["state_dict"]
    assert torch.equal(saved["objective.buffer._extra_state"], first["ended"])


@pytest.mark.slow
def test_two_processes_fine_tune_and_count_as_one(tmp_path: Path) -> None:
    """21 items are 11 for each of two processes: the one that both have counts once."""
    one = fine_tuned(1)
    in_two_processes(one_of_two_fine_tunes, tmp_path)
    votes = one.votes["val"]
    assert len(votes.unit) == 21
    for process in (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)):
        for name, weights in one.state_dict().items():
            torch.testing.assert_close(process["weights"][name], weights, rtol=1e-5, atol=1e-7)
        assert all(torch.equal(a, b) for a, b in zip(process["votes"], votes, strict=True))
