"""Two hidden words beside each other: their joint energy, and what their two marginals say."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_ebm.evaluation.hidden_tokens import spread
from ssl_ebm.evaluation.statistics import Bootstrap
from ssl_ebm.evaluation.text_examples import Reader, special_ids, whole_words
from ssl_ebm.tasks.masked_text import MaskedText

BATCH = 32  # sequences in a pass
FIRST = 20  # likeliest words at the first place, of which the joint is made
TRIED = 32  # pairs of which the example is chosen
SHOWN = 4  # likeliest pairs of each kind


def pair_energies(
    task: MaskedText, tokens: Tensor, documents: Tensor, resamples: int, seed: int, shown: int = 2
) -> dict[str, Any] | None:
    """Energies of two true words in a row, one pair of a sequence; None where there are none.

        joint      -log p(y1 | x) - log p(y2 | x, y1)
        marginals  -log p(y1 | x) - log p(y2 | x)

    x hides both. Their difference is what the second word owes to the first.

    Args:
        tokens: (N, T) the sequences.
        documents: (N, T) which document each token is of, by number.
        resamples, seed: of the bootstrap over documents.
        shown: examples.

    Returns:
        "pairs", their number; "joint", "marginals" and "gain", the mean difference, in nats as [value, low,
        high], with intervals over documents (see `units`); "examples": those of `shown` texts for which the
        two differ most (see `_examples`).
    """
    rng = np.random.default_rng(seed)
    places = whole_words(task, tokens, 2)
    rows = [i for i, found in enumerate(places) if found]
    if not rows:
        return None
    texts, first = tokens[rows], torch.tensor([int(rng.choice(places[i])) for i in rows])
    truth = torch.stack([texts.gather(1, first[:, None] + k)[:, 0] for k in (0, 1)])  # (2, N)
    one, two = _marginals(task, texts, first, truth)
    after = _log_p(task, _with(task, texts, first, truth[0]), first + 1)
    given = after.gather(1, truth[1][:, None])[:, 0]
    of = documents[rows].gather(1, first[:, None])[:, 0]
    drawn = Bootstrap(of.numpy(), resamples, seed)
    joint, marginals = (drawn.mean(-(one + other).double().numpy()) for other in (given, two))
    return {
        "pairs": len(rows),
        "joint": joint.interval().to_json(),
        "marginals": marginals.interval().to_json(),
        "gain": (marginals - joint).interval().to_json(),
        "examples": _examples(task, texts, first, shown),
    }


def _with(task: MaskedText, texts: Tensor, first: Tensor, word: Tensor | int) -> Tensor:
    """Texts with this first word, and the second one hidden."""
    made = texts.clone()
    at = torch.arange(len(texts))
    made[at, first], made[at, first + 1] = word, task.special.mask
    return made


def _log_p(task: MaskedText, texts: Tensor, places: Tensor) -> Tensor:
    """log p of every token at a place of each text: (N, T), (N,) -> (N, V)."""
    batches = zip(texts.to(task.device).split(BATCH), places.split(BATCH), strict=True)
    return torch.cat([task.log_p(some, place).cpu() for some, place in batches])


def _marginals(task: MaskedText, texts: Tensor, first: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """log p of the true words with both hidden: (N,) each."""
    both = _with(task, texts, first, task.special.mask)
    made = [_log_p(task, both, first + k).gather(1, truth[k][:, None])[:, 0] for k in (0, 1)]
    return made[0], made[1]


def _examples(task: MaskedText, texts: Tensor, first: Tensor, shown: int) -> list[dict[str, Any]]:
    """Texts in which joint and product of marginals differ most.

    How much is the mean over the likeliest first words of KL(p(y2 | x, y1) | p(y2 | x)).

    Each has "before", "after", "truth", "nats" (that mean) and "words": for the likeliest pairs of both kinds
    and the true one, "pair", "energy" and "probability" of the joint, "product" of the marginals; the lowest
    energy first.
    """
    chosen = list(spread(TRIED, len(texts)))
    found = [(_joint(task, texts[i], int(first[i])), i) for i in chosen]
    found.sort(key=lambda one: -one[0][2])
    return [_example(task, texts[i], int(first[i]), *made) for made, i in found[:shown]]


def _joint(task: MaskedText, text: Tensor, place: int) -> tuple[Tensor, Tensor, float, Tensor]:
    """log p of the joint and of the product, (K, V) each, for the likeliest first words and the true one; how
    much they differ, in nats; and these words, (K,)."""
    at = torch.tensor([place])
    both = _with(task, text[None], at, task.special.mask)
    one, two = (_log_p(task, both, at + k)[0] for k in (0, 1))
    words = torch.cat([one.topk(min(FIRST, int(one.isfinite().sum()))).indices, text[place][None]]).unique()
    log_p = one[words]
    many = text.expand(len(words), -1)
    given = _log_p(task, _with(task, many, at.expand(len(words)), words), at.expand(len(words)) + 1)
    weight = log_p.softmax(0)
    apart = torch.where(given.isfinite(), given.exp() * (given - two), 0.0).sum(1)
    return log_p[:, None] + given, log_p[:, None] + two, float(weight @ apart), words


def _example(
    task: MaskedText, text: Tensor, place: int, joint: Tensor, product: Tensor, nats: float, words: Tensor
) -> dict[str, Any]:
    assert task.tokenizer_json is not None
    reader, size = Reader(task.tokenizer_json), joint.shape[1]
    likeliest = {int(i) for kind in (joint, product) for i in kind.flatten().topk(SHOWN).indices}
    likeliest.add(words.tolist().index(int(text[place])) * size + int(text[place + 1]))
    rows = [(float(joint.flatten()[i]), float(product.flatten()[i]), *divmod(i, size)) for i in likeliest]
    before, after = reader.around(text.tolist(), place, 2, special_ids(task))
    return {
        "before": before,
        "after": after,
        "truth": [reader.word(int(text[place + k])) for k in (0, 1)],
        "nats": nats,
        "words": [
            {
                "pair": [reader.word(int(words[k])), reader.word(token)],
                "energy": -one,
                "probability": float(np.exp(one)),
                "product": float(np.exp(other)),
            }
            for one, other, k, token in sorted(rows, reverse=True)
        ],
    }
