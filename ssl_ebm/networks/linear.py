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
    that are faster on a processor; all have gradients of every order.

    Compiled with weights that do not learn, as in `ssl_ebm.energy.CompiledEnergy`, few inputs do so, too, and
    one output is a sum, which the compiler makes in one pass with the functions around it.
    """

    def forward(self, x: Tensor) -> Tensor:
        compiled = torch.compiler.is_compiling()
        if onednn.FASTER and not compiled and x.numel() * self.out_features >= onednn.WORTH:
            return onednn.linear(self, x)
        if self.bias is not None and x.ndim > 1 and _plain(x, self.weight):
            learns = self.weight.requires_grad or torch.compiler.is_exporting()
            if self.out_features == 1 and compiled and not learns:
                return (x * self.weight[0]).sum(-1, keepdim=True) + self.bias
            if 1 < self.in_features < NARROW and not (compiled and learns):
                made = torch.addmm(self.bias, x.flatten(0, -2), self._columns(compiled))
                return made if x.ndim == 2 else made.unflatten(0, x.shape[:-1])
        return torch_linear(x, self.weight, self.bias)

    def _columns(self, compiled: bool) -> Tensor:
        """The weights the other way round in memory, (I, O)."""
        if not compiled:
            return self.weight.t().contiguous()
        # The compiler makes a transposed copy in the order that there was; this it has to write anew.
        return torch.cat(self.weight.unbind(1)).view(self.in_features, self.out_features)


def _plain(x: Tensor, weight: Tensor) -> bool:
    """Whether both are on a processor, of the same kind of number and without autocast."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and not torch.is_autocast_enabled("cpu")
    )
