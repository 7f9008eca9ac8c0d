"""Settings of a run reach what they are for."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ssl_ebm.networks.transformer import Block
from ssl_ebm.running.runs import Run

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
        compiled[name] = [block._compiled_call_impl is not None for block in blocks]
    assert found["plain"] == BLOCKS * STEPS
    assert found["again"] == 2 * BLOCKS * STEPS
    assert compiled == {name: [name == "compiled"] * BLOCKS for name in found}
    expected = losses(tmp_path / "plain")
    assert len(expected) == STEPS
    assert losses(tmp_path / "again") == expected
    assert losses(tmp_path / "compiled") == pytest.approx(expected, rel=1e-5)
