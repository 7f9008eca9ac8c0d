"""Probes against scikit-learn, closed forms, and what must never change."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing import (
    AttentivePooling,
    Samples,
    alignment,
    attentive_probe,
    deviation,
    knn_probe,
    lidar,
    linear_probe,
    rank_me,
    regression_probe,
    uniformity,
)
from ssl_ebm.evaluation.probing.logistic import fit_logistic, logistic_loss, logits, standardise
from ssl_ebm.evaluation.probing.probes import choose_penalty
from ssl_ebm.evaluation.probing.results import held_out, share


def problem(count: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features that depend on each other, and noisy classes."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, max(3, width // 4), generator=generator)
    x = hidden @ torch.randn(hidden.shape[1], width, generator=generator)
    x = x + 0.1 * torch.randn(count, width, generator=generator)
    scores = hidden[:, :3] @ torch.randn(3, classes, generator=generator)
    noise = torch.randn(count, classes, generator=generator)
    return standardise(x)[0], (scores + noise).argmax(1)


@pytest.mark.parametrize(("count", "width", "penalty"), [(600, 24, 1e-2), (600, 24, 1e-4), (40, 200, 1e-2)])
def test_logistic_regression_equals_scikit_learn(count: int, width: int, penalty: float) -> None:
    x, y = problem(count, width, 4)
    weights = fit_logistic(x, y, 4, penalty)
    peer = LogisticRegression(C=1 / (count * penalty), max_iter=20_000, tol=1e-10).fit(x.double(), y)
    theirs = torch.from_numpy(np.concatenate([peer.coef_.T, peer.intercept_[None]]))
    best = logistic_loss(x.double(), y, theirs, penalty)
    assert logistic_loss(x, y, weights, penalty) == pytest.approx(best, abs=1e-5)
    assert torch.equal(logits(x, weights).argmax(1), torch.from_numpy(peer.predict(x.double())))
    again = fit_logistic(x, y, 4, penalty, start=weights)
    assert logistic_loss(x, y, again, penalty) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("penalty", [1e-5, 1e-8])
def test_features_of_few_dimensions_can_have_hardly_any_penalty(penalty: float) -> None:
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(600, 64, generator=generator)
    x = few @ torch.randn(64, 512, generator=generator)
    x = (x - x.mean(0)) / x.std(0)
    y = (x[:, 0] + torch.randn(600, generator=generator) > 0).long()
    weights = fit_logistic(x, y, 2, penalty)
    peer = LogisticRegression(C=1 / (600 * penalty), max_iter=20_000, tol=1e-10).fit(x.double(), y)
    theirs = torch.from_numpy(np.vstack([peer.coef_.T, peer.intercept_]))
    both = torch.cat([-0.5 * theirs, 0.5 * theirs], 1)
    assert logistic_loss(x, y, weights, penalty) <= logistic_loss(x.double(), y, both, penalty) + 1e-5


def test_a_linear_probe_chooses_its_penalty_on_training_items() -> None:
    x, y = problem(900, 24, 4)
    train, test = Samples(x[:600], y[:600]), Samples(x[600:], y[600:])
    found = linear_probe(train, test)
    other = linear_probe(train, Samples(x[600:], y[600:].flip(0)))
    assert found.chosen == other.chosen
    seen, unseen = standardise(x[:600], x[600:])
    peer = LogisticRegression(C=1 / (600 * found.chosen["penalty"]), max_iter=20_000, tol=1e-10)
    peer.fit(seen.double(), y[:600])
    assert found.accuracy.value == pytest.approx(peer.score(unseen.double(), y[600:]), abs=1e-9)
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    assert found.confusion.sum() == 300
    assert float(found.confusion.diagonal().sum()) / 300 == pytest.approx(found.accuracy.value)
    assert found.confusion.sum(1).tolist() == y[600:].bincount(minlength=4).tolist()


@pytest.mark.parametrize(("given", "factor"), [((1e-3, 1e-4), 10), ((1e-1, 1.0), 0.1)])
def test_penalties_beyond_those_given_are_tried_while_they_are_better(
    given: tuple[float, ...], factor: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    if factor > 1:  # most of every entry is noise
        y = torch.arange(800) % 4
        signal = torch.randn(4, 200, generator=generator)[y]
        x = (0.25 * signal + torch.randn(800, 200, generator=generator)) / 3
    else:  # the small entries tell the classes
        wide = torch.randn(900, 24, generator=generator)
        x, y = wide * torch.logspace(0, -2, 24), (wide[:, 12:].sum(1) > 0).long()
    held = held_out(y)
    assert held is not None

    def score(penalty: float) -> float:
        count = int((~held).sum())
        peer = LogisticRegression(C=1 / (count * penalty), max_iter=20_000, tol=1e-8)
        return float(peer.fit(x[~held].double(), y[~held]).score(x[held].double(), y[held]))

    edge = max(given) if factor > 1 else min(given)
    wanted = max(sorted(given, reverse=True), key=score)
    assert wanted == edge
    for _ in range(4):
        wanted *= factor if score(wanted * factor) > score(wanted) else 1
    assert wanted == pytest.approx(0.1 if factor > 1 else 1e-5)
    assert choose_penalty(x, y, 4, given) == pytest.approx(wanted)
    assert choose_penalty(x, y, 4, [edge]) == edge


@pytest.mark.parametrize("temperature", [math.inf, 0.07])
def test_nearest_neighbours_equal_scikit_learn(temperature: float) -> None:
    x, y = problem(500, 16, 5)
    train, test = Samples(x[:350], y[:350]), Samples(x[350:], y[350:])

    def votes(distances: np.ndarray) -> np.ndarray:
        return np.exp(-distances / temperature)  # of the cosine distance 1 - s

    peer = KNeighborsClassifier(7, metric="cosine", weights=votes).fit(x[:350].double(), y[:350])
    found = knn_probe(train, test, 7, temperature)
    confused = np.zeros((5, 5), int)
    np.add.at(confused, (y[350:].numpy(), peer.predict(x[350:].double())), 1)
    assert found.confusion.tolist() == confused.tolist()


def test_ridge_equals_scikit_learn() -> None:
    x, _ = problem(300, 12, 2)
    y = torch.stack([x[:, 0] * 2 + x[:, 1], torch.randn(300, generator=torch.Generator().manual_seed(1))], 1)
    train, test = Samples(x[:200], y[:200]), Samples(x[200:], y[200:])
    found = regression_probe(train, test, ["sum", "noise"], (0.1,))
    seen, unseen = standardise(x[:200], x[200:])
    peer = Ridge(alpha=200 * 0.1).fit(seen.double(), y[:200].double())
    wrong = (torch.from_numpy(peer.predict(unseen.double())) - y[200:]).square().sum(0)
    expected = 1 - wrong / (y[200:] - y[200:].mean(0)).double().square().sum(0)
    assert found.r2["sum"].value == pytest.approx(float(expected[0]), abs=1e-6)
    assert found.r2["noise"].value == pytest.approx(float(expected[1]), abs=1e-6)
    assert found.r2["sum"].value > 0.9 > 0.2 > found.r2["noise"].value


def test_an_attentive_probe_finds_the_token_that_a_linear_one_cannot() -> None:
    """One of 16 tokens, marked by its first entry, carries the class; the others' classes are noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (1200,), generator=generator)
    x = torch.randn(1200, 16, 8, generator=generator)
    x[..., 1] = 4 * torch.randint(0, 2, (1200, 16), generator=generator) - 2.0
    place = torch.randint(0, 16, (1200,), generator=generator)
    x[torch.arange(1200), place, 0] = 6
    x[torch.arange(1200), place, 1] = 4 * y - 2.0
    sets = [Samples(part, label) for part, label in ((x[:800], y[:800]), (x[800:], y[800:]))]
    assert attentive_probe(*sets, epochs=40, lr=3e-3).accuracy.value > 0.9
    pooled = [Samples(one.features.mean(1), one.target) for one in sets]
    assert linear_probe(*pooled).accuracy.value < 0.75
    state = torch.get_rng_state()
    again = attentive_probe(*sets, epochs=1)
    assert torch.equal(state, torch.get_rng_state())
    assert again.confusion.tolist() == attentive_probe(*sets, epochs=1).confusion.tolist()


