"""Secrets that data tell of themselves: in nothing that a command writes."""

from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_backbones import make, saved
from small_configs import IMAGE_ENERGY, MASKED_LETTERS

from ssl_ebm.cli import main
from ssl_ebm.data import FontDigits, Text
from ssl_ebm.report.density import _setup

SECRET = "s3cr3t-0123"
DENSITY = (
    IMAGE_ENERGY
    + """\
    sample_steps: 2
data: &data
  class_path: ssl_ebm.data.FontDigits
  init_args: {size: 12, train_images: 60, val_images: 20, test_images: 40, batch_size: 10}
trainer:
  max_steps: 2
  limit_val_batches: 0
  callbacks:
    - {class_path: ssl_ebm.report.DensityReport, init_args: {items: 30, samples: 2}}
    - {class_path: ssl_ebm.evaluation.KNNProbe, init_args: {data: *data}}
"""
)
TEXT = (
    MASKED_LETTERS
    + """\
data:
  class_path: ssl_ebm.data.Text
  init_args: {path: a.txt, unit: line, vocabulary: 45, length: 32, cache: cache}
trainer:
  max_steps: 2
  accelerator: cpu
  callbacks:
    - {class_path: ssl_ebm.report.TextReport, init_args: {sequences: 20, windows: 10}}
"""
)
DIGITS = [
    *("--data", "ssl_ebm.data.FontDigits", "--data.size", "16", "--data.batch_size", "16"),
    *("--data.train_images", "60", "--data.val_images", "20", "--data.test_images", "40"),
]


def probe() -> list[str]:
    return ["probe", "--ckpt", "patches.ckpt", *DIGITS, "--kind", "knn", "--no_baselines", "--out", "out"]


def finetune() -> list[str]:
    short = ["--steps", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    return ["finetune", "--ckpt", "patches.ckpt", *DIGITS, *short, "--out", "out"]


def fit_density() -> list[str]:
    Path("density.yaml").write_text(DENSITY)
    return ["fit", "--config", "density.yaml", "--run_dir", "out"]


def fit_text() -> list[str]:
    letters = np.random.default_rng(0).choice(list("abcdefgh     "), (400, 60))
    Path("a.txt").write_text("\n".join("".join(line) for line in letters))
    Path("text.yaml").write_text(TEXT)
    return ["fit", "--config", "text.yaml", "--run_dir", "out"]


@pytest.mark.parametrize(
    ("command", "written"),
    [
        (probe, {"probe.json"}),
        (finetune, {"finetuning.json", "run.json"}),
        (fit_density, {"results.json", "probe_knn.json", "run.json"}),
        (fit_text, {"report.html", "run.json"}),
    ],
)
def test_what_a_command_writes_hides_them(
    command: Callable[[], list[str]], written: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in (FontDigits, Text):

        def settings(data: Any, told: Callable[[Any], dict[str, Any]] = kind.settings) -> dict[str, Any]:
            server = {"name": "somewhere", "password": SECRET}
            return {**told(data), "server": server, "address": f"https://a.org/b?token={SECRET}&c=d"}

        monkeypatch.setattr(kind, "settings", settings)
    saved(make("patches"), Path("patches.ckpt"))
    assert main(command()) == 0
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert written <= {path.name for path in files}
    for path in files:
        if path.name in written:
            assert "https://a.org/b?token=HIDDEN&c=d" in unescape(path.read_text())


def test_the_page_of_an_energy_hides_those_of_its_settings() -> None:
    """Of a network of the user's own."""
    energy = {"class_path": "own.Energy", "init_args": {"hub_token": SECRET, "width": 3}}
    results = {"parameters": 1, "device": "cpu", "versions": {}, "data": {}}
    task: Any = SimpleNamespace(hparams={"energy": energy})
    page = _setup(task, results)
    assert "width: 3" in page
    assert "hub_token: HIDDEN" in page
    assert SECRET not in page
