"""Every config that is shipped is one that the command takes as it stands."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from ssl_ebm.running.runs import Run
from ssl_ebm.tasks import FramePrediction

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = sorted((ROOT / "configs" / "strategies").glob("*.yaml"))  # added to another config
CONFIGS = sorted(set((ROOT / "configs").rglob("*.yaml")) - set(STRATEGIES))


def test_there_are_configs() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_builds(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed and built, not only parsed: a constructor may refuse what its types allow."""
    monkeypatch.chdir(tmp_path)
    run = Run("fit", ["--config", str(path), "--trainer.accelerator", "cpu", "--wandb", "off"])
    assert run.model.hparams
    assert run.run_dir == Path("runs") / path.stem or run.setting("run_dir")


def test_all_places_of_a_network_of_text_are_trained() -> None:
    """Learnt positions beyond the longest sequence would stay as they began."""
    networks = {}
    for path in (ROOT / "configs" / "masked_text").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        networks[path.name] = config["model"]["init_args"]["network"]
        assert networks[path.name]["init_args"]["length"] == config["data"]["init_args"]["length"], path
    tuned = yaml.safe_load((ROOT / "configs" / "fine_tuning" / "documents.yaml").read_text())
    assert tuned["model"]["init_args"]["backbone"]["init_args"]["network"] == networks["documents.yaml"]


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.stem)
def test_strategy_is_added_to_a_config(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes what it names, in the config and in what is built, and leaves the rest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    base = str(ROOT / "configs" / "inpainting" / "imagenet_mae_vit_b16.yaml")
    sizes = ["--model.network.depth", "1", "--model.network.decoder_depth", "1"]
    arguments = ["--config", base, *sizes, "--trainer.accelerator", "cpu"]
    alone, both = (Run("fit", [*arguments, *more]) for more in ([], ["--config", str(path)]))
    changes = yaml.safe_load(path.read_text())
    expected = alone.config.fit.clone()
    for name, value in changes.items():
        for key, inner in value.items() if isinstance(value, dict) else [(None, value)]:
            place = name if key is None else f"{name}.{key}"
            found = expected[place] = both.config.fit[place]
            assert (found.as_dict() if isinstance(found, Namespace) else found) == inner
    expected["config"] = both.config.fit["config"]
    assert both.config.fit == expected
    assert both.run_dir == alone.run_dir == Path("runs/imagenet_mae_vit_b16")


def test_the_default_task_is_frame_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.yaml").write_text(
        "model: {width: 16}\ndata: {class_path: ssl_ebm.data.MovingDigits}\n"
    )
    run = Run("fit", ["--config", "short.yaml"])
    assert isinstance(run.model, FramePrediction)
    assert run.model.hparams["width"] == 16
