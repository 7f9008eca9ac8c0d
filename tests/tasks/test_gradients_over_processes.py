"""Several processes train as one with the whole batch does, and stop as one."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from several_processes import (
    BAD_RANK,
    BAD_STEP,
    BATCH,
    MODELS,
    STEPS,
    assert_same,
    features,
    fine_tuned,
    one_process,
    take_steps,
    token_features,
    watched,
)

from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import last_checkpoint


@dataclass
class Launched:
    """What each process of each launch saw."""

    folder: Path
    seen: dict[int, list[dict[str, Any]]]

    @property
    def several(self) -> list[dict[str, Any]]:
        """What each process of two and of four saw."""
        return [*self.seen[2], *self.seen[4]]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("processes")
    seen: dict[int, list[dict[str, Any]]] = {1: [{"steps": take_steps(1)}]}
    for processes in (2, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torch.multiprocessing.spawn(one_process, (port, processes, folder), nprocs=processes)
        seen[processes] = [torch.load(folder / f"{processes}-{rank}.pt") for rank in range(processes)]
    return Launched(folder, seen)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("model", MODELS)
def test_training_is_that_of_one_process(launched: Launched, model: str, processes: int) -> None:
    """Gradients, losses, validation, weights, and what a prior remembers: in float64, to 1e-6."""
    whole = launched.seen[1][0]["steps"][model]
    assert len(whole["gradients"]) == STEPS
    assert any("train/loss" in figures for figures in whole["figures"])
    assert any("val/loss" in figures for figures in whole["figures"])
    for process in (one["steps"][model] for one in launched.seen[processes]):
        for kind in ("gradients", "figures"):
            for found, expected in zip(process[kind], whole[kind], strict=True):
                assert_same(found, expected)
        assert_same(process["weights"], whole["weights"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("model", MODELS)
def test_processes_share_the_items_of_one(launched: Launched, model: str, processes: int) -> None:
    whole = launched.seen[1][0]["steps"][model]["clips"]
    shares = [process["steps"][model]["clips"] for process in launched.seen[processes]]
    for step, batch in enumerate(whole):
        assert sorted(item for share in shares for item in share[step]) == sorted(batch)
    items = [item for batch in whole for item in batch]
    assert sorted(items)[:20] == list(range(20))  # an epoch: each of its 20 items once
    assert len(set(items)) == len(items) == STEPS * BATCH


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_is_not_saved_by_the_other(launched: Launched) -> None:
    """Its gradient reaches the weights of all processes; the first one writes the checkpoint."""
    assert ["not finite" in process["diverged"]["error"] for process in launched.seen[2]] == [True, True]
    assert not last_checkpoint(launched.folder / "diverged").exists()


@pytest.mark.slow
def test_the_process_whose_loss_is_not_finite_names_its_batch_and_items(launched: Launched) -> None:
    """The steps after it change nothing of that: buffers are made those of the first process in each, and
    weights that are not finite make the losses of all processes so."""
    other, bad = (process["diverged"] for process in launched.seen[2])
    assert f"not finite (nan) at or shortly before optimizer step {STEPS} (batch {BAD_STEP};" in bad["error"]
    assert "batch" not in other["error"]
    reports = list((launched.folder / "diverged").glob("diverged*.json"))
    assert [path.name for path in reports] == [f"diverged.{BAD_RANK}.json"]
    report = json.loads(reports[0].read_text())
    assert (report["loss"], report["batch"], report["items"]) == ("nan", BAD_STEP, bad["clips"][BAD_STEP])


@pytest.mark.slow
def test_processes_count_the_steps_that_are_left_out_as_one(launched: Launched) -> None:
    for process in (each["left out"] for each in launched.seen[2]):
        assert (process["error"], process["skipped"], process["told"]) == ("nothing", 1, 1)
    saved = read_checkpoint(last_checkpoint(launched.folder / "left out"))["state_dict"]
    assert all(bool(values.isfinite().all()) for values in saved.values())


@pytest.mark.slow
def test_a_loss_that_explodes_in_one_process_leaves_the_step_out_in_both(launched: Launched) -> None:
    """Its gradient is finite in both: the other process learns of the loss alone."""
    first, second = (process["exploded"] for process in launched.seen[2])
    assert [(one["error"], one["skipped"]) for one in (first, second)] == [("nothing", 1)] * 2
    assert torch.equal(first["weights"], second["weights"])


@pytest.mark.slow
def test_chains_live_on_in_each_process_and_the_weights_are_the_same(launched: Launched) -> None:
    """Every process moves chains of its own with noise of its own; the first one's are in the checkpoint."""
    first, second = (process["chains"] for process in launched.seen[2])
    torch.testing.assert_close(first["weights"], second["weights"])
    for process in (first, second):
        moved = (process["began"] != process["ended"]).any(1)
        assert BATCH // 2 <= int(moved.sum()) <= STEPS * BATCH // 2
    assert not torch.equal(first["ended"], second["ended"])
    saved = read_checkpoint(last_checkpoint(launched.folder / "chains"))["state_dict"]
    assert torch.equal(saved["objective.buffer._extra_state"], first["ended"])


@pytest.mark.slow
def test_processes_fine_tune_and_count_as_one(launched: Launched) -> None:
    """21 items are 11 for each of two processes, 6 for each of four: those that two have count once."""
    one = fine_tuned(1)
    assert len(one["votes"][0]) == 21
    for process in (each["fine_tuned"] for each in launched.several):
        for name, weights in one["weights"].items():
            torch.testing.assert_close(process["weights"][name], weights, rtol=1e-5, atol=1e-7)
        assert all(torch.equal(a, b) for a, b in zip(process["votes"], one["votes"], strict=True))


@pytest.mark.slow
def test_probes_and_collapse_are_those_of_one_process(launched: Launched, tmp_path: Path) -> None:
    """18 of 20 validation items are looked at, which four processes do not share evenly."""
    whole = watched(1, tmp_path)
    names = {name for _, name, _ in whole}
    assert {
        "online_probe/accuracy",
        "probe/linear/accuracy",
        "collapse/lidar",
        "collapse/dead_share",
    } <= names
    assert len({value for _, _, value in whole}) > 12  # they are no constants
    for processes in (2, 4):
        found = launched.seen[processes][0]["watched"]
        assert [one[:2] for one in found] == [one[:2] for one in whole]
        for (step, name, value), (_, _, expected) in zip(found, whole, strict=True):
            assert value == pytest.approx(expected, rel=1e-5), (processes, step, name)


@pytest.mark.slow
def test_processes_probe_as_one(launched: Launched) -> None:
    whole = features()
    for process in (each["features"] for each in launched.several):
        torch.testing.assert_close(process[0], whole[0])
        assert torch.equal(process[1], whole[1])
    whole = token_features()
    assert whole[2].sum(1).argmax() == 4
    for process in (each["token features"] for each in launched.several):
        torch.testing.assert_close(process[0], whole[0])
        assert all(torch.equal(a, b) for a, b in zip(process[1:], whole[1:], strict=True))
