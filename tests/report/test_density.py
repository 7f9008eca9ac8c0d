"""The report of a density estimation: what `fit` and `test` write, and what the page says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_configs import IMAGE_ENERGY

from ssl_ebm.cli import main
from ssl_ebm.evaluation.densities import DensityEvaluation
from ssl_ebm.evaluation.statistics import Interval
from ssl_ebm.report.density import headline

CONFIG = (
    IMAGE_ENERGY
    + """\
    sample_steps: 16
data:
  class_path: ssl_ebm.data.FontDigits
  init_args: {size: 12, train_images: 60, val_images: 20, test_images: 40, batch_size: 10}
trainer:
  max_steps: 6
  limit_val_batches: 0
  callbacks:
    - class_path: ssl_ebm.report.DensityReport
      init_args:
        items: 30
        samples: 20
        against:
          upside <down>:
            class_path: ssl_ebm.data.FontDigits
            init_args: {size: 12, seed: 3, test_images: 40}
"""
)


def test_fit_and_test_write_a_page_and_its_numbers(tmp_path: Path) -> None:
    config, run = tmp_path / "digits.yaml", tmp_path / "run"
    config.write_text(CONFIG)
    assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 0
    results = json.loads((run / "results.json").read_text())
    sets = {"train", "uniform", "gaussian", "shuffled", "samples", "upside <down>"}
    assert set(results["auroc"]) == sets
    assert results["items"] == {"test": 30, **dict.fromkeys(sets, 30), "samples": 20}
    assert (results["split"], results["steps"], results["seed"]) == ("test", 6, 0)
    assert results["data"]["name"] == "FontDigits"
    page = (run / "report.html").read_text()
    for name, (value, low, high) in results["auroc"].items():
        assert low <= value <= high
        assert name.replace("<", "&lt;").replace(">", "&gt;") in page
        assert f"{value:.2f}" in page
    assert "upside <down>" not in page
    assert "0.1 of the noise that their step size calls for" in page
    assert page.count("<picture>") == 4  # data and samples, neighbours, the way there, energies
    assert not re.search(r'(src|href)="http', page)

    (run / "report.html").unlink()
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    again = tmp_path / "again"
    assert main(["test", "--config", str(config), "--ckpt_path", checkpoint, "--run_dir", str(again)]) == 0
    tested = json.loads((again / "results.json").read_text())
    assert tested["auroc"] == results["auroc"]
    assert tested["steps"] == 6


def test_other_sets_are_looked_at_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = tmp_path / "digits.yaml", tmp_path / "run"
    config.write_text(CONFIG.replace("{size: 12, seed: 3", "{size: 14, seed: 3"))
    assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 2
    assert "(1, 14, 14) and FontDigits (1, 12, 12): give sets of one shape" in capsys.readouterr().err
    assert not (run / "checkpoints").exists()


def evaluation(**auroc: float) -> DensityEvaluation:
    intervals = {name: Interval(value, value - 0.02, value + 0.02) for name, value in auroc.items()}
    return DensityEvaluation({}, intervals, torch.zeros(1, 2), None, None, {}, None, None)


@pytest.mark.parametrize(
    ("auroc", "words"),
    [
        (
            {"train": 0.1, "uniform": 0.99, "digits": 0.3},
            "takes digits for more likely than data: AUROC 0.30",
        ),
        ({"uniform": 0.99, "digits": 0.49}, "does not tell data from digits: AUROC 0.49. It .* from 1 of 2"),
        ({"samples": 0.1, "uniform": 0.99, "digits": 0.8}, r"AUROC 0.80 \(digits\) to 0.99, over 2 kinds"),
    ],
)
def test_the_headline_names_the_worst(auroc: dict[str, Any], words: str) -> None:
    assert re.search(words, headline(evaluation(**auroc)))
