"""Predictors of a token from its neighbours' counts: what a masked text autoencoder must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.errors import UserError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
GRID = (0.1, 0.3, 0.5, 0.7, 0.9)  # weights of the longer context that are tried
ROWS = 256  # predictions held at a time
NONE = -1  # in a context: no token stands there, and the context was never seen


class NGrams:
    """Interpolated n-grams: a token from the one or two before it, all orders from the same counts.

        p_1(y) = (c(y) + 1) / (N + V)
        p_2(y | b) = w2 c(b, y) / c(b) + (1 - w2) p_1(y)
        p_3(y | a, b) = w3 c(a, b, y) / c(a, b) + (1 - w3) p_2(y | b)

    A context that was never seen leaves its weight to the next shorter one. What is predicted is p(y | y is
    ordinary): p divided by its sum over ordinary tokens, and 0 for the others. Weights are chosen for that,
    on a part of the text that the counts do not hold (Jelinek and Mercer, "Interpolated estimation of Markov
    source parameters from sparse data", 1980).

    Args:
        tokens: (N,) the training text, documents one after another.
        vocabulary: V.
        order: the longest, 1, 2 or 3.
        held_out: (M,) text to choose the weights on; None: all are 1/2.
        ordinary: (V,) which tokens may be predicted; the others stand in contexts alone. None: all.

    Raises:
        UserError: an order that is not 1, 2 or 3, or too little text.
    """

    def __init__(
        self,
        tokens: Ints,
        vocabulary: int,
        order: int = 3,
        held_out: Ints | None = None,
        ordinary: Bools | None = None,
    ) -> None:
        if order not in (1, 2, 3):
            raise UserError(f"n-grams: order is {order}: use 1, 2 or 3")
        if len(tokens) < order:
            raise UserError(f"n-grams: {len(tokens)} tokens are too few for order {order}")
        self.vocabulary, self.order = vocabulary, order
        self.ordinary: Bools = np.ones(vocabulary, bool) if ordinary is None else ordinary
        tokens = tokens.astype(np.int64)
        self.unigrams: Floats = (np.bincount(tokens, minlength=vocabulary) + 1) / (len(tokens) + vocabulary)
        self._tables = [_Table(tokens, vocabulary, n) for n in range(2, order + 1)]
        self.weights = [0.5] * (order - 1)
        if held_out is not None:
            self._tune(held_out.astype(np.int64))

    def predict(self, before: Ints, order: int | None = None) -> Floats:
        """p(y | the tokens before it): (B, order - 1 or more) -> (B, V); order None: the longest.

        `NONE` stands before the first token, and before nothing else.
        """
        found = np.broadcast_to(self.unigrams, (len(before), self.vocabulary)).copy()
        shorter = (order or self.order) - 1
        for n, (table, weight) in enumerate(zip(self._tables[:shorter], self.weights, strict=False), start=2):
            contexts = before[:, before.shape[1] - (n - 1) :]
            for row, context in enumerate(contexts):
                following, share = table.after(context)
                if len(following):
                    found[row] *= 1 - weight
                    found[row, following] += weight * share
        found *= self.ordinary
        return found / found.sum(1, keepdims=True)

    def _tune(self, text: Ints) -> None:
        """One weight after the other, each the best of `GRID`, by likelihood."""
        text = text[:20_000]
        size = self.order - 1
        if len(text) <= size:
            return
        places = np.arange(size, len(text))
        places = places[self.ordinary[text[places]]]
        if not len(places):
            return
        # Of the true token, and of all ordinary ones: (2, places).
        mixed = np.stack(np.broadcast_arrays(self.unigrams[text[places]], self.unigrams[self.ordinary].sum()))
        for i, table in enumerate(self._tables):
            known = table.known(text, places)
            longer = np.stack([table.likelihood(text, places), table.share(text, places, self.ordinary)])
            tried = [np.where(known, w * longer + (1 - w) * mixed, mixed) for w in GRID]
            best = int(np.argmax([np.log(true / allowed).mean() for true, allowed in tried]))
            self.weights[i], mixed = GRID[best], tried[best]


class _Table:
    """Counts of n tokens in a row, sorted, so that what follows a context is one slice."""

    def __init__(self, tokens: Ints, vocabulary: int, n: int) -> None:
        self.vocabulary, self.n = vocabulary, n
        keys, self.counts = np.unique(self._keys(tokens, n), return_counts=True)
        self.keys: Ints = keys

    def _keys(self, tokens: Ints, n: int) -> Ints:
        """Runs of n tokens as one number each (V^3 < 2^63 for any vocabulary below 2 million)."""
        keys = np.zeros(len(tokens) - n + 1, np.int64)
        for i in range(n):
            keys = keys * self.vocabulary + tokens[i : len(tokens) - n + 1 + i]
        return keys

    def after(self, context: Ints) -> tuple[Ints, Floats]:
        """Tokens that followed the context, and their shares."""
        base = self._base(context[None])[0]
        low, high = np.searchsorted(self.keys, [base, base + self.vocabulary])
        counts = self.counts[low:high]
        return self.keys[low:high] - base, counts / max(counts.sum(), 1)

    def _base(self, contexts: Ints) -> Ints:
        base = np.zeros(len(contexts), np.int64)
        for column in contexts.T:
            base = (base + column) * self.vocabulary
        return base

    def _ranges(self, text: Ints, places: Ints) -> tuple[Ints, Ints, Ints]:
        contexts = np.stack([text[places - self.n + 1 + i] for i in range(self.n - 1)], 1)
        base = self._base(contexts)
        low = np.searchsorted(self.keys, base)
        return base, low, np.searchsorted(self.keys, base + self.vocabulary)

    def known(self, text: Ints, places: Ints) -> Bools:
        """Whether the context before each place was ever seen."""
        _, low, high = self._ranges(text, places)
        return high > low

    def likelihood(self, text: Ints, places: Ints) -> Floats:
        """Share of the token at each place among those that followed its context; 0 for a new context."""
        base, low, high = self._ranges(text, places)
        total = np.concatenate([[0], self.counts.cumsum()])
        all_of_them = total[high] - total[low]
        key = base + text[places]
        at = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        here = np.where(self.keys[at] == key, self.counts[at], 0)
        return here / np.maximum(all_of_them, 1)

    def share(self, text: Ints, places: Ints, chosen: Bools) -> Floats:
        """Share of the chosen (V,) tokens among those that followed the context; 0 for a new context."""
        _, low, high = self._ranges(text, places)
        both = np.stack([self.counts, self.counts * chosen[self.keys % self.vocabulary]])
        total = np.pad(both.cumsum(1), ((0, 0), (1, 0)))
        all_of_them, of_chosen = total[:, high] - total[:, low]
        return of_chosen / np.maximum(all_of_them, 1)


def masked_energies(
    model: NGrams, sequences: Ints, positions: Ints, counts: Bools, before: Ints | None = None
) -> list[tuple[Floats, Bools]]:
    """-log p of hidden tokens by each order, and whether the truth is the likeliest: (B, M) each, in nats.

    A predictor sees the true tokens before the hidden one, hidden or not: that flatters it a little.

    Args:
        model: whose orders are asked, the shortest first.
        sequences: (B, T) the texts, nothing hidden.
        positions: (B, M) the hidden places.
        counts: (B, M) which of them count, ordinary tokens all; the others are 0.
        before: (B, order - 1 or more) the tokens before each sequence, `NONE` where there are none. None:
            nowhere, so that the first places have shorter contexts.
    """
    size = model.order - 1
    known = np.full((len(sequences), size), NONE) if before is None else before[:, before.shape[1] - size :]
    padded = np.concatenate([known, sequences], 1)
    rows, columns = np.nonzero(counts)
    places = positions[rows, columns]
    truth = sequences[rows, places]
    contexts = np.stack([padded[rows, places + i] for i in range(max(size, 1))], 1)
    found = []
    for order in range(1, model.order + 1):
        nats, right = np.zeros(counts.shape), np.zeros(counts.shape, bool)
        for start in range(0, len(truth), ROWS):
            part = slice(start, start + ROWS)
            p = model.predict(contexts[part], order)  # (rows, V)
            nats[rows[part], columns[part]] = -np.log(p[np.arange(len(p)), truth[part]])
            right[rows[part], columns[part]] = p.argmax(1) == truth[part]
        found.append((nats, right))
    return found
