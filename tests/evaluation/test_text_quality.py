"""Figures of text against direct sums, on a small model that is trained by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from ssl_ebm.data import Text
from ssl_ebm.data.special_tokens import CLS, MASK, SEP
from ssl_ebm.data.text import PackedText
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.hidden_tokens import all_masked, calibration, predicted
from ssl_ebm.evaluation.statistics import Bootstrap
from ssl_ebm.evaluation.text_quality import documents_of, text_quality, tokens_before
from ssl_ebm.report.text import TextModel
from ssl_ebm.running.runs import Run
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
    unigram, trigram = found["unigram"], found["trigram"]
    p = np.bincount(data.train_dataset.all_tokens(), minlength=len(data.word_starts)) + 1.0
    p[: MASK + 1] = 0  # special tokens
    truth = hidden.truth[hidden.counts].numpy()
    assert unigram["perplexity"][0] == pytest.approx(np.exp(-np.log(p[truth] / p.sum()).mean()))
    assert found["perplexity"][0] < unigram["perplexity"][0]
    assert trigram["perplexity"][2] < unigram["perplexity"][1]
    times, points = found["perplexity_over_trigram"], found["accuracy_above_trigram"]
    assert times[0] == pytest.approx(found["perplexity"][0] / trigram["perplexity"][0])
    assert points[0] == pytest.approx(found["accuracy"][0] - trigram["accuracy"][0])
    assert found["auroc_swapped"][0] > 0.6
    assert found["counted_tokens"] == data.train_dataset.tokens
    assert text_quality(task, data, "val") == found


def test_shares_of_hidden_tokens_are_those_of_a_measurement_of_their_own(run: Path) -> None:
    found = json.loads((run / "run" / "text_quality_val.json").read_text())
    task = load_task(run / "run" / "checkpoints" / "last.ckpt", MaskedText)
    data = Text(str(run / "a.txt"), "line", vocabulary=60, length=24, cache=str(run / "cache"))
    data.setup()
    half = text_quality(task, data, "val", ratio=0.5)
    fifteen, _, fifty = found["by_ratio"]
    assert [one["ratio"] for one in found["by_ratio"]] == [0.15, 0.3, 0.5]
    for name in ("perplexity", "accuracy", "trigram", "hidden_tokens", "perplexity_over_trigram"):
        assert fifteen[name] == found[name]
        assert fifty[name] == half[name]


def long_documents(run: Path) -> Text:
    """Documents of about ten sequences each, of the words that the model knows; every other one has them in
    no order, and is hard as a whole."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(40):
        words = " ".join(rng.choice(LINES, 14)).split()
        lines.append(" ".join(rng.permutation(words) if number % 2 else words))
    (run / "long.txt").write_text("\n".join(lines))
    [tokenizer, *_] = (run / "cache").glob("*/tokenizer.json")
    data = Text(
        str(run / "long.txt"), "line", tokenizer=str(tokenizer), length=24, val_share=0.2,
        cache=str(run / "cache_of_long"),
    )  # fmt: skip
    data.setup()
    return data


def test_intervals_are_over_documents(run: Path) -> None:
    task = load_task(run / "run" / "checkpoints" / "last.ckpt", MaskedText)
    data = long_documents(run)
    found = text_quality(task, data, "val")
    count = len(data.val_dataset)
    tokens = torch.stack([data.val_dataset[i]["tokens"] for i in range(count)])
    hidden = all_masked(task, tokens, 0.15, 0)
    with torch.no_grad():
        energy, _ = task.energies(hidden)
    of = (data.val_dataset.all_tokens() == CLS).cumsum()[np.arange(count) * 24 + 12]
    documents = np.unique(of)
    assert found["documents"] == len(documents) < count / 5
    sums = np.array(
        [(float(energy[of == one].double().sum()), int(hidden.counts[of == one].sum())) for one in documents]
    )
    expected = Bootstrap(np.arange(len(documents)), 1000, 0).ratio(*sums.T).map(np.exp).interval()
    assert found["perplexity"] == pytest.approx(expected.to_json(), rel=1e-4)
    each = Bootstrap(np.arange(count), 1000, 0).ratio(energy.double().sum(1), hidden.counts.sum(1))
    narrow = each.map(np.exp).interval()
    assert expected.high - expected.low > 1.2 * (narrow.high - narrow.low)


