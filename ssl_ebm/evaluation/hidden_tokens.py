"""What a masked text autoencoder says of tokens that are hidden, beside n-grams of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_ebm.data.corruption import Corrupted, TokenMasking
from ssl_ebm.evaluation.isolation import generator_for
from ssl_ebm.evaluation.ngrams import NGrams, masked_energies
from ssl_ebm.evaluation.statistics import Bootstrap
from ssl_ebm.tasks.masked_text import MaskedText

NAMES = ("unigram", "bigram", "trigram")
VALUES = 2**26  # scores held at once
BINS = 10  # of the probability of the likeliest token

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Predicted:
    """Hidden tokens of texts, (B, M) each; what does not count is 0.

    Attributes:
        energy: -log p of the truth, in nats.
        right: whether it is the likeliest token.
        counts: which places count.
        probability: of the likeliest token; None where it was not asked for.
    """

    energy: Floats
    right: Bools
    counts: Bools
    probability: Floats | None = None


def all_masked(task: MaskedText, tokens: Tensor, ratio: float, seed: int) -> Corrupted:
    """A share of the tokens hidden in the task's units, with [MASK] in place of each."""
    masking = TokenMasking(ratio, task.masking.unit, masked=1.0, random=0.0)
    generator = generator_for(seed, device=tokens.device)
    special = task.special
    return masking.hide(tokens, task.ordinary, task.word_starts, generator, special.mask, special.pad)


def predicted(task: MaskedText, hidden: Corrupted) -> Predicted:
    """What the task says of hidden tokens, some sequences at a time."""
    size = max(1, VALUES // (hidden.positions.shape[1] * task.network.vocabulary))
    found = []
    for start in range(0, len(hidden.tokens), size):
        part = Corrupted(*(one[start : start + size] for one in hidden))
        log_p = task.hidden_scores(part).log_softmax(1)
        best, token = log_p.max(1)
        truth, counts = part.truth.flatten(), part.counts.flatten()
        energy = -log_p.gather(1, torch.where(counts, truth, token)[:, None])[:, 0]
        made = torch.stack([energy * counts, (token == truth) & counts, best.exp() * counts])
        found.append(made.view(3, *part.truth.shape).cpu().double())
    energy, right, probability = torch.cat(found, 1).numpy()
    return Predicted(energy, right > 0, hidden.counts.cpu().numpy(), probability)


def by_ngrams(
    model: NGrams, tokens: Tensor, hidden: Corrupted, before: Ints | None = None
) -> dict[str, Predicted]:
    """The same of each order of n-gram, which sees the true tokens before a hidden one; `before` are those
    before each sequence, as in `masked_energies`."""
    counts = hidden.counts.cpu().numpy()
    made = masked_energies(model, tokens.numpy(), hidden.positions.cpu().numpy(), counts, before)
    return {name: Predicted(*one, counts) for name, one in zip(NAMES, made, strict=False)}


def figures(ours: Predicted, theirs: dict[str, Predicted], drawn: Bootstrap) -> dict[str, Any]:
    """Perplexity and accuracy, each as [value, low, high], and beside the trigram's as paired differences.

    Args:
        drawn: resamples of the sequences, by document.
    """
    number = ours.counts.sum(1)

    def accuracy(one: Predicted) -> Any:
        return drawn.ratio(one.right.sum(1), number)

    def energy(one: Predicted) -> Any:
        return drawn.ratio(one.energy.sum(1), number)

    def both(one: Predicted) -> dict[str, Any]:
        perplexity = energy(one).map(np.exp).interval().to_json()
        return {"perplexity": perplexity, "accuracy": accuracy(one).interval().to_json()}

    trigram = theirs["trigram"]
    gain, more = energy(ours) - energy(trigram), accuracy(ours) - accuracy(trigram)
    return {
        "hidden_tokens": int(number.sum()),
        **both(ours),
        **{name: both(one) for name, one in theirs.items()},
        "perplexity_over_trigram": gain.map(np.exp).interval().to_json(),
        "accuracy_above_trigram": more.interval().to_json(),
    }


def calibration(ours: Predicted, drawn: Bootstrap) -> dict[str, Any]:
    """How often the likeliest token is right, where its probability says so and so often.

    Returns:
        "bins", of equal width, each with its number of "tokens", the mean probability ("said") and the share
        that was "right" [value, low, high]; None where there are no tokens. "error": the mean difference of
        the two over tokens (expected calibration error).

    Source: Guo et al., "On calibration of modern neural networks" (2017), section 2.
    """
    assert ours.probability is not None
    number = np.minimum((ours.probability * BINS).astype(int), BINS - 1)
    bins: list[dict[str, Any]] = []
    error = 0.0
    for i in range(BINS):
        inside = ours.counts & (number == i)
        tokens = int(inside.sum())
        one: dict[str, Any] = {"from": i / BINS, "to": (i + 1) / BINS, "tokens": tokens}
        one |= {"said": None, "right": None}
        if tokens:
            right = drawn.ratio((inside & ours.right).sum(1), inside.sum(1)).interval()
            said = float(ours.probability[inside].mean())
            one |= {"said": said, "right": right.to_json()}
            error += tokens * abs(right.value - said) / int(ours.counts.sum())
        bins.append(one)
    return {"error": error, "bins": bins}


def spread(count: int, length: int) -> Sequence[int]:
    """So many places, at most, evenly over a length."""
    count = min(count, length)
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]
