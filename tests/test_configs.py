"""Every config that is shipped is one that the command takes as it stands."""

from pathlib import Path

import pytest

from ssl_ebm.evaluation.runs import Run
from ssl_ebm.tasks import FramePrediction

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def test_there_are_configs() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_builds(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed and built, not only parsed: a constructor may refuse what its types allow."""
    monkeypatch.chdir(tmp_path)
    run = Run("fit", ["--config", str(path), "--trainer.accelerator", "cpu", "--wandb", "off"])
    assert run.model.hparams
    assert run.run_dir == Path("runs") / path.stem or run.setting("run_dir")


def test_the_default_task_is_frame_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.yaml").write_text(
        "model: {width: 16}\ndata: {class_path: ssl_ebm.data.MovingDigits}\n"
    )
    run = Run("fit", ["--config", "short.yaml"])
    assert isinstance(run.model, FramePrediction)
    assert run.model.hparams["width"] == 16
