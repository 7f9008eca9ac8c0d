"""The encoder that guesses z from how well y agrees with the decoder's basis."""

import pytest
import torch
from torch import nn

from ssl_ebm.networks import BasisEncoder, Context


def test_sees_the_inner_products_of_what_is_missing_with_the_basis(generator: torch.Generator) -> None:
    h = Context(
        rest=torch.rand(2, 3, 4, 5, generator=generator),
        basis=torch.randn(2, 7, 3 * 4 * 5, generator=generator),
        features=torch.randn(2, 6, generator=generator),
        inertia=torch.empty(0),
        masks=torch.empty(0),
    )
    y = torch.rand(2, 3, 4, 5, generator=generator)
    encoder = BasisEncoder(7, 6, 3)
    encoder.net = nn.Sequential(nn.Identity())
    seen = encoder(y, h)
    for item in range(2):
        missing = y[item] - h.rest[item]
        for n in range(7):
            picture = h.basis[item, n].view(3, 4, 5)
            assert seen[item, n].item() == pytest.approx((missing * picture).sum().item(), abs=1e-4)
    assert torch.equal(seen[:, 7:], h.features)
