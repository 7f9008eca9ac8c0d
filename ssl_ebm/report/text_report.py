"""The report of masked text: a page beside its numbers, written at the end of `fit` and of `test`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from ssl_ebm.evaluation.text_quality import TextQuality
from ssl_ebm.files import write_whole
from ssl_ebm.report.provenance import describe_device, steps_behind
from ssl_ebm.report.text_page import render
from ssl_ebm.running.provenance import versions
from ssl_ebm.tasks.secret_settings import shown_description, without_secrets


class TextReport(TextQuality):
    """Measures as `TextQuality` does, and writes ``report.html`` beside its JSON.

    At the end of a training the page is of validation text, at the end of a test of test text; it says which.
    """

    @rank_zero_only
    def measure(self, trainer: Trainer, pl_module: LightningModule, split: str) -> dict[str, Any] | None:
        found = super().measure(trainer, pl_module, split)
        if found is None:
            return None
        about = {
            "steps": steps_behind(trainer),
            "parameters": sum(one.numel() for one in pl_module.parameters()),
            "device": describe_device(pl_module.device),
            "versions": versions(),
            "task": without_secrets(dict(pl_module.hparams)).settings,
            "data": shown_description(trainer.datamodule),  # type: ignore[attr-defined]
        }
        page = Path(trainer.default_root_dir) / "report.html"
        write_whole(page, render(found, about))
        rank_zero_info(f"report: {page}")
        return found
