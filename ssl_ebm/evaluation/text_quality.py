"""How well a masked text autoencoder predicts, beside n-grams of the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor

from ssl_ebm.data.corruption import Corrupted, TokenMasking
from ssl_ebm.data.loading import check_least
from ssl_ebm.data.text import PackedText, Text
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.ngrams import NGrams, masked_figures
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.statistics import Bootstrap, Estimate
from ssl_ebm.files import write_whole
from ssl_ebm.tasks.masked_text import MaskedText

BATCH = 64
RESAMPLES = 1000
RATIO = 0.15  # of hidden tokens, as in BERT
WINDOW = 16  # tokens of a text whose words are swapped
NAMES = ("unigram", "bigram", "trigram")


def text_quality(
    task: MaskedText,
    data: Text,
    split: str,
    sequences: int = 512,
    windows: int = 200,
    ratio: float = RATIO,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures on one split, each as [value, low, high] with a 95 % interval bootstrapped over sequences.

    - perplexity and accuracy on hidden tokens, in such units as in training, but all of them [MASK]: none is
      left to be seen. As many as `ratio` says, whatever training hides, so that trainings compare;
    - the same of the unigram, and the interpolated bigram and trigram of the training text, for the same
      tokens (`ssl_ebm.evaluation.ngrams`; their weights are chosen on validation text). An n-gram sees the
      true tokens before the hidden one, the network only what is left to see.
    - auroc_swapped: of the pseudo-log-likelihood, of texts of 16 tokens against the same with two of their
      tokens exchanged.

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
    count = min(sequences, len(dataset))
    places = [(2 * i + 1) * len(dataset) // (2 * count) for i in range(count)]
    tokens = torch.stack([item["tokens"] for item in load_items(dataset, places)])
    with isolated(task):
        hidden = all_masked(task, tokens.to(task.device), ratio, seed)
        parts = [type(hidden)(*(one[i : i + BATCH] for one in hidden)) for i in range(0, count, BATCH)]
        made = [task.energies(part) for part in parts]
        energies = torch.cat([energy for energy, _ in made]).cpu().double()
        right = torch.cat([one for _, one in made]).cpu()
        swapped = _swapped(task, tokens, windows, seed)
    counts = hidden.counts.cpu()
    drawn, number = Bootstrap(np.arange(count), RESAMPLES, seed), counts.sum(1).numpy()
    train: PackedText = data.train_dataset
    held = data.val_dataset.all_tokens()
    models = [NGrams(train.all_tokens(), len(data.word_starts), n, held) for n in (1, 2, 3)]
    shallow = masked_figures(models, tokens.numpy(), hidden.positions.cpu().numpy(), counts.numpy())
    return {
        "split": split,
        "seed": seed,
        "ratio": ratio,
        "sequences": count,
        "hidden_tokens": int(counts.sum()),
        "perplexity": drawn.ratio(energies.sum(1).numpy(), number).map(np.exp).interval().to_json(),
        "accuracy": drawn.ratio(right.sum(1).numpy(), number).interval().to_json(),
        **{
            name: {"perplexity": perplexity, "accuracy": accuracy}
            for name, (perplexity, accuracy) in zip(NAMES, shallow, strict=True)
        },
        "auroc_swapped": None if swapped is None else swapped.interval().to_json(),
    }


def all_masked(task: MaskedText, tokens: Tensor, ratio: float, seed: int) -> Corrupted:
    """A share of the tokens hidden in the task's units, with [MASK] in place of each."""
    masking = TokenMasking(ratio, task.masking.unit, masked=1.0, random=0.0)
    generator = generator_for(seed, device=tokens.device)
    return masking.hide(tokens, task.ordinary, task.word_starts, generator, task.special.mask)


def _swapped(task: MaskedText, tokens: Tensor, windows: int, seed: int) -> Estimate | None:
    """AUROC of whole texts against texts with two tokens exchanged; None where there are none."""
    whole = tokens.unfold(1, min(WINDOW, tokens.shape[1]), min(WINDOW, tokens.shape[1])).flatten(0, 1)
    whole = whole[task.ordinary.cpu()[whole].all(1)][:windows]
    if len(whole) < 2:
        return None
    rng = np.random.default_rng(seed)
    other = whole.clone()
    for row in other:
        first, second = rng.choice(len(row), 2, replace=False)
        row[[first, second]] = row[[second, first]]
    differs = (whole != other).any(1)
    whole, other = whole[differs], other[differs]
    real, negative = (-task.pseudo_log_likelihood(some.to(task.device)).cpu() for some in (whole, other))
    return Bootstrap(np.arange(len(whole)), RESAMPLES, seed).auroc(real.numpy(), negative.numpy())


class TextQuality(Callback):
    """Measures `text_quality` at the end of a training (on validation text) and of a test (on test text).

    Written to ``<default_root_dir>/text_quality_val.json`` and ``text_quality_test.json``.

    Args:
        sequences, windows, ratio, seed: as there.
    """

    def __init__(self, sequences: int = 512, windows: int = 200, ratio: float = RATIO, seed: int = 0) -> None:
        check_least(sequences=(sequences, 1), windows=(windows, 2))
        self.sequences, self.windows, self.ratio, self.seed = sequences, windows, ratio, seed
        TokenMasking(ratio)  # refuses what is no share

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module, "test")

    @rank_zero_only
    def _measure(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, MaskedText) or not isinstance(data, Text):
            return
        data.setup()
        found = text_quality(pl_module, data, split, self.sequences, self.windows, self.ratio, self.seed)
        path = Path(trainer.default_root_dir) / f"text_quality_{split}.json"
        write_whole(path, json.dumps(found, indent=1) + "\n")
        trigram = found["trigram"]
        rank_zero_info(
            f"{split}: masked perplexity {found['perplexity'][0]:.1f} (trigram {trigram['perplexity']:.1f}), "
            f"accuracy {found['accuracy'][0]:.3f} (trigram {trigram['accuracy']:.3f}): {path}"
        )
