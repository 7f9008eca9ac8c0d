"""A mixed precision that the processor would only emulate gives way to float32, and nothing else does."""

import json
import warnings
from pathlib import Path

import pytest
import yaml
from tiny_runs import FAST, RUNS

from ssl_ebm.cli import main
from ssl_ebm.tasks import precision
from ssl_ebm.tasks.precision import bearable, emulates_bfloat16

INSTRUCTIONS = Path("/proc/cpuinfo")


@pytest.fixture
def emulating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda: True)


@pytest.mark.parametrize("asked", ["bf16-mixed", "bf16", "16-mixed", "16", 16])
def test_a_mixed_precision_gives_way(emulating: None, asked: str | int) -> None:
    with pytest.warns(UserWarning, match="no arithmetic for bfloat16"):
        assert bearable(asked, "cpu") == "32-true"


@pytest.mark.parametrize(
    ("asked", "accelerator"),
    [
        ("bf16-mixed", "gpu"),
        ("bf16-mixed", "cuda"),
        ("bf16-true", "cpu"),
        ("32-true", "cpu"),
        (64, "cpu"),
        (None, "cpu"),
    ],
)
def test_other_precisions_and_devices_stay(
    emulating: None, asked: str | int | None, accelerator: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bearable(asked, accelerator) == asked


@pytest.mark.parametrize("on_gpu", [False, True])
def test_auto_is_the_processor_where_there_is_no_gpu(
    emulating: None, monkeypatch: pytest.MonkeyPatch, on_gpu: bool
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: on_gpu)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert bearable("bf16-mixed", "auto") == ("bf16-mixed" if on_gpu else "32-true")


def test_a_processor_with_arithmetic_for_it_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda: False)
    assert bearable("bf16-mixed", "cpu") == "bf16-mixed"


def test_what_is_measured_agrees_with_the_processors_instructions() -> None:
    if not INSTRUCTIONS.is_file():
        pytest.skip("the processor's instructions are listed by Linux alone")
    listed = {
        word
        for line in INSTRUCTIONS.read_text().splitlines()
        if line.startswith("flags")
        for word in line.split()
    }
    if {"avx512_bf16", "amx_bf16", "avx_ne_convert"} & listed:
        assert not emulates_bfloat16()
    elif "avx2" in listed and "avx512f" not in listed:
        assert emulates_bfloat16()
    else:
        pytest.skip("of this processor it is not known whether it has arithmetic for bfloat16")


def test_fit_trains_in_float32_and_says_so(emulating: None, tmp_path: Path) -> None:
    arguments = [*FAST, *RUNS["frames"](tmp_path), "--trainer.precision", "bf16-mixed"]
    with pytest.warns(UserWarning, match="training in float32 in place of trainer.precision bf16-mixed"):
        assert main(["fit", *arguments, "--run_dir", str(tmp_path / "run")]) == 0
    asked = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"]["precision"]
    (start,) = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (asked, start["precision"]) == ("bf16-mixed", "32-true")
