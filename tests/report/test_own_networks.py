"""A network of the user's own: from training to what is done with its checkpoint."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_ebm.cli import commands, main
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import Inpainting
from ssl_ebm.tasks.naming import FLAG

MINE = """
from torch import nn
from ssl_ebm.networks.completion import Completion, split_occluded

class Layers(nn.Module):
    channels, parts, features = 3, 0, 3

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        visible, mask = split_occluded(x)
        mean = self.second(self.first(x).relu())
        parts = mean.new_zeros(len(mean), 0, *mean.shape[1:])
        return Completion(mean, parts, mean.mean((2, 3)), mask, visible)

    def representation_layers(self):
        return [[self.first], [self.second]]

class Bare(nn.Module):
    channels = 3

class Plain(Layers):
    def forward(self, x):
        return super().forward(x).mean
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The checkpoint of such a network, trained on class folders in CLASSES."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_network.py").write_text(MINE)
    noise = np.random.default_rng(0)
    for number in range(60):
        folder = Path("CLASSES") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    hole = np.zeros((16, 16), np.uint8)
    hole[4:8, 4:8] = 255
    Image.fromarray(hole).save("mask.png")
    described = "{class_path: own_network.Layers}"
    given = ["--model", "ssl_ebm.tasks.Inpainting", "--model.objective", "least_squares"]
    given += ["--model.network", described, "--data", "ssl_ebm.data.ImageFolder"]
    given += ["--data.folder", "CLASSES", "--data.size", "16", "--data.batch_size", "8"]
    assert main(["fit", *given, "--run_dir", "run", "--trainer.max_steps", "2", "--wandb", "off"]) == 0
    del sys.modules["own_network"]  # as in another process
    yield "run/checkpoints/last.ckpt"
    sys.modules.pop("own_network", None)


def test_every_command_takes_its_checkpoint_when_told_to(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.TRUST == FLAG
    data = ["--data", "ssl_ebm.data.ImageFolder", "--data.folder", "CLASSES"]
    picture = "CLASSES/class0/0.png"
    for words in (
        ["inpaint", "--ckpt", run, "--input", picture, "--mask", "mask.png", "--out", "o.png"],
        ["export", "--ckpt", run, "--format", "safetensors", "--out", "o.safetensors"],
        ["probe", "--ckpt", run, *data, "--kind", "knn", "--no_baselines", "--out", "probed"],
        ["finetune", "--ckpt", run, *data, "--steps", "1", "--out", "tuned", "--data.val_fraction", "0.2"],
    ):
        sys.modules.pop("own_network", None)
        assert main(words) == 2, words
        assert "own_network.Layers" in (said := capsys.readouterr().err.splitlines()[-1])
        assert f"add {FLAG}, or in Python import own_network before" in said
        assert "own_network" not in sys.modules
        assert main([*words, FLAG]) == 0, words
    assert Path("o.png").exists()
    assert Path("o.safetensors").exists()
    assert Path("probed/probe.json").exists()
    assert Path("tuned/finetuning.json").exists()


def test_what_a_network_lacks_is_said(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    import own_network  # type: ignore[import-not-found]

    with pytest.raises(UserError, match=r"Bare has no parts, features: .*CompletionNetwork"):
        Inpainting(objective="least_squares", network={"class_path": "own_network.Bare"})
    assert own_network.Bare
    given = ["--model", "ssl_ebm.tasks.Inpainting", "--model.objective", "least_squares"]
    given += ["--model.network", "{class_path: own_network.Plain}", "--data", "ssl_ebm.data.ImageFolder"]
    given += ["--data.folder", "CLASSES", "--data.size", "16", "--run_dir", "plain", "--wandb", "off"]
    assert main(["fit", *given, "--trainer.max_steps", "1"]) == 2
    assert "Plain returns Tensor: it must return" in capsys.readouterr().err
