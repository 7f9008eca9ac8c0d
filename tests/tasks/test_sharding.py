"""Training with sharded weights: the same numbers, checkpoints for one process, and what is refused."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
import yaml
from several_processes import BATCH, MODELS, assert_same, described
from sharded_processes import BROKEN_OFF, COMPILED, STEPS, one_of_two, train, train_all
from toy_task import thread_limit
from two_futures import small

from ssl_ebm.data import Text
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.text_quality import text_quality
from ssl_ebm.tasks import DensityEstimation, Inpainting, MaskedText
from ssl_ebm.tasks.checkpoints import load_task

WORDS = ("cat", "dog", "sees", "hears", "likes", "man")


@dataclass
class Launched:
    one: Path
    two: Path
    seen_by_one: dict[str, dict[str, Any]]
    seen_by_two: list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, two), nprocs=2)
    return Launched(one, two, train_all(one, 1), [torch.load(two / f"{rank}.pt") for rank in range(2)])


def saved(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)
    return content


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_training_is_that_of_one_process(launched: Launched, model: str) -> None:
    """Losses, validation and weights in float64, with clipped gradients and validation after each step; and
    what process 0 computes alone."""
    expected, found = saved(launched.one, model), saved(launched.two, model)
    assert_same(found["state_dict"], expected["state_dict"], rtol=1e-5)
    assert (found["task"], found["global_step"]) == (expected["task"], STEPS)
    whole = launched.seen_by_one[model]
    for process in launched.seen_by_two:
        for figures, others in zip(process[model]["figures"], whole["figures"], strict=True):
            assert_same(figures, others)
    torch.testing.assert_close(launched.seen_by_two[0][model]["alone"], whole["alone"])


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_each_process_has_its_part_of_the_weights(launched: Launched, model: str) -> None:
    parts = [process[model] for process in launched.seen_by_two]
    whole = parts[0]["all"]
    assert launched.seen_by_one[model]["held"] == whole
    assert sum(part["held"] for part in parts) == whole
    assert max(part["held"] for part in parts) < 0.6 * whole


@pytest.mark.slow
@pytest.mark.parametrize("model", COMPILED)
def test_compiled_stages_train_the_same(launched: Launched, model: str) -> None:
    """Two processes with compiled stages that compute activations again, against one as it is."""
    expected, found = saved(launched.one, model), saved(launched.two / "compiled", model)
    assert found["global_step"] == STEPS
    assert_same(found["state_dict"], expected["state_dict"], rtol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_is_an_ordinary_one(launched: Launched) -> None:
    """One process loads it; two go on from it, and one does, to the weights of a training left alone."""
    path = launched.two / BROKEN_OFF / "checkpoints" / "last.ckpt"
    one = load_task(launched.one / BROKEN_OFF / "checkpoints" / "last.ckpt", Inpainting).double()
    two = load_task(path, Inpainting).double()
    images = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(two.representation(images), one.representation(images), rtol=1e-5, atol=1e-8)

    expected = saved(launched.one, BROKEN_OFF)["state_dict"]
    assert saved(launched.two / "broken_off", BROKEN_OFF)["global_step"] == 2
    assert_same(saved(launched.two / "gone_on", BROKEN_OFF)["state_dict"], expected, rtol=1e-5)
    torch.set_default_dtype(torch.float64)
    try:
        path = launched.two / "broken_off" / BROKEN_OFF / "checkpoints" / "last.ckpt"
        train(BROKEN_OFF, launched.one / "taken_up", 1, resume=path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(saved(launched.one / "taken_up", BROKEN_OFF)["state_dict"], expected, rtol=1e-5)


@pytest.mark.slow
def test_the_fragment_by_the_command(tmp_path: Path, repository: Path) -> None:
    """With all that saves memory, pictures that one process draws, and probes."""
    network = described(
        "networks.patch_completion.PatchCompletion", size=16, patch=4, channels=1, width=8, depth=2, heads=2,
        decoder_width=8, decoder_depth=1, decoder_heads=2, normalised=True,
    )  # fmt: skip
    digits = described("data.FontDigits", size=16, train_images=64, val_images=16, batch_size=BATCH)
    config = {
        "model": described("tasks.Inpainting", objective="least_squares", network=network),
        "data": digits,
        "trainer": {
            "max_steps": 4, "accelerator": "cpu", "val_check_interval": 2, "check_val_every_n_epoch": None,
            "gradient_clip_val": 1.0, "callbacks": [
                described("evaluation.CompletionFigures"),
                described("evaluation.OnlineProbe", data=digits, every_n_steps=1, batch_size=8),
                # Of 41 items process 0 has 21, in eleven batches, and process 1 has 20, in ten.
                described(
                    "evaluation.LinearProbe", data=digits, train_items=41, test_items=9, batch_size=2,
                    every_n_steps=2,
                ),
            ],
        },
    }  # fmt: skip
    launch(tmp_path, repository, config, ("fsdp2", "checkpointing", "accumulate", "bf16"))
    assert list((tmp_path / "run" / "figures").glob("*.png"))
    assert load_task(tmp_path / "run" / "checkpoints" / "last.ckpt", Inpainting).hparams["codes"] == 64


@pytest.mark.slow
def test_process_0_alone_reports_on_text_at_the_end(tmp_path: Path, repository: Path) -> None:
    """The last checkpoint is written after it, and has the weights that were measured."""
    lines = [f"the {a} {b} the {c} {i}" for i, (a, b, c) in enumerate(product(WORDS, repeat=3))]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    sizes = {"vocabulary": 60, "width": 16, "depth": 2, "heads": 2, "length": 16}
    settings = {
        "path": str(tmp_path / "a.txt"), "unit": "line", "vocabulary": 60, "length": 16, "val_share": 0.2,
        "cache": str(tmp_path / "cache"), "batch_size": 4,
    }  # fmt: skip
    config = {
        "model": described("tasks.MaskedText", network=described("networks.text.TextEncoder", **sizes)),
        "data": {"class_path": "ssl_ebm.data.Text", "init_args": settings},
        "trainer": {
            "max_steps": 4, "accelerator": "cpu",
            "callbacks": [described("report.TextReport", sequences=20, windows=10)],
        },
    }  # fmt: skip
    launch(tmp_path, repository, config, ("fsdp2",))
    assert (tmp_path / "run" / "report.html").is_file()
    task = load_task(tmp_path / "run" / "checkpoints" / "last.ckpt", MaskedText)
    data = Text(**settings)
    data.setup()
    found = json.loads((tmp_path / "run" / "text_quality_val.json").read_text())
    expected = text_quality(task, data, "val", 20, 10)
    assert found["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-4)


def launch(folder: Path, repository: Path, config: dict[str, Any], fragments: Sequence[str]) -> None:
    """Trains in two processes, by the command, into folder/run."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    script = str(repository / "scripts" / "launch_multi_gpu.sh")
    command = [script, "--processes", "2", "--", "fit", "--config", "config.yaml", "--run_dir", "run"]
    for name in fragments:
        command += ["--config", str(repository / "configs" / "strategies" / f"{name}.yaml")]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, env=thread_limit()
    )
    assert done.returncode == 0, done.stderr


def test_what_does_not_train_so_is_refused() -> None:
    objective = described("energy.objectives.DenoisingScoreMatching", noise=0.1)
    task = DensityEstimation(described("networks.PointEnergy", width=8), objective)
    task._device_mesh = object()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"DensityEstimation .*ddp\.yaml"):
        task.configure_model()
    frames = small()
    frames._device_mesh, frames.skip_steps = object(), 3  # type: ignore[assignment]
    with pytest.raises(UserError, match="skip_steps"):
        frames.configure_model()


def test_weights_of_before_the_change_load() -> None:
    """flow_inertia had no dimension."""
    task = small()
    content = {name: one.clone() for name, one in task.state_dict().items()}
    [name] = [one for one in content if one.endswith("flow_inertia")]
    content[name] = torch.tensor(0.25)
    task.load_state_dict(content)
    assert task.state_dict()[name].tolist() == [0.25]
