"""fit --start_from: the weights and the tokenizer of another run, at step 0."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import FAST, RUNS, tiny_run

from ssl_ebm.cli import main
from ssl_ebm.files import sha256_of
from ssl_ebm.tasks.saving import last_checkpoint

OTHER_WORDS = [f"z{a}{b}" for a in "aeiou" for b in "bdfgklmnprst"]
STILL = ["--model.lr", "1.0e-12"]


def other_corpus(folder: Path) -> list[str]:
    """Of words that no tokenizer of the first corpus would make."""
    words = iter(OTHER_WORDS * 200)
    path = folder / "other.txt"
    path.write_text("\n".join(" ".join(next(words) for _ in range(7)) + f" {i}" for i in range(150)))
    return ["--data.path", str(path)]


def settings(folder: Path) -> list[str]:
    return [*RUNS["text"](folder), *FAST]


def read(checkpoint: Path) -> Any:
    return torch.load(checkpoint, weights_only=True)


def same_weights(one: Any, other: Any) -> bool:
    """Up to what a learning rate of almost 0 changes."""
    one, other = one["state_dict"], other["state_dict"]
    return one.keys() == other.keys() and all(
        torch.allclose(one[name], other[name], atol=1e-6) for name in one
    )


def test_training_begins_with_weights_and_tokenizer_of_another_run(tmp_path: Path) -> None:
    """Also where it is broken off and goes on when the first checkpoint is no longer there."""
    start = tiny_run("text", tmp_path)
    first, digest = read(start), sha256_of(start)
    fit = ["fit", *settings(tmp_path), *other_corpus(tmp_path), "--start_from", str(start), *STILL]
    run = tmp_path / "adapted"
    assert main([*fit, "--run_dir", str(run)]) == 0
    second = read(last_checkpoint(run))
    assert same_weights(first, second)
    assert first["tokenizer"] == second["tokenizer"]
    assert second["global_step"] == 3
    assert second["data"]["path"] == str(tmp_path / "other.txt")
    assert second["data"]["before"] == first["data"]  # of which it may have seen what is measured
    (record,) = json.loads((run / "run.json").read_text())
    assert record["began_from"] == {"path": str(start), "sha256": digest}

    start.unlink()
    assert main([*fit, "--run_dir", str(run), "--ckpt_path", "last", "--trainer.max_steps", "5"]) == 0
    third = read(last_checkpoint(run))
    assert third["global_step"] == 5
    assert third["data"] == second["data"]
    assert first["tokenizer"] == third["tokenizer"]
    assert same_weights(first, third)
    assert json.loads((run / "run.json").read_text())[-1]["began_from"] is None


def test_a_checkpoint_is_tested_with_its_own_tokenizer_on_another_corpus(tmp_path: Path) -> None:
    start = tiny_run("text", tmp_path)
    test = ["test", *settings(tmp_path), *other_corpus(tmp_path), "--ckpt_path", str(start)]
    assert main([*test, "--run_dir", str(tmp_path / "tested")]) == 0
    cached = {path.read_text() for path in (tmp_path / "cache").glob("*/tokenizer.json")}
    assert cached == {read(start)["tokenizer"]}


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("text", ["--start_from", "nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        ("text", ["--model.network.init_args.width", "32"], "does not fit this model: "),
        ("frames", [], "is a checkpoint of MaskedText, not of FramePrediction"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, change: list[str], message: str
) -> None:
    start = ["--start_from", str(tiny_run("text", tmp_path))]
    run = tmp_path / "second"
    fit = ["fit", *RUNS[task](tmp_path), *FAST, *start, *change]
    assert main([*fit, "--run_dir", str(run)]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error" in one]
    assert message in line
    assert not last_checkpoint(run).exists()
