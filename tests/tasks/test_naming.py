"""What files may name: by a list of names on either side of the line, and by what the parser then imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jsonargparse
import pytest
from lightning.pytorch import Callback
from torch import nn

from ssl_ebm.tasks.naming import (
    ForeignNameError,
    importing,
    is_address,
    of_a_checkpoint,
    of_a_stranger,
    of_the_user,
)

CLASSES = [
    *("ssl_ebm.tasks.MaskedText", "ssl_ebm.tasks.sharding.ShardedWeights", "ssl_ebm.data.MovingDigits"),
    *("ssl_ebm.energy.sampling.Langevin", "ssl_ebm.evaluation.LinearProbe", "ssl_ebm.report.TextReport"),
    *("torch.nn.SiLU", "torch.optim.AdamW", "torch.optim.lr_scheduler.LinearLR"),
    *("lightning.pytorch.callbacks.Timer", "lightning.pytorch.loggers.CSVLogger"),
    *("lightning.pytorch.strategies.DDPStrategy", "lightning.pytorch.profilers.SimpleProfiler"),
]
FUNCTIONS = ["torch.nn.functional.gelu", "torch.nn.functional.relu", "torch.nn.functional.conv2d"]
NOTHING = ["photos.v2", "clip.mp4", "0.5", "a b.c", "words", "no_such_module.X"]
NOT_THERE = ["ssl_ebm.no_such_module.X", "ssl_ebm.tasks.NoSuchTask"]
FOREIGN = [
    *("os.system", "subprocess.Popen", "torch.hub.load", "torch.nnx", "torch.load", "stranger-x.Y"),
    *("ssl_ebm.evaluation.lock.os.system", "ssl_ebm.report.training.subprocess.Popen"),
    *("ssl_ebm.tasks.checkpoints.torch.load", "lightning.pytorch.cli.os.system"),
    *("ssl_ebm.cli.main", "ssl_ebm.evaluation.runs.Run", "ssl_ebm.files.write_whole"),
    *("ssl_ebm.evaluation.probing.features.ready", "ssl_ebm.report.benchmarks.text._network"),
    *("lightning.pytorch.cli.instantiate_class", "lightning.pytorch.Trainer"),
    *("lightning.fabric.utilities.cloud_io._load", "lightning.pytorch.loggers.MLFlowLogger"),
    *("ssl_ebm.tasks.MaskedText.load_from_checkpoint", "torch.nn.Embedding.from_pretrained"),
    *("torchmetrics.text.BERTScore", "torch.nn.functional.boolean_dispatch"),
]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_that_are_there_to_be_named(name: str) -> None:
    assert name in of_a_stranger(name, is_class=True)
    assert name in of_a_checkpoint(name, is_class=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_tensors_are_named_but_not_called_with_arguments_of_a_file(name: str) -> None:
    assert name in of_a_stranger(name, is_class=False)
    for judge in (of_a_stranger, of_a_checkpoint):
        with pytest.raises(ForeignNameError):
            judge(name, is_class=True)


@pytest.mark.parametrize("name", NOTHING)
def test_what_imports_nothing(name: str) -> None:
    assert of_a_stranger(name, is_class=False) <= {name}


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_is_not_there_is_for_the_parser_to_say(name: str) -> None:
    assert of_a_stranger(name, is_class=True) == {name}


@pytest.mark.parametrize("name", FOREIGN)
def test_everything_else(name: str) -> None:
    for is_class in (True, False):
        if name.replace(".", "").isidentifier() or is_class:
            with pytest.raises(ForeignNameError):
                of_a_stranger(name, is_class)
            if name != "torch.nnx":  # which is not there
                with pytest.raises(ForeignNameError):
                    of_a_checkpoint(name, is_class)


def test_names_without_a_dot() -> None:
    assert "lightning.pytorch.callbacks.Timer" in of_a_stranger("Timer", is_class=True)
    assert not of_a_stranger("BERTScore", is_class=True)
    assert not of_a_stranger("auto", is_class=False)


def test_a_checkpoint_names_what_the_user_has_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_mine.py").write_text(
        "import os\nfrom torch import nn\nclass Net(nn.Module):\n    pass\nclass Sampler:\n    pass\n"
        "def cost(a, b):\n    return a - b\n"
    )
    names = ["of_mine.Net", "of_mine.Sampler", "of_mine.cost"]
    for name in names:
        with pytest.raises(ForeignNameError):
            of_a_checkpoint(name, is_class=False)
    __import__("of_mine")
    try:
        for name in names:
            assert name in of_a_checkpoint(name, is_class=False)
        for name, is_class in (("of_mine.cost", True), ("of_mine.os.system", False), ("of_mine.os", False)):
            if name != "torch.nnx":  # which is not there
                with pytest.raises(ForeignNameError):
                    of_a_checkpoint(name, is_class)
    finally:
        del sys.modules["of_mine"]


def test_a_checkpoint_names_classes_of_installed_packages_if_they_are_of_a_usual_kind() -> None:
    import torchvision

    assert of_a_checkpoint("torchvision.models.ResNet", is_class=True)
    for name in ("torchvision.models.resnet18", "torchvision.datasets.MNIST", "numpy.memmap", "torch.load"):
        with pytest.raises(ForeignNameError):
            of_a_checkpoint(name, is_class=True)
    assert torchvision


@pytest.mark.parametrize("name", ["torch.nn.Identity", "Identity"])
def test_the_parser_imports_what_was_judged_well_and_nothing_else(name: str) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=nn.Module)
    with importing(of_a_stranger(name, is_class=True)):
        assert parser.parse_object({"x": {"class_path": name}}).x.class_path == "torch.nn.Identity"
    others = importing(of_a_stranger("torch.nn.ReLU", is_class=True))
    with others, pytest.raises(Exception, match="not allowed"):
        parser.parse_object({"x": {"class_path": "torch.nn.Identity"}})
    assert parser.parse_object({"x": {"class_path": name}}).x.class_path == "torch.nn.Identity"


def test_the_users_own_words_are_imported_from_where_they_are_defined() -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=Callback)
    for name in ("lightning.pytorch.callbacks.Timer", "lightning.pytorch.callbacks.timer.Timer", "Timer"):
        with importing(of_the_user(name)):
            assert "Timer" in parser.parse_args(["--x", name]).x.class_path


@pytest.mark.parametrize("text", ["http://x/y", "memory://a", "local:///a", "simplecache::ftp://x", "S3://a"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize("text", ["file:///tmp/a", "hf:name", "C:/data", "as in http://x", "a/b", "12:30"])
def test_no_addresses(text: str) -> None:
    assert not is_address(text)


def test_settings_of_the_parser_are_as_before() -> None:
    """Of a program that uses this package and the parser itself."""
    code = (
        "import jsonargparse; from jsonargparse import _common as c; before = dict(c.parsing_settings)\n"
        "from ssl_ebm.tasks.building import build; from torch import nn\n"
        "build({'class_path': 'torch.nn.Identity'}, nn.Module, 'x'); assert c.parsing_settings == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
