"""The layer that picks its product, against torch's own layer."""

from __future__ import annotations

import pytest
import torch

from ssl_ebm.networks import onednn
from ssl_ebm.networks.linear import Linear


@pytest.fixture(autouse=True)
def torchs_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where oneDNN is faster it would take the large ones."""
    monkeypatch.setattr(onednn, "FASTER", False)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 7), (15, 7), (16, 7), (1, 7), (6, 1), (1, 1), (2, 1)])
def test_values_and_gradients_of_two_orders_are_torchs(
    shape: tuple[int, ...], inputs: int, outputs: int
) -> None:
    torch.manual_seed(0)
    ours = Linear(inputs, outputs, dtype=torch.float64)
    theirs = torch.nn.Linear(inputs, outputs, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(*shape[:-1], inputs, dtype=torch.float64, requires_grad=True)
    found = []
    for layer in (ours, theirs):
        y = layer(x)
        first = torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [x, layer.weight])
        found.append([y, *first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("inputs", "made_by"), [(2, "CloneBackward0"), (16, "TBackward0")])
def test_few_inputs_take_a_transposed_copy_of_the_weights(inputs: int, made_by: str) -> None:
    y = Linear(inputs, 7)(torch.randn(4, inputs))
    weights = y.grad_fn.next_functions[2][0]  # type: ignore[union-attr]
    assert type(weights).__name__ == made_by


def test_autocast_and_layers_without_a_bias_are_torchs() -> None:
    x = torch.randn(4, 2)
    for layer in (Linear(2, 1), Linear(2, 3)):
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
    bare = Linear(2, 1, bias=False)
    torch.testing.assert_close(bare(x), x @ bare.weight.T)


def test_another_kind_of_number_is_refused_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="dtype"):
        Linear(2, 1)(torch.randn(4, 2, dtype=torch.float64))


def test_few_inputs_can_be_exported() -> None:
    layer = Linear(3, 2)
    program = torch.export.export(layer, (torch.randn(4, 3),))
    x = torch.randn(4, 3)
    torch.testing.assert_close(program.module()(x), layer(x))
