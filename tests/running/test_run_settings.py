"""Settings of a run reach what they are for."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import FAST, RUNS

from ssl_ebm.cli import main
from ssl_ebm.networks.transformer import Block
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks import FramePrediction, Inpainting, load_task

pytestmark = pytest.mark.usefixtures("fresh_compiler")

STEPS = 3
NETWORK = {
    "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
    "init_args": {"size": 16, "patch": 4, "channels": 1, "width": 16, "depth": 2, "heads": 2}
    | {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
}
BLOCKS = 3  # of the encoder and the decoder
SETTINGS = [
    *("--model", "ssl_ebm.tasks.Inpainting", "--model.objective", "least_squares"),
    *("--model.network", json.dumps(NETWORK), "--data", "ssl_ebm.data.FontDigits", "--data.size", "16"),
    *("--data.train_images", "24", "--data.val_images", "8", "--data.batch_size", "8"),
    *("--trainer.accelerator", "cpu", "--trainer.max_steps", str(STEPS), "--trainer.log_every_n_steps", "1"),
    *("--trainer.limit_val_batches", "0", "--trainer.enable_model_summary", "false"),
]


def losses(run_dir: Path) -> list[float]:
    with (run_dir / "metrics" / "version_0" / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_blocks_compute_activations_again_or_are_compiled_where_a_setting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learnt stays the same. (A backend of torch.compile sees the graph of a block.)"""
    forward, calls = Block.forward, []

    def counted(block: Block, *arguments: Any, **more: Any) -> Any:
        calls.append(block)
        return forward(block, *arguments, **more)

    monkeypatch.setattr(Block, "forward", counted)
    found, compiled = {}, {}
    for name, more in {
        "plain": [],
        "again": ["--activation_checkpointing", "true"],
        "compiled": ["--compile", "eager"],
    }.items():
        calls.clear()
        run = Run("fit", [*SETTINGS, *more, "--run_dir", str(tmp_path / name)])
        run.execute()
        found[name] = len(calls)
        blocks = [module for module in run.model.modules() if isinstance(module, Block)]
        assert len(blocks) == BLOCKS
        changed = [getattr(vars(block).get("forward"), "func", None) for block in blocks]
        compiled[name] = [hasattr(one, "_torchdynamo_orig_callable") for one in changed]
    assert found["plain"] == BLOCKS * STEPS
    assert found["again"] == 2 * BLOCKS * STEPS
    assert compiled == {name: [name == "compiled"] * BLOCKS for name in found}
    expected = losses(tmp_path / "plain")
    assert len(expected) == STEPS
    assert losses(tmp_path / "again") == expected
    assert losses(tmp_path / "compiled") == pytest.approx(expected, rel=1e-5)


BOTH = ["--activation_checkpointing", "true", "--compile", "eager"]


@pytest.mark.parametrize(("name", "task"), [("frames_in_detail", FramePrediction), ("pictures", Inpainting)])
def test_convolutional_networks_train_alike_by_both_settings(name: str, task: type, tmp_path: Path) -> None:
    """Weights are the same to the bit under the same names, and load where neither setting is."""
    weights = {}
    graphs = torch._dynamo.utils.counters["stats"]
    for folder, more in {"plain": [], "both": BOTH}.items():
        run = tmp_path / folder
        assert main(["fit", *RUNS[name](tmp_path), *FAST, *more, "--run_dir", str(run)]) == 0
        assert (graphs["unique_graphs"] > 0) == bool(more)
        weights[folder] = load_task(run / "checkpoints" / "last.ckpt", task).state_dict()
    assert list(weights["both"]) == list(weights["plain"])
    torch.testing.assert_close(weights["both"], weights["plain"], rtol=0, atol=0)


def test_second_derivatives_of_what_is_to_be_compiled_are_refused_before_anything_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert (
        main(["fit", *RUNS["energy"](tmp_path), *FAST, "--compile", "inductor", "--run_dir", str(run)]) == 2
    )
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "DenoisingScoreMatching needs second derivatives" in said
    assert not run.exists()


@pytest.mark.parametrize("more", [["--activation_checkpointing", "true"], ["--compile", "inductor"]])
def test_a_task_without_stages_is_refused(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = ["--model", "toy_task.ToyTask", "--data", "toy_task.ToyData"]
    assert main(["fit", *toy, *FAST, *more, "--run_dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{more[0][2:]} is for stages of networks" in said
    assert "ToyTask has none: leave it out" in said


@pytest.mark.parametrize(
    "more",
    [["--max_loss", "5"], ["--skip_steps", "1"], ["--lr_reference_batch", "256"]],
    ids=lambda one: one[0],
)
def test_what_watches_a_training_is_refused_for_a_task_that_is_not_watched(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = ["--model", "toy_task.ToyTask", "--data", "toy_task.ToyData"]
    assert main(["fit", *toy, *FAST, *more, "--run_dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{more[0][2:]} is for tasks that are a ssl_ebm.tasks.divergence.WatchedTask" in said
    assert "ToyTask is none: leave it out" in said