def test_padding_is_nothing_to_an_attentive_probe() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (200,), generator=generator)
    x = torch.randn(200, 6, 8, generator=generator)
    x[..., 0] += 4 * y[:, None]
    size = torch.randint(2, 7, (200,), generator=generator)
    seen = torch.arange(6) < size[:, None]
    padded = torch.cat([x, torch.zeros(200, 30, 8)], 1).masked_fill(
        ~torch.nn.functional.pad(seen, (0, 30))[..., None], 50.0
    )
    short = [Samples(x[part], y[part], seen=seen[part]) for part in (slice(150), slice(150, 200))]
    long = [
        Samples(padded[part], y[part], seen=torch.nn.functional.pad(seen[part], (0, 30)))
        for part in (slice(150), slice(150, 200))
    ]
    ours, theirs, mixed = (attentive_probe(*sets, epochs=6) for sets in (short, long, (short[0], long[1])))
    assert ours.predicted.tolist() == theirs.predicted.tolist() == mixed.predicted.tolist()
    assert ours.accuracy.value > 0.8
    means = torch.stack([row[:number].mean(0) for row, number in zip(x[:150], size, strict=False)])
    for one in (short[0], long[0]):
        torch.testing.assert_close(one.pooled(), means)
    torch.manual_seed(0)
    head = AttentivePooling(8, 2)
    for row, number in zip(x[:5], size, strict=False):
        mask = torch.arange(6) < number
        torch.testing.assert_close(head(row[None], mask[None]), head(row[None, :number]))


