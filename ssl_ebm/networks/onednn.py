"""float32 products of matrices by oneDNN, on a processor.

PyTorch multiplies float32 matrices by MKL there. That is Intel's, and takes 256 bits at a time on another's
processors. AMD's since Zen 5 can do 512: on an EPYC of two cores 191 GFLOP/s by MKL and 429 by oneDNN, more
than 256 bits allow, for matrices of 2,048. On the others that were measured PyTorch's own products are as
fast or faster, and stay. oneDNN's rate over MKL's there, in a layer with its gradients, two cores:

- Intel with AVX-512 (family 6, model 207): 0.69 (128 units, 4,096 items), 0.96 (192 to 768, 1,088 items);
- AMD Zen 4 (family 25, model 17): 0.62 in Langevin dynamics on 128 units;
- AMD without AVX-512: 0.5 (64 units, 256 items).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

from ssl_ebm.networks.processor import this_processor

# An operator that PyTorch's compiler calls: not documented, so where it is missing the usual one is taken.
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

FASTER = (
    HAS_ONEDNN and torch.backends.cpu.get_cpu_capability() == "AVX512" and this_processor().is_amd_since_zen_5
)

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


def linear(layer: nn.Linear, x: Tensor, units: slice | None = None) -> Tensor:
    """What the layer does, to rounding: float32 by oneDNN on a processor that it is `FASTER` on, unless
    ``torch.backends.mkldnn.enabled`` is False: (..., I) -> (..., O).

    Args:
        units: which of its outputs are computed; None: all.
    """
    weight: Tensor = layer.weight
    bias: Tensor | None = layer.bias
    if units is not None:
        weight, bias = weight[units], bias if bias is None else bias[units]
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel() > 0
    if (
        FASTER
        and plain
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    ):
        made: Tensor = _OneDnnLinear.apply(x, weight, bias)
        return made
    return torch_linear(x, weight, bias)
