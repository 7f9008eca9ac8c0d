"""Products by oneDNN against PyTorch's own."""

import pytest
import torch

from ssl_ebm.networks import onednn
from ssl_ebm.networks.linear import Linear
from ssl_ebm.networks.onednn import HAS_ONEDNN, linear, multiply


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's products are taken, on this processor too."""
    monkeypatch.setattr(onednn, "FASTER", True)


@pytest.mark.skipif(not HAS_ONEDNN, reason="this PyTorch lacks the operator")
@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("shape", [(3, 7, 6), (5, 6)])
def test_linear_is_torchs_with_its_gradients_of_first_and_second_order(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for outputs in (4, 9):
        layer = torch.nn.Linear(6, outputs)
        x = torch.randn(shape, requires_grad=True)
        found = []
        for enabled in (True, False):  # by oneDNN, and as torch has it
            with torch.backends.mkldnn.flags(enabled=enabled):  # type: ignore[no-untyped-call]
                y = linear(layer, x)
                first = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], create_graph=True)
                second = torch.autograd.grad(first[0].square().sum(), [x, layer.weight])
                found.append([y, *first, *second])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not HAS_ONEDNN, reason="this PyTorch lacks the operator")
@pytest.mark.usefixtures("faster")
def test_a_layer_takes_onednn_where_it_is_worth_it() -> None:
    layer = Linear(32, 4)
    for rows, kind in ((3, "AddmmBackward0"), (onednn.WORTH // 128, "_OneDnnLinearBackward")):
        x = torch.randn(rows, 32)
        y = layer(x)
        assert type(y.grad_fn).__name__ == kind
        torch.testing.assert_close(y, torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_a_processor_that_gains_nothing_keeps_torchs_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "FASTER", False)
    y = Linear(32, 4)(torch.randn(onednn.WORTH // 128, 32))
    assert type(y.grad_fn).__name__ == "AddmmBackward0"


@pytest.mark.skipif(not HAS_ONEDNN, reason="this PyTorch lacks the operator")
def test_products_are_torchs() -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    torch.testing.assert_close(multiply(a, b), a @ b)
