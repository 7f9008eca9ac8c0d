"""A convolution's gradient in pictures of few channels: torch's own is the truth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

from ssl_ebm.networks.few_channels import FewChannelConv2d, _kept_taps, input_gradient


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((5, 5), (2, 2), (2, 2), (28, 28)),
        ((3, 3), (2, 2), (1, 1), (9, 12)),
        ((3, 3), (1, 1), (1, 1), (8, 7)),
        ((1, 1), (1, 1), (0, 0), (5, 6)),
        ((4, 4), (4, 4), (0, 0), (11, 13)),  # the last rows and columns are not seen
        ((2, 2), (3, 3), (0, 0), (10, 11)),  # pixels between windows are not, either
        ((1, 2), (2, 1), (3, 0), (6, 9)),  # outputs that see padding alone
        ((7, 3), (2, 4), (3, 2), (16, 15)),
    ],
)
def test_the_gradient_is_torchs(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    channels: int,
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, channels, *kernel, dtype=torch.float64)
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    gradient = torch.randn_like(conv2d(x, weight, None, stride, padding))
    expected = conv2d_input(list(x.shape), weight, gradient, stride, padding)
    torch.testing.assert_close(input_gradient(gradient, weight, size, stride, padding), expected)


@pytest.mark.parametrize("size", [(9, 12), (8, 8)])
@pytest.mark.parametrize(("channels", "side"), [(1, 5), (3, 3)])
def test_a_convolution_of_pictures_is_torchs_with_its_gradients_of_every_order(
    size: tuple[int, int], channels: int, side: int
) -> None:
    torch.manual_seed(0)
    ours = FewChannelConv2d(channels, 4, side, stride=2, padding=side // 2).double()
    x = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    made = ours(x)
    assert type(made.grad_fn).__name__ == "_ByBlocksBackward"
    theirs = conv2d(x, ours.weight, ours.bias, 2, side // 2)
    torch.testing.assert_close(made, theirs)
    wanted = [x, ours.weight, ours.bias]
    first = torch.autograd.grad(made.pow(3).sum(), wanted, create_graph=True)
    expected = torch.autograd.grad(theirs.pow(3).sum(), wanted, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), wanted[:2])
    for a, b in zip(
        [*first, *second],
        [*expected, *torch.autograd.grad(expected[0].square().sum(), wanted[:2])],
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_gradient_in_the_picture_is_one_convolution_too() -> None:
    """Torch's own would be an operator of its name."""
    from functorch.compile import make_boxed_func  # no other test needs these
    from torch._dynamo.backends.common import aot_autograd

    operators: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    layer = FewChannelConv2d(1, 4, 5, stride=2, padding=2).requires_grad_(False)
    x = torch.rand(2, 1, 12, 12, requires_grad=True)
    backend = aot_autograd(fw_compiler=lambda graph, _: make_boxed_func(graph.forward), bw_compiler=keep)
    (found,) = torch.autograd.grad(torch.compile(layer, backend=backend)(x).square().sum(), x)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    torch.testing.assert_close(found, expected)
    assert "aten.convolution.default" in operators
    assert "aten.convolution_backward.default" not in operators


def test_gradients_of_shapes_alone_leave_those_of_numbers() -> None:
    """Whoever counts the arithmetic of a step goes on to train in the same process."""
    _kept_taps.cache_clear()

    def gradient() -> torch.Tensor:
        layer = FewChannelConv2d(1, 4, 5, stride=2, padding=2)
        x = torch.rand(2, 1, 28, 28, requires_grad=True)
        torch.manual_seed(0)
        torch.nn.init.normal_(layer.weight)
        return torch.autograd.grad(layer(x).sum(), x)[0]

    with FakeTensorMode():
        gradient()
    made = gradient()
    assert type(made) is torch.Tensor
    torch.manual_seed(0)
    weight = torch.nn.init.normal_(torch.empty(4, 1, 5, 5))
    expected = conv2d_input([2, 1, 28, 28], weight, torch.ones(2, 4, 14, 14), 2, 2)
    torch.testing.assert_close(made, expected)
