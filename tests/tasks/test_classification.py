"""Mixed-up batches against closed form; votes against scikit-learn."""

import numpy as np
import torch
from sklearn.metrics import accuracy_score, confusion_matrix
from torch.nn.functional import cross_entropy

from ssl_ebm.tasks.classification import Votes, mixed_up


def test_inputs_and_targets_are_mixed_alike(seed: int) -> None:
    """Of one-hot inputs the mixture can be read: w at itself, 1 - w at its partner, one w for the batch."""
    for _ in range(20):
        x, targets = mixed_up(torch.eye(6), torch.eye(6), 0.5)
        assert torch.equal(x, targets)
        w = x.diagonal()[x.diagonal() < 1]
        assert torch.allclose(x.sum(1), torch.ones(6))
        assert torch.allclose(x.sum(0), torch.ones(6))  # the partners are a permutation
        assert torch.allclose(w, w[:1].expand_as(w))
        assert int((x > 0).sum(1).max()) <= 2


def test_weights_have_the_moments_of_a_beta_distribution(seed: int) -> None:
    """Mean 1 / 2, variance 1 / (4 (2 a + 1))."""
    for strength in (0.4, 1.0):
        drawn = []
        while len(drawn) < 4000:
            x, _ = mixed_up(torch.eye(2), torch.eye(2), strength)
            if x[0, 1] > 0 or x[0, 0] < 1:  # else the two were not exchanged
                drawn.append(float(x[0, 0]))
        assert abs(np.mean(drawn) - 0.5) < 0.02
        assert abs(np.var(drawn) - 1 / (4 * (2 * strength + 1))) < 0.006


def test_the_loss_of_mixed_targets_is_the_mixture_of_losses(seed: int) -> None:
    """Zhang et al. (2018), section 2: w l(f, y) + (1 - w) l(f, y'), also with smoothed labels."""
    labels = torch.tensor([0, 2, 1, 2])
    places, targets = mixed_up(torch.eye(4), torch.nn.functional.one_hot(labels, 3).float(), 1.0)
    logits = torch.randn(4, 3)
    found = cross_entropy(logits, targets, label_smoothing=0.1)
    each = torch.stack(  # the loss of every item with every label
        [cross_entropy(logits, y.expand(4), label_smoothing=0.1, reduction="none") for y in labels], 1
    )
    torch.testing.assert_close(found, (places * each).sum(1).mean())


def test_a_clip_has_one_vote_and_a_repeated_item_too(seed: int) -> None:
    units = torch.tensor([4, 4, 4, 1, 9, 9, 2, 7, 5, 3])
    label_of = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    probability = torch.rand(10, 3).softmax(1)
    votes = Votes()
    for some in torch.arange(10).split(4):
        votes.update(probability[some], label_of[units[some]], units[some], units[some] // 3 + 50)
    votes.update(
        probability[6:8], label_of[units[6:8]], units[6:8], units[6:8] // 3 + 50
    )  # as another process
    found = votes.compute()
    assert found.group is not None
    assert found.group.tolist() == [50, 50, 51, 51, 51, 52, 53]
    assert found.unit.tolist() == [1, 2, 3, 4, 5, 7, 9]
    wanted = [int(probability[units == unit].mean(0).argmax()) for unit in found.unit]
    assert found.predicted.tolist() == wanted
    assert found.label.tolist() == label_of[found.unit].tolist()
    assert found.confusion(3).tolist() == confusion_matrix(found.label, wanted, labels=[0, 1, 2]).tolist()
    assert float(found.right.double().mean()) == accuracy_score(found.label, wanted)
