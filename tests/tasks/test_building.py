"""Objects from descriptions, and what a description must not do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from torch import nn

from ssl_ebm.energy import Enumeration, OneHot
from ssl_ebm.energy.sampling import Langevin, Sampler
from ssl_ebm.energy.unconditional import LatentEnergy
from ssl_ebm.errors import UserError
from ssl_ebm.tasks.building import build


def described(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


def test_objects_inside_objects() -> None:
    decoder = described("torch.nn.Linear", in_features=5, out_features=2, bias=False)
    latent = described("ssl_ebm.energy.OneHot", codes=5)
    model = described("ssl_ebm.energy.PredictiveEnergy", decoder=decoder, latent=latent)
    inference = described("ssl_ebm.energy.Enumeration")
    energy = build(
        described("ssl_ebm.energy.unconditional.LatentEnergy", model=model, inference=inference, beta=2.0),
        nn.Module,
        "energy",
    )
    assert isinstance(energy, LatentEnergy)
    assert isinstance(energy.model.latent, OneHot)
    assert isinstance(energy.inference, Enumeration)
    assert energy.beta == 2.0
    assert energy(torch.zeros(3, 2)).shape == (3,)


def test_protocols() -> None:
    sampler = build(described("ssl_ebm.energy.sampling.Langevin", step_size=0.1), Sampler, "sampler")  # type: ignore[type-abstract]
    assert sampler == Langevin(0.1)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (described("ssl_ebm.energy.OneHot", codes=0), "codes must be at least 1, got 0"),
        (described("ssl_ebm.energy.OneHot", code=3), "'code' is not accepted"),
        (described("ssl_ebm.energy.OneHot", codes="many"), "Expected a <class 'int'>"),
        (described("ssl_ebm.energy.Nothing"), "has no attribute 'Nothing'"),
        (described("ssl_ebm.energy.Enumeration"), "not correspond to a subclass"),
        (described("os.system", command="true"), "os.system is none of the classes that a file may name"),
        ({"codes": 3}, "describe it by class_path and init_args"),
        (None, "describe it by class_path and init_args"),
        (nn.Linear(2, 1), "describe it by class_path and init_args.*__main__.Class"),
        ({"class_path": nn.Linear}, "describe it by class_path and init_args.*__main__.Class"),
    ],
)
def test_mistakes_are_one_line(description: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build(description, nn.Module, "energy")
    assert "\n" not in str(caught.value)


def test_a_file_does_not_make_python_import_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile.py").write_text(
        f"from pathlib import Path\nfrom torch import nn\nPath({str(tmp_path / 'ran')!r}).touch()\n"
        "class Energy(nn.Identity):\n    def __init__(self) -> None:\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    nested = described(
        "ssl_ebm.energy.unconditional.ReconstructionEnergy",
        encoder=described("hostile.Energy"),
        decoder=described("torch.nn.Identity"),
    )
    encoder = described(
        "ssl_ebm.energy.unconditional.ReconstructionEnergy",
        encoder="hostile.Energy",
        decoder=described("torch.nn.Identity"),
    )
    cost = described(
        "ssl_ebm.energy.PredictiveEnergy",
        decoder=described("torch.nn.Identity"),
        latent=described("ssl_ebm.energy.OneHot", codes=2),
        cost="hostile.cost",
    )
    again = [  # the parser reads a text that is YAML once more
        encoder | {"init_args": encoder["init_args"] | {"encoder": text}}
        for text in ("{class_path: hostile.Energy}", "class_path: ' hostile.Energy'", "'hostile.Energy'")
    ]
    monkeypatch.chdir(tmp_path)
    Path("hostile.Energy").touch()  # a file of that name makes it no name of a file
    for description in (described("hostile.Energy"), nested, encoder, cost, *again):
        with pytest.raises(UserError, match="in Python import hostile before"):
            build(description, nn.Module, "energy")
    with pytest.raises(UserError, match="in Python import hostile before"):
        build(described("ssl_ebm.energy.sampling.Langevin", step_size="hostile.fn"), Sampler, "sampler")  # type: ignore[type-abstract]
    assert not (tmp_path / "ran").exists()
    __import__("hostile")
    assert type(build(described("hostile.Energy"), nn.Module, "energy")).__name__ == "Energy"
    del sys.modules["hostile"]


@pytest.mark.parametrize("name", ["inner.yaml", "./inner.yaml", "lines.txt"])
def test_a_file_reads_no_other(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inner.yaml").write_text("class_path: torch.nn.Identity\n")
    Path("lines.txt").write_text("torch.nn.Identity\n")
    decoder = described("torch.nn.Identity")
    description = described(
        "ssl_ebm.energy.unconditional.ReconstructionEnergy", encoder=name, decoder=decoder
    )
    with pytest.raises(UserError, match=r"inner|lines"):
        build(description, nn.Module, "energy")


def test_a_file_that_looks_like_a_name_to_import_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    described = {"class_path": "ssl_ebm.data.LabelledDocuments", "init_args": {"path": "reviews.csv"}}
    for make in (lambda: None, lambda: Path("reviews.csv").write_text("text,label\ngood,1\n")):
        make()
        found: Any = build(described, LightningDataModule, "data")  # a file or none: the data will say so
        assert found.corpus.path == "reviews.csv"
    monkeypatch.syspath_prepend(tmp_path)
    Path("reviews.py").touch()
    with pytest.raises(UserError, match="import reviews before"):
        build(described, LightningDataModule, "data")


@pytest.mark.parametrize(
    "path",
    [
        "ssl_ebm.running.lock.os.system",
        "ssl_ebm.tasks.building.Path",
        "torch.nn.modules.module.torch.hub.load",
    ],
)
def test_a_file_names_nothing_that_a_trusted_module_has_imported(path: str) -> None:
    described = {"class_path": "ssl_ebm.energy.sampling.Langevin", "init_args": {"step_size": path}}
    with pytest.raises(UserError, match=r"none of the classes|not allowed"):
        build(described, Sampler, "sampler")  # type: ignore[type-abstract]
