"""What files may name: by a list of names on either side of the line, and by what the parser then imports."""

from __future__ import annotations

import math
import operator
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import torch
from torch import nn

from ssl_ebm.energy.sampling import Langevin, Sampler
from ssl_ebm.errors import UserError
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.naming import (
    ForeignNameError,
    NoSuchNameError,
    importing,
    is_address,
    of_a_checkpoint,
    of_a_stranger,
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
    *("ssl_ebm.running.lock.os.system", "ssl_ebm.report.training.subprocess.Popen"),
    *("ssl_ebm.tasks.checkpoints.torch.load", "lightning.pytorch.cli.os.system"),
    *("ssl_ebm.cli.main", "ssl_ebm.running.runs.Run", "ssl_ebm.files.write_whole"),
    *("ssl_ebm.evaluation.probing.features.ready", "ssl_ebm.report.benchmarks.text._network"),
    *("lightning.pytorch.cli.instantiate_class", "lightning.pytorch.Trainer"),
    *("lightning.fabric.utilities.cloud_io._load", "lightning.pytorch.loggers.MLFlowLogger"),
    *("ssl_ebm.tasks.MaskedText.load_from_checkpoint", "torch.nn.Embedding.from_pretrained"),
    *("torchmetrics.text.BERTScore", "torch.nn.functional.boolean_dispatch"),
]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_that_are_there_to_be_named(name: str) -> None:
    assert not of_a_stranger(name, is_class=True)
    assert not of_a_checkpoint(name, is_class=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_tensors_are_named_but_not_called_with_arguments_of_a_file(name: str) -> None:
    assert not of_a_stranger(name, is_class=False)
    for judge in (of_a_stranger, of_a_checkpoint):
        with pytest.raises(ForeignNameError):
            judge(name, is_class=True)


@pytest.mark.parametrize("name", NOTHING)
def test_what_imports_nothing(name: str) -> None:
    assert of_a_stranger(name, is_class=False) <= {name}


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_is_not_there_stays_so(name: str) -> None:
    assert of_a_stranger(name, is_class=False) == {name}
    for judge in (of_a_stranger, of_a_checkpoint):
        with pytest.raises(NoSuchNameError, match=name):
            judge(name, is_class=True)


@pytest.mark.parametrize("name", FOREIGN)
def test_everything_else(name: str) -> None:
    for is_class in (True, False):
        if name.replace(".", "").isidentifier() or is_class:
            with pytest.raises(ForeignNameError):
                of_a_stranger(name, is_class)
            with pytest.raises(
                (ForeignNameError, NoSuchNameError) if name == "torch.nnx" else ForeignNameError
            ):
                of_a_checkpoint(name, is_class=is_class or name == "torch.nnx")


def test_names_without_a_dot() -> None:
    assert not of_a_stranger("Timer", is_class=True)
    assert not of_a_stranger("auto", is_class=False)
    assert not of_a_stranger("NoSuchClass", is_class=False)
    assert "lightning.pytorch.loggers.MLFlowLogger" in of_a_stranger("MLFlowLogger", is_class=False)
    with pytest.raises(ForeignNameError):
        of_a_stranger("MLFlowLogger", is_class=True)


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
            assert not of_a_checkpoint(name, is_class=False)
        for name, is_class in (("of_mine.cost", True), ("of_mine.os.system", False), ("of_mine.os", False)):
            with pytest.raises(
                (ForeignNameError, NoSuchNameError) if name == "torch.nnx" else ForeignNameError
            ):
                of_a_checkpoint(name, is_class=is_class or name == "torch.nnx")
    finally:
        del sys.modules["of_mine"]


def test_a_checkpoint_names_classes_of_installed_packages_if_they_are_of_a_usual_kind() -> None:
    import torchvision

    assert not of_a_checkpoint("torchvision.models.ResNet", is_class=True)
    for name in (
        *("torchvision.models.resnet18", "torchvision.datasets.MNIST", "numpy.memmap", "torch.load"),
        *("torch.fx.GraphModule", "torch.jit.ScriptModule"),
    ):
        with pytest.raises(ForeignNameError):
            of_a_checkpoint(name, is_class=True)
    assert torchvision


@pytest.mark.parametrize(
    "name", ["torch.nn.PixelUnshuffle", "PixelUnshuffle", "torch.nn.modules.pixelshuffle.PixelUnshuffle"]
)
def test_the_parser_imports_nothing_that_is_barred(name: str) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=nn.Module)
    described = {"x": {"class_path": name, "init_args": {"downscale_factor": 2}}}
    with importing(all_but={"torch.nn.ReLU"}):
        assert parser.parse_object(described).x.class_path.endswith(".PixelUnshuffle")
    barred = importing(all_but={"torch.nn.PixelUnshuffle", "torch.nn.modules.pixelshuffle.PixelUnshuffle"})
    with barred, pytest.raises(Exception, match="not allowed"):
        parser.parse_object(described)
    assert parser.parse_object(described).x.class_path.endswith(".PixelUnshuffle")