def test_attentive_pooling_is_the_formula() -> None:
    torch.manual_seed(0)
    head = AttentivePooling(6, 3, heads=2)
    tokens = torch.randn(2, 5, 6)
    x = head.norm(tokens)
    key, value = head.key_value(x).chunk(2, 2)
    read = []
    for h in (slice(0, 3), slice(3, 6)):
        weight = (key[..., h] @ head.query[h] / math.sqrt(3)).softmax(1)
        read.append((weight[..., None] * value[..., h]).sum(1))
    torch.testing.assert_close(head(tokens), head.scores(torch.cat(read, 1)))


def test_effective_rank() -> None:
    turn = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0)))[0]
    x = torch.zeros(50, 20)
    x[:20, :4] = turn[:, :4]  # four equal singular values, the rest 0
    assert rank_me(x @ turn) == pytest.approx(4, abs=1e-3)
    assert rank_me(torch.ones(50, 20)) == pytest.approx(1, abs=1e-3)
    values = np.linalg.svd(problem(60, 12, 2)[0].double().numpy(), compute_uv=False)
    share_of = values / values.sum()
    expected = np.exp(-(share_of * np.log(share_of)).sum())
    assert rank_me(problem(60, 12, 2)[0]) == pytest.approx(expected, rel=1e-4)


def test_lidar_counts_the_directions_that_tell_objects_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    objects = torch.randn(3000, 1, 8, generator=generator)
    objects[..., 3:] = 0  # three directions differ between objects
    views = objects + 0.1 * torch.randn(3000, 4, 8, generator=generator)
    assert lidar(views) == pytest.approx(3, abs=0.15)
    assert lidar(torch.randn(3000, 4, 8, generator=generator)) == pytest.approx(8, abs=0.3)


def test_spread_on_the_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    even = torch.randn(4000, 16, generator=generator)
    assert deviation(even) == pytest.approx(1, abs=0.02)
    assert deviation(torch.ones(9, 16)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.ones(9, 16)) == pytest.approx(0, abs=1e-6)
    pair = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # squared distance 2
    assert uniformity(pair) == pytest.approx(-4)
    assert alignment(torch.stack([pair[:1], pair[1:]], 1)) == pytest.approx(2)
    assert alignment(torch.stack([pair, 3 * pair], 1)) == pytest.approx(0, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(2, 40))
def test_held_out_items_leave_every_class_on_both_sides(classes: int, count: int) -> None:
    y = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(count))
    held = held_out(y)
    if held is None:
        assert y.bincount().clamp_min(1).min() == 1
        return
    assert set(y[held].tolist()) == set(y[~held].tolist()) == set(y.tolist())


def test_windows_of_one_clip_are_not_independent() -> None:
    right = torch.tensor([1.0, 0.0]).repeat_interleave(50).repeat(5)
    alone = share(right, None)
    together = share(right, torch.arange(10).repeat_interleave(50))
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert share(right, torch.arange(500)) == alone


