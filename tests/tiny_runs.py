"""Runs of every task that take a second: folders as ``ssl-ebm fit`` leaves them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.cli import main

FAST = [
    "--trainer.max_steps", "3", "--trainer.val_check_interval", "1", "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
]  # fmt: skip
WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]


def described(path: str, **arguments: Any) -> str:
    return json.dumps({"class_path": path, "init_args": arguments})


def _frames(folder: Path, detail: int = 0) -> list[str]:
    data = ["--data", "ssl_ebm.data.MovingDigits", "--data.batch_size", "4"]
    data += ["--data.train_clips", "16", "--data.val_clips", "8"]
    return [*data, "--model.width", "8", "--model.codes", "6", "--model.detail", str(detail)]


def _pictures(folder: Path, objective: str, network: str) -> list[str]:
    data = ["--data", "ssl_ebm.data.FontDigits", "--data.size", "16", "--data.batch_size", "8"]
    data += ["--data.train_images", "40", "--data.val_images", "20"]
    model = ["--model", "ssl_ebm.tasks.Inpainting", "--model.objective", objective]
    return [*data, *model, "--model.network", network]


def _text(folder: Path, **network: str) -> list[str]:
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, 8)) + f" {i}" for i in range(200)]
    (folder / "corpus.txt").write_text("\n".join(lines))
    data = ["--data", "ssl_ebm.data.Text", "--data.path", str(folder / "corpus.txt"), "--data.unit", "line"]
    data += ["--data.vocabulary", "120", "--data.length", "16", "--data.cache", str(folder / "cache")]
    sizes: dict[str, Any] = {"vocabulary": 120, "width": 16, "depth": 2, "heads": 2, "length": 24}
    encoder = described("ssl_ebm.networks.text.TextEncoder", **sizes, **network)
    return [*data, "--model", "ssl_ebm.tasks.MaskedText", "--model.network", encoder]


def _energy(folder: Path) -> list[str]:
    energy = described("ssl_ebm.networks.ImageEnergy", size=[16, 16], width=8)
    objective = described("ssl_ebm.energy.objectives.DenoisingScoreMatching", noise=0.3)
    data = ["--data", "ssl_ebm.data.FontDigits", "--data.size", "16", "--data.train_images", "40"]
    data += ["--data.val_images", "20", "--data.batch_size", "8"]
    model = ["--model", "ssl_ebm.tasks.DensityEstimation", "--model.input", "image", "--model.energy", energy]
    return [*data, *model, "--model.objective", objective]


RUNS = {
    "frames": _frames,
    "frames_in_detail": lambda folder: _frames(folder, detail=8),
    "patches": lambda folder: _pictures(
        folder,
        "least_squares",
        described(
            "ssl_ebm.networks.patch_completion.PatchCompletion", size=16, patch=4, channels=1, width=24,
            depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2,
        ),
    ),
    "pictures": lambda folder: _pictures(
        folder,
        "latent_ebm",
        described(
            "ssl_ebm.networks.completion.ConvolutionalCompletion", channels=1, parts=4, width=8, levels=1,
            features=16,
        ),
    ),
    "text": _text,
    "bert": lambda folder: _text(folder, positions="learnt", norm="post"),
    "energy": _energy,
}  # fmt: skip


def tiny_run(name: str, folder: Path) -> Path:
    """Trains one of `RUNS` below the folder; returns its checkpoint."""
    run = folder / name
    assert main(["fit", *RUNS[name](folder), *FAST, "--run_dir", str(run)]) == 0
    return run / "checkpoints" / "last.ckpt"