@pytest.mark.parametrize(
    "name", ["os.system", "ssl_ebm.cli.main", "torch.load", "ssl_ebm.running.lock.os.remove"]
)
def test_the_parser_never_imports(name: str) -> None:
    """However it came by the name."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=Callable)
    with importing(all_but=()), pytest.raises(Exception, match=r"not allowed|not have"):
        parser.parse_object({"x": name})


def test_what_was_not_there_when_it_was_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    barred = of_a_stranger("come_later.Thing", is_class=False)
    (tmp_path / "come_later.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nThing = print\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=Callable)
    with importing(all_but=barred), pytest.raises(Exception, match="not allowed"):
        parser.parse_object({"x": "come_later.Thing"})
    assert not (tmp_path / "ran").exists()
    parser.parse_object({"x": "come_later.Thing"})
    assert (tmp_path / "ran").exists()


class Defaults:
    def __init__(
        self,
        cost: Callable[..., Any] = operator.mul,
        angle: Callable[..., Any] = torch.cos,
        layer: type[nn.Module] = nn.GELU,
        own: Callable[..., Any] = is_address,
    ) -> None:
        self.all = [cost, angle, layer, own]


def test_defaults_arrive_as_they_are() -> None:
    """Which the parser turns into names, and imports again."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Defaults, "x")
    with importing(all_but=()):
        made = parser.instantiate(parser.parse_object({})).x
    assert made.all == [operator.mul, torch.cos, nn.GELU, is_address]


@pytest.mark.parametrize(
    "text",
    [
        "http://x/y",
        "memory://a",
        "local:///a",
        "simplecache::ftp://x",
        "see https://x",
        "S3://a",
        "as in http://x",
        "f${X}tp://h",
        "memory:$X//h",
    ],
)
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        *("file:///tmp/a", "hf:name", "C:/data", "a/b", "12:30", "$HOME/a", "a: b"),
        *("std::x", "^(?:a|b)$", "C:\\x$", "key: ${a}"),
    ],
)
def test_no_addresses(text: str) -> None:
    assert not is_address(text)


def test_what_the_user_names_or_trusts_a_description_may_name_too() -> None:
    description = {"class_path": "ssl_ebm.energy.sampling.Langevin", "init_args": {"step_size": "math.sqrt"}}
    with pytest.raises(UserError, match=r"math.sqrt is none of the classes"):
        build(description, Sampler, "sampler")  # type: ignore[type-abstract]
    for around in (importing(None), importing((), of_the_user=["math.sqrt"])):
        with around:
            made = build(description, Sampler, "sampler")  # type: ignore[type-abstract]
        assert made == Langevin(math.sqrt)


def test_settings_of_the_parser_are_as_before() -> None:
    """Of a program that uses this package and the parser itself."""
    code = (
        "import jsonargparse; from jsonargparse import _common as c; before = dict(c.parsing_settings)\n"
        "from ssl_ebm.tasks.building import build; from torch import nn\n"
        "build({'class_path': 'torch.nn.Identity'}, nn.Module, 'x'); assert c.parsing_settings == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