def test_what_cannot_be_probed_is_named() -> None:
    x, y = problem(30, 4, 3)
    good = Samples(x, y)
    for wrong, message in (
        (lambda: Samples(x[:5], y), "one label for each"),
        (lambda: Samples(x * math.nan, y), "not finite"),
        (lambda: Samples(x, y, seen=torch.ones(30, 2).bool()), "one value of seen for each token"),
        (lambda: Samples(x[:, None], y, seen=torch.arange(30)[:, None] > 0), "no token but padding"),
        (lambda: linear_probe(Samples(x, y * 0), good), "of one class"),
        (lambda: linear_probe(Samples(x[:2], torch.tensor([0, 2])), good), "for 3 classes"),
        (lambda: linear_probe(Samples(x[:, :2], y), good), "from one layer"),
        (lambda: knn_probe(Samples(x, x), good), "no classes"),
        (lambda: knn_probe(good, good, 0), "neighbours is 0"),
        (lambda: linear_probe(good, good, ()), "give one or more"),
        (lambda: knn_probe(Samples(x, y - 1), good), "label is -1, .* wrap the data in .*LabelledShare"),
        (lambda: linear_probe(good, Samples(x, y - 1)), "label is -1"),
        (lambda: regression_probe(good, Samples(x, torch.ones(30, 1)), ["a"]), "same for all"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()


def test_windows_of_a_clip_are_held_out_together() -> None:
    clips = torch.tensor([7, 7, 3, 3, 3, 9, 9, 1, 1, 4, 4, 4, 8, 8, 2, 2, 6, 6, 5, 5, 5])
    classes = (clips % 2).long()
    for target in (classes, clips.double()):
        held = held_out(target, clips, parts=2)
        assert held is not None
        assert set(clips[held].tolist()).isdisjoint(clips[~held].tolist())
        assert 0 < int(held.sum()) < len(clips)
    assert set(classes[held_out(classes, clips)].tolist()) == {0, 1}  # type: ignore[index]
    assert held_out(classes, torch.zeros(21)) is None
    of_two_classes = torch.tensor([0, 0, 1, 1]), torch.tensor([5, 6, 5, 6])
    assert set(of_two_classes[0][~held_out(*of_two_classes)].tolist()) == {0, 1}  # type: ignore[index, operator]
    assert (
        held_out(torch.tensor([0, 2, 0, 0, 1, 1]), torch.tensor([1, 1, 2, 3, 4, 5])) is None
    )  # 2 is held out
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(held_out(order % 3, order), held_out(order % 3))  # type: ignore[arg-type]


def test_a_penalty_is_chosen_for_new_clips() -> None:
    """60 clips of 10 windows that are nearly alike: what foresees other windows of a clip is its picture."""
    generator = torch.Generator().manual_seed(0)

    def clips(count: int) -> Samples:
        clip = torch.randn(count, 64, generator=generator, dtype=torch.float64)
        value = 0.5 * clip[:, :4].sum(1, keepdim=True) + torch.randn(count, 1, generator=generator)
        windows = clip.repeat_interleave(10, 0)
        windows = windows + 0.05 * torch.randn(windows.shape, generator=generator, dtype=torch.float64)
        return Samples(windows, value.repeat_interleave(10, 0), torch.arange(count).repeat_interleave(10))

    train, test = clips(60), clips(100)
    alone = Samples(train.features, train.target)
    assert regression_probe(alone, test, ["a"]).chosen["penalty"] == 1e-3
    assert regression_probe(alone, test, ["a"]).r2["a"].value < -0.3
    assert regression_probe(train, test, ["a"]).chosen["penalty"] >= 0.1
    assert regression_probe(train, test, ["a"]).r2["a"].value > 0


def test_a_target_that_does_not_vary_in_training_spoils_no_other() -> None:
    x, _ = problem(200, 8, 3)
    y = torch.stack([x @ torch.arange(8.0), torch.full((200,), 0.1)], 1)
    test = Samples(x, y + torch.tensor([0.0, 1.0]) * torch.randn(200, 1))
    found = regression_probe(Samples(x, y), test, ["a", "b"])
    assert found.r2["a"].value > 0.99
