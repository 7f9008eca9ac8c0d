"""Figures of text against direct sums, on a small model that is trained by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ssl_ebm.data import Text
from ssl_ebm.data.special_tokens import MASK
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.runs import Run
from ssl_ebm.evaluation.text_quality import all_masked, text_quality
from ssl_ebm.tasks import MaskedText, load_task

NOUNS, VERBS = ["cat", "dog", "man", "cow"], ["sees", "hears", "likes"]
LINES = [f"the {a} {v} the {b} and then the {c} {w} it {i}" for i, (a, v, b, c, w) in enumerate(
    (NOUNS[i % 4], VERBS[i % 3], NOUNS[i // 4 % 4], NOUNS[i // 16 % 4], VERBS[i // 5 % 3]) for i in range(400)
)]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    (folder / "a.txt").write_text("\n".join(LINES))
    network = {"class_path": "ssl_ebm.networks.text.TextEncoder"}
    sizes = {"vocabulary": 60, "width": 32, "depth": 2, "heads": 2, "length": 24}
    arguments = [
        "--model",
        "ssl_ebm.tasks.MaskedText",
        "--model.network",
        json.dumps(network | {"init_args": sizes}),
    ]
    arguments += ["--model.lr", "3e-3", "--data", "ssl_ebm.data.Text", "--data.path", str(folder / "a.txt")]
    arguments += ["--data.unit", "line", "--data.vocabulary", "60", "--data.length", "24", "--data.cache"]
    arguments += [str(folder / "cache"), "--trainer.max_steps", "150", "--trainer.accelerator", "cpu"]
    arguments += ["--trainer.callbacks+=ssl_ebm.evaluation.TextQuality", "--run_dir", str(folder / "run")]
    Run("fit", arguments).execute()
    return folder


def test_figures_are_those_of_the_network(run: Path) -> None:
    found = json.loads((run / "run" / "text_quality_val.json").read_text())
    task = load_task(run / "run" / "checkpoints" / "last.ckpt", MaskedText)
    data = Text(str(run / "a.txt"), "line", vocabulary=60, length=24, cache=str(run / "cache"))
    data.setup()
    tokens = torch.stack([data.val_dataset[i]["tokens"] for i in range(len(data.val_dataset))])
    hidden = all_masked(task, tokens, 0.15, 0)
    assert (hidden.tokens.gather(1, hidden.positions)[hidden.counts] == MASK).all()
    with torch.no_grad():
        energy, right = task.energies(hidden)
    count = hidden.counts.sum()
    assert found["hidden_tokens"] == int(count)
    assert found["perplexity"][0] == pytest.approx(float((energy.sum() / count).exp()), rel=1e-4)
    assert found["accuracy"][0] == pytest.approx(float(right.sum() / count))
    for name in ("perplexity", "accuracy", "auroc_swapped"):
        value, low, high = found[name]
        assert low <= value <= high
    assert found["perplexity"][0] < found["unigram"]["perplexity"]
    assert found["trigram"]["perplexity"] < found["unigram"]["perplexity"]
    assert found["auroc_swapped"][0] > 0.6
    assert text_quality(task, data, "val") == found


def test_numbers_out_of_range(run: Path) -> None:
    with pytest.raises(UserError, match="sequences is 0"):
        text_quality(None, None, "val", sequences=0)  # type: ignore[arg-type]
