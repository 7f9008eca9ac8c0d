"""A linear layer that takes the product its sizes and processor are fastest with.

PyTorch's product with a matrix of 2 to 15 columns is slow on a processor where those lie in rows: the
gradient of 4,096 points of a plane through 128 units takes 0.29 ms, and 0.06 from the transposed copy of the
weights (AMD Zen 4, two cores; 16 columns and more: no difference).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as torch_linear

from ssl_ebm.networks import onednn

NARROW = 16  # columns, from which the order in memory does not matter


class Linear(nn.Linear):
    """`torch.nn.Linear` to rounding: (..., I) -> (..., O). Few inputs and large layers take the products
    that are faster on a processor; all have gradients of every order."""

    def forward(self, x: Tensor) -> Tensor:
        if onednn.FASTER and x.numel() * self.out_features >= onednn.WORTH:
            return onednn.linear(self, x)
        narrow = 1 < self.in_features < NARROW
        if narrow and self.bias is not None and x.ndim > 1 and _plain(x, self.weight):
            made = torch.addmm(self.bias, x.flatten(0, -2), self.weight.t().contiguous())
            return made if x.ndim == 2 else made.unflatten(0, x.shape[:-1])
        return torch_linear(x, self.weight, self.bias)


def _plain(x: Tensor, weight: Tensor) -> bool:
    """Whether both are on a processor and nothing changes what an operator does: no autocast, no compiler."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
