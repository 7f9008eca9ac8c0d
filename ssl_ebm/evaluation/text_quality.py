"""How well a masked text autoencoder predicts, beside n-grams of the same text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from ssl_ebm.data.corruption import TokenMasking
from ssl_ebm.data.loading import check_least
from ssl_ebm.data.text import PackedText, Text
from ssl_ebm.evaluation.hidden_tokens import all_masked, by_ngrams, calibration, figures, predicted, spread
from ssl_ebm.evaluation.isolation import isolated
from ssl_ebm.evaluation.ngrams import NONE, NGrams
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.statistics import Bootstrap
from ssl_ebm.evaluation.text_examples import coloured, fills
from ssl_ebm.evaluation.token_pairs import pair_energies
from ssl_ebm.files import write_whole
from ssl_ebm.tasks.masked_text import MaskedText
from ssl_ebm.tasks.sharding import gathered

RESAMPLES = 1000
RATIO = 0.15  # of hidden tokens, as in BERT
RATIOS = (0.15, 0.30, 0.50)  # at which perplexity is drawn
WINDOW = 16  # tokens of a text whose words are swapped
COUNTED = 20_000_000  # training tokens that the n-grams count, at most: 1 GB of memory
FILLS, SWAPPED = 8, 4  # examples


def text_quality(
    task: MaskedText,
    data: Text,
    split: str,
    sequences: int = 512,
    windows: int = 200,
    ratio: float = RATIO,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures on one split, each as [value, low, high] with a 95 % interval bootstrapped over documents.

    What is of one document is not independent, and is drawn together: a sequence belongs to the document of
    its middle token, a pair and a text of 16 tokens to the one they stand in. "documents" says how many
    sequences belong to; where it is 1, intervals are over what is of that one.

    - perplexity and accuracy on hidden tokens, in such units as in training, but all of them [MASK]: none is
      left to be seen. As many as `ratio` says, whatever training hides, so that trainings compare;
    - the same of the unigram, and the interpolated bigram and trigram of the training text (of its first 20
      million tokens, "counted_tokens"), for the same tokens (`ssl_ebm.evaluation.ngrams`; their weights are
      chosen on validation text). Special tokens have no probability, as in the network. An n-gram sees the
      true tokens before the hidden one, also those before its sequence, the network only what is left to see
      of the sequence. perplexity_over_trigram and accuracy_above_trigram are paired;
    - by_ratio: all of these with 15, 30 and 50 % hidden;
    - calibration: how often the likeliest token is right, by its probability;
    - pairs: two hidden words in a row, their joint energy beside that of their marginals;
    - auroc_swapped: of the pseudo-log-likelihood, of texts of 16 tokens against the same with two of their
      tokens exchanged; the texts are spread evenly over those of the sequences;
    - examples: "fills" of one word, and texts "swapped", token by token.

    Args:
        split: "val" or "test".
        sequences: how many, at most, spread evenly.
        windows: texts for the AUROC.
        ratio: share of hidden tokens.

    Raises:
        UserError: a number out of its range.
    """
    check_least(sequences=(sequences, 1), windows=(windows, 2))
    dataset = data.val_dataset if split == "val" else data.test_dataset
    places = spread(sequences, len(dataset))
    tokens = torch.stack([item["tokens"] for item in load_items(dataset, places)])
    documents = documents_of(dataset, places, tokens, task.special.cls)
    middle = documents[:, tokens.shape[1] // 2].numpy()
    drawn = Bootstrap(middle, RESAMPLES, seed)
    train: PackedText = data.train_dataset
    counted = train.all_tokens(COUNTED)
    known = len(data.word_starts)
    ordinary = task.ordinary[:known].cpu().numpy()
    before = tokens_before(dataset, places, 2)
    ngrams = NGrams(counted, known, 3, data.val_dataset.all_tokens(COUNTED), ordinary)
    by_ratio: dict[float, dict[str, Any]] = {}
    with isolated(task):
        for share in sorted({ratio, *RATIOS}):
            hidden = all_masked(task, tokens.to(task.device), share, seed)
            ours = predicted(task, hidden)
            by_ratio[share] = figures(ours, by_ngrams(ngrams, tokens, hidden, before), drawn)
            if share == ratio:
                calibrated = calibration(ours, drawn)
        pairs = pair_energies(task, tokens, documents, RESAMPLES, seed)
        auroc, swapped = _swapped(task, tokens, documents, windows, seed)
        examples = {"fills": fills(task, tokens, FILLS, seed), "swapped": swapped}
    return {
        "split": split,
        "seed": seed,
        "ratio": ratio,
        "sequences": len(tokens),
        "documents": len(np.unique(middle)),
        "counted_tokens": len(counted),
        **by_ratio[ratio],
        "auroc_swapped": auroc,
        "pairs": pairs,
        "calibration": calibrated,
        "by_ratio": [{"ratio": share, **by_ratio[share]} for share in RATIOS],
        "examples": examples,
    }


def tokens_before(dataset: PackedText, places: Sequence[int], count: int) -> NDArray[np.int64]:
    """The tokens of the file before some sequences, `NONE` before the first one: (N, count).

    Args:
        places: (N,) indices of the sequences.
        count: of tokens.
    """
    file = np.memmap(dataset.path, dataset.dtype, "r")
    at = np.asarray(places)[:, None] * dataset.length + np.arange(-count, 0)
    return np.where(at < 0, NONE, file[np.maximum(at, 0)].astype(np.int64))


def documents_of(dataset: PackedText, places: Sequence[int], tokens: Tensor, cls: int) -> Tensor:
    """The document of each token of some sequences, by its number in the file: (N, T) int64.

    Args:
        places: (N,) indices of the sequences.
        tokens: (N, T) those of them.
        cls: the token that every document begins with.
    """
    starts = np.flatnonzero(np.memmap(dataset.path, dataset.dtype, "r") == cls)
    before = np.searchsorted(starts, np.asarray(places) * dataset.length)
    return torch.from_numpy(before)[:, None] + (tokens == cls).cumsum(1)


def _swapped(
    task: MaskedText, tokens: Tensor, documents: Tensor, windows: int, seed: int
) -> tuple[list[float | None] | None, list[dict[str, Any]]]:
    """AUROC of whole texts against the same with two tokens exchanged, and a few of them; None and nothing
    where no sequence has 16 tokens of one document in a row.

    Args:
        tokens, documents: (N, T) each, as of `documents_of`.
        windows: how many texts, at most, spread evenly over all.
    """
    size = min(WINDOW, tokens.shape[1])
    whole, of = (one.unfold(1, size, size).flatten(0, 1) for one in (tokens, documents))
    ordinary = task.ordinary.cpu()[whole].all(1)
    whole, of = whole[ordinary], of[ordinary, 0]
    chosen = list(spread(windows, len(whole)))
    whole, of = whole[chosen], of[chosen]
    if len(whole) < 2:
        return None, []
    rng = np.random.default_rng(seed)
    other = whole.clone()
    for row in other:
        first, second = rng.choice(len(row), 2, replace=False)
        row[[first, second]] = row[[second, first]]
    differs = (whole != other).any(1)
    whole, other, of = whole[differs], other[differs], of[differs]
    real, negative = (task.token_energies(some.to(task.device)).cpu() for some in (whole, other))
    drawn = Bootstrap(of.numpy(), RESAMPLES, seed)
    estimate = drawn.auroc(real.sum(1).numpy(), negative.sum(1).numpy())
    few = list(spread(SWAPPED, len(whole)))
    shown = {
        name: coloured(task, some[few], nats[few])
        for name, some, nats in (("real", whole, real), ("swapped", other, negative))
    }
    examples = [dict(zip(shown, pair, strict=True)) for pair in zip(*shown.values(), strict=True)]
    return estimate.interval().to_json(), examples


class TextQuality(Callback):
    """Measures `text_quality` at the end of a training (on validation text) and of a test (on test text).

    Written to ``<default_root_dir>/text_quality_val.json`` and ``text_quality_test.json``.
    `ssl_ebm.report.TextReport` writes a page as well.

    Args:
        sequences, windows, ratio, seed: as there.
    """

    def __init__(self, sequences: int = 512, windows: int = 200, ratio: float = RATIO, seed: int = 0) -> None:
        check_least(sequences=(sequences, 1), windows=(windows, 2))
        self.sequences, self.windows, self.ratio, self.seed = sequences, windows, ratio, seed
        TokenMasking(ratio)  # refuses what is no share

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure_whole(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure_whole(trainer, pl_module, "test")

    def _measure_whole(self, trainer: Trainer, task: LightningModule, split: str) -> None:
        """Measures in one process, with whole weights; the others wait."""
        with gathered(task):
            self.measure(trainer, task, split)
        trainer.strategy.barrier("text_quality")

    @rank_zero_only
    def measure(self, trainer: Trainer, pl_module: LightningModule, split: str) -> dict[str, Any] | None:
        """Measures and writes; None for what is no masked text."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, MaskedText) or not isinstance(data, Text):
            return None
        data.setup()
        found = text_quality(pl_module, data, split, self.sequences, self.windows, self.ratio, self.seed)
        path = Path(trainer.default_root_dir) / f"text_quality_{split}.json"
        write_whole(path, json.dumps(found, indent=1) + "\n")
        trigram = found["trigram"]
        rank_zero_info(
            f"{split}: masked perplexity {found['perplexity'][0]:.1f} (trigram "
            f"{trigram['perplexity'][0]:.1f}), accuracy {found['accuracy'][0]:.3f} (trigram "
            f"{trigram['accuracy'][0]:.3f}): {path}"
        )
        return found
