"""float32 products of matrices by oneDNN, on a processor.

PyTorch multiplies float32 matrices by MKL there. On a processor that is not Intel's MKL leaves AVX-512
alone, and can be half as fast as oneDNN: on an AMD EPYC of two cores, 191 against 429 GFLOP/s for matrices of
2,048. On an older one, without AVX-512, MKL is the faster: 77 against 62 GFLOP/s on one core, and 28 against
14 in a layer of 64 units for 256 items. There PyTorch's own products stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

# An operator that PyTorch's compiler calls: not documented, so where it is missing the usual one is taken.
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

FASTER = HAS_ONEDNN and torch.backends.cpu.get_cpu_capability() == "AVX512"

WORTH = 2**20  # multiplications: below, a product takes less than the calls around it


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) times b (K, N), float32 on a processor, by oneDNN; needs `HAS_ONEDNN`."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return made


class _OneDnnLinear(torch.autograd.Function):
    """x (..., I), weight (O, I), bias (O) or None -> (..., O). Its gradient is made of itself, so that it has
    gradients of every order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows, gradients = x.flatten(0, -2), gradient.flatten(0, -2)
        product = _OneDnnLinear.apply
        along = None
        if of_weight:  # oneDNN is faster where the second of the two has more columns
            wide = weight.shape[0] >= weight.shape[1]
            along = (
                product(rows.t(), gradients.t(), None).t() if wide else product(gradients.t(), rows.t(), None)
            )
        return (
            product(gradient, weight.t(), None) if of_x else None,
            along,
            gradients.sum(0) if of_bias else None,
        )


class Linear(nn.Linear):
    """`torch.nn.Linear` that takes oneDNN's product where it is worth the way there: see `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        if FASTER and x.numel() * self.out_features >= WORTH:
            return linear(self, x)
        return torch_linear(x, self.weight, self.bias)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """What the layer does, to rounding: float32 by oneDNN on a processor that it is `FASTER` on, unless
    ``torch.backends.mkldnn.enabled`` is False."""
    weight = layer.weight
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel() > 0
    if (
        FASTER
        and plain
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    ):
        made: Tensor = _OneDnnLinear.apply(x, weight, layer.bias)
        return made
    return torch_linear(x, weight, layer.bias)