def test_swapped_texts_are_spread_over_all_documents(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(run / "run" / "checkpoints" / "last.ckpt", MaskedText)
    data = long_documents(run)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    measured = task.token_energies

    def watch(tokens: torch.Tensor) -> torch.Tensor:
        seen.append((tokens, measured(tokens)))
        return seen[-1][1]

    monkeypatch.setattr(task, "token_energies", watch)
    found = text_quality(task, data, "val", windows=20)
    file = data.val_dataset.all_tokens()
    starts = np.array([i * 24 for i in range(len(file) // 24) if file[i * 24 : i * 24 + 16].min() > MASK])
    chosen = starts[[(2 * i + 1) * len(starts) // 40 for i in range(20)]]
    (real, energy), (swapped, other) = seen
    assert ((real != swapped).sum(1) == 2).all()
    kept = [i for i in chosen if (real == torch.from_numpy(file[i : i + 16])).all(1).any()]
    assert real.tolist() == [file[i : i + 16].tolist() for i in kept]
    assert len(kept) >= 15  # the others had a token exchanged for the same one
    of = (file == CLS).cumsum()[kept]
    expected = Bootstrap(of, 1000, 0).auroc(energy.sum(1).numpy(), other.sum(1).numpy())
    assert found["auroc_swapped"] == pytest.approx(expected.interval().to_json())
    assert set(of) == set((file == CLS).cumsum()[starts])


def test_documents_of_tokens_are_counted_from_the_start_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 40, 30)
    file = np.concatenate([[CLS, *rng.integers(5, 60, size), SEP] for size in sizes])
    of = np.repeat(np.arange(30), sizes + 2)
    file.astype("uint16").tofile(tmp_path / "some.bin")
    dataset = PackedText(tmp_path / "some.bin", "uint16", 16)
    places = [0, 3, 4, len(dataset) - 1]
    tokens = torch.stack([dataset[i]["tokens"] for i in places])
    expected = [of[16 * i : 16 * i + 16] + 1 for i in places]
    assert documents_of(dataset, places, tokens, CLS).tolist() == np.stack(expected).tolist()
    before = [[-1, -1, -1], *(file[16 * i - 3 : 16 * i].tolist() for i in places[1:])]
    assert tokens_before(dataset, places, 3).tolist() == before


def test_calibration_is_that_of_torchmetrics(run: Path) -> None:
    found = json.loads((run / "run" / "text_quality_val.json").read_text())["calibration"]
    task = load_task(run / "run" / "checkpoints" / "last.ckpt", MaskedText)
    data = Text(str(run / "a.txt"), "line", vocabulary=60, length=24, cache=str(run / "cache"))
    data.setup()
    tokens = torch.stack([data.val_dataset[i]["tokens"] for i in range(len(data.val_dataset))])
    hidden = all_masked(task, tokens, 0.15, 0)
    with torch.no_grad():
        p = task.hidden_scores(hidden).softmax(1)[hidden.counts.flatten()]
    truth = hidden.truth[hidden.counts]
    expected = multiclass_calibration_error(p, truth, num_classes=60, n_bins=10, norm="l1")
    assert found["error"] == pytest.approx(float(expected), rel=1e-3)
    best, token = p.max(1)
    for one in found["bins"]:
        inside = (best >= one["from"]) & (best < one["to"])
        assert one["tokens"] == int(inside.sum())
        if one["tokens"]:
            assert one["said"] == pytest.approx(float(best[inside].mean()), rel=1e-5)
            assert one["right"][0] == pytest.approx(float((token == truth)[inside].float().mean()))


def test_sequences_that_are_passed_together_do_not_matter(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task(run / "run" / "checkpoints" / "last.ckpt", MaskedText)
    tokens = torch.randint(5, 60, (7, 24), generator=torch.Generator().manual_seed(0))
    hidden = all_masked(task, tokens, 0.3, 0)
    with torch.no_grad():
        together = predicted(task, hidden)
        monkeypatch.setattr("ssl_ebm.evaluation.hidden_tokens.VALUES", 2 * 7 * 60)  # two sequences
        apart = predicted(task, hidden)
    np.testing.assert_allclose(together.energy, apart.energy, rtol=1e-4, atol=1e-5)
    drawn = Bootstrap(np.arange(7), 10, 0)
    assert sum(one["tokens"] for one in calibration(apart, drawn)["bins"]) == hidden.counts.sum()


def test_examples_are_what_the_network_says(run: Path) -> None:
    found = json.loads((run / "run" / "text_quality_val.json").read_text())["examples"]
    model = TextModel(run / "run" / "checkpoints" / "last.ckpt")
    one = next(one for one in found["fills"] if one["before"] and one["after"])
    assert one["top"] == sorted(one["top"], key=lambda pair: -pair[1])
    likely = dict(one["top"])
    if one["truth"] in likely:
        assert likely[one["truth"]] == pytest.approx(np.exp(-one["energy"]), rel=1e-4)
    assert one["truth"].isalpha()
    for pair in found["swapped"]:
        real, swapped = ([piece for piece, _ in pair[name]] for name in ("real", "swapped"))
        assert sorted(real) == sorted(swapped)
        assert sum(a != b for a, b in zip(real, swapped, strict=True)) == 2
        names = [piece[1:] if piece.startswith(" ") else f"##{piece}" for piece in real]
        ids = torch.tensor([model.tokenizer.token_to_id(name) for name in names])
        energies = model.task.token_energies(ids[None])[0].tolist()
        assert [nats for _, nats in pair["real"]] == pytest.approx(energies, rel=1e-3)


def test_numbers_out_of_range(run: Path) -> None:
    with pytest.raises(UserError, match="sequences is 0"):
        text_quality(None, None, "val", sequences=0)  # type: ignore[arg-type]
