"""What the examples measure with, against closed forms and scikit-learn."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ssl_ebm.lecture.training import auroc, batches_of, exponent


def test_exponent_of_a_power_law() -> None:
    distance = torch.linspace(0.1, 2, 50)
    assert exponent(distance, 3.7 * distance**2.5) == pytest.approx(2.5, abs=1e-5)


def test_auroc_is_scikit_learns_also_with_ties_and_huge_values() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(300, generator=generator).round(decimals=1) * 100
    high = (torch.randn(200, generator=generator) + 0.7).round(decimals=1) * 100
    labels = [0] * 300 + [1] * 200
    assert auroc(low, high) == pytest.approx(roc_auc_score(labels, torch.cat([low, high]).numpy()))
    assert auroc(low, low) == pytest.approx(0.5)


def test_batches_are_a_function_of_seed_and_step() -> None:
    data = torch.arange(100.0)[:, None]
    assert torch.equal(batches_of(data, 8, 1)(3), batches_of(data, 8, 1)(3))
    assert not torch.equal(batches_of(data, 8, 1)(3), batches_of(data, 8, 1)(4))
    assert not torch.equal(batches_of(data, 8, 1)(3), batches_of(data, 8, 2)(3))
