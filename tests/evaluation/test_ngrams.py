"""n-grams against counting by hand."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.ngrams import GRID, NONE, NGrams, masked_energies

V = 12


def text(count: int, seed: int = 0) -> np.ndarray:
    """A chain in which a token depends on the two before it."""
    rng = np.random.default_rng(seed)
    made = [0, 1]
    for _ in range(count - 2):
        likely = (made[-1] * 5 + made[-2] * 3) % V
        made.append(likely if rng.random() < 0.7 else int(rng.integers(V)))
    return np.array(made)


def by_hand(tokens: np.ndarray, a: int, b: int, w2: float, w3: float) -> np.ndarray:
    ones, twos, threes = (
        Counter(zip(*(tokens[i:].tolist() for i in range(n)), strict=False)) for n in (1, 2, 3)
    )
    p = np.array([(ones[(y,)] + 1) / (len(tokens) + V) for y in range(V)])
    for counts, context, w in ((twos, (b,), w2), (threes, (a, b), w3)):
        total = sum(counts[(*context, y)] for y in range(V))
        if total:
            p = np.array([w * counts[(*context, y)] / total + (1 - w) * p[y] for y in range(V)])
    return p


def test_probabilities_are_counts() -> None:
    tokens = text(300)
    model = NGrams(tokens, V, 3)
    before = np.array([[0, 1], [5, 5], [11, 3]])
    found = model.predict(before)
    for (a, b), p in zip(before.tolist(), found, strict=True):
        np.testing.assert_allclose(p, by_hand(tokens, a, b, 0.5, 0.5), atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_context_never_seen_leaves_its_weight() -> None:
    model = NGrams(np.array([1, 2, 3, 1, 2, 4]), V, 3)
    np.testing.assert_allclose(model.predict(np.array([[9, 9]]))[0], model.unigrams)


def test_weights_are_the_likeliest_of_the_grid() -> None:
    tokens, held = text(3000), text(400, seed=1)
    model = NGrams(tokens, V, 3, held)

    def nats(w2: float, w3: float) -> float:
        runs = zip(held, held[1:], held[2:], strict=False)
        return float(np.mean([np.log(by_hand(tokens, a, b, w2, w3)[y]) for a, b, y in runs]))

    assert model.weights[1] == max(GRID, key=lambda w: nats(model.weights[0], w))
    assert model.weights[1] > 0.5


ORDINARY = np.arange(V) > 3


def test_what_is_not_ordinary_is_context_alone() -> None:
    tokens = text(300)
    model = NGrams(tokens, V, 3, ordinary=ORDINARY)
    before = np.array([[0, 1], [5, 5], [11, 3], [4, 2]])
    found = model.predict(before)
    for (a, b), p in zip(before.tolist(), found, strict=True):
        expected = by_hand(tokens, a, b, 0.5, 0.5) * ORDINARY
        np.testing.assert_allclose(p, expected / expected.sum(), atol=1e-12)
    sequences = tokens[:60].reshape(3, 20)
    positions = np.tile(np.arange(2, 20), (3, 1))
    counts = ORDINARY[sequences[:, 2:]]
    assert not counts.all()
    (*_, (nats, right)) = masked_energies(model, sequences, positions, counts)
    for row, m in zip(*np.nonzero(counts), strict=True):
        p = by_hand(tokens, *sequences[row, m : m + 2].tolist(), 0.5, 0.5) * ORDINARY
        assert nats[row, m] == pytest.approx(-np.log(p[sequences[row, m + 2]] / p.sum()))
        assert right[row, m] == (p.argmax() == sequences[row, m + 2])


def test_weights_are_the_likeliest_for_ordinary_tokens() -> None:
    """After 5 comes 6, if a token that counts: nine times of ten it is 0, which does not."""
    rng = np.random.default_rng(0)
    made = [5]
    for _ in range(4000):
        made.append(int(rng.choice([0, 6], p=[0.9, 0.1]) if made[-1] == 5 else rng.integers(4, 8)))
    tokens = np.array(made)
    held = np.array([5, 6] * 100 + [4, 1] * 100)  # 1 is new: it would ask for the unigram, if it counted

    def nats(w2: float) -> float:
        found = []
        for b, y in pairwise(held):
            p = by_hand(tokens, 0, b, w2, 0.0) * ORDINARY
            found += [np.log(p[y] / p.sum())] if ORDINARY[y] else []
        return float(np.mean(found))

    assert NGrams(tokens, V, 2, held, ORDINARY).weights == [max(GRID, key=nats)]
    assert NGrams(tokens, V, 2, held).weights != [max(GRID, key=nats)]


def test_orders_of_one_count_are_those_of_their_own() -> None:
    tokens, before = text(300), np.array([[0, 1], [5, 5], [11, 3]])
    model = NGrams(tokens, V, 3)
    for order in (1, 2):
        np.testing.assert_allclose(model.predict(before, order), NGrams(tokens, V, order).predict(before))


def test_longer_contexts_predict_better_and_energies_are_of_each_hidden_token() -> None:
    tokens, held = text(4000), text(200, seed=1)
    model = NGrams(tokens, V, 3, text(300, 2))
    sequences = held.reshape(10, 20)
    positions = np.tile(np.array([[2, 7, 19]]), (10, 1))
    counts = np.ones((10, 3), bool)
    counts[0, 0] = False
    (one, _), (two, _), (nats, right) = masked_energies(model, sequences, positions, counts)
    assert one.sum() > two.sum() > nats.sum()
    assert right[counts].mean() > 0.5
    for row, m in np.ndindex(10, 3):
        if not counts[row, m]:
            assert (nats[row, m], right[row, m]) == (0, False)
            continue
        place = positions[row, m]
        p = by_hand(tokens, *sequences[row, place - 2 : place].tolist(), *model.weights)
        assert nats[row, m] == pytest.approx(-np.log(p[sequences[row, place]]))
        assert right[row, m] == (p.argmax() == sequences[row, place])


def test_the_first_places_of_a_sequence_have_the_tokens_before_it_as_context() -> None:
    tokens, held = text(4000), text(200, seed=1)
    model = NGrams(tokens, V, 3)
    sequences, positions = held.reshape(10, 20), np.tile(np.arange(2), (10, 1))
    before = np.concatenate([[[NONE, NONE]], sequences[:-1, -2:]])
    (_, (two, _), (three, _)) = masked_energies(model, sequences, positions, np.ones((10, 2), bool), before)
    for row in range(1, 10):
        for place in range(2):
            at = 20 * row + place
            p = by_hand(tokens, *held[at - 2 : at].tolist(), 0.5, 0.5)
            assert three[row, place] == pytest.approx(-np.log(p[held[at]]))
    one = masked_energies(NGrams(tokens, V, 1), sequences, positions, np.ones((10, 2), bool))[0][0]
    assert two[0, 0] == three[0, 0] == pytest.approx(one[0, 0])  # nothing stands before
    assert three[0, 1] == pytest.approx(two[0, 1])  # one token is the context of no trigram


@pytest.mark.parametrize(("order", "tokens", "says"), [(4, 10, "1, 2 or 3"), (3, 2, "too few")])
def test_orders_and_texts_that_do_not_fit(order: int, tokens: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        NGrams(np.zeros(tokens, np.int64), V, order)
