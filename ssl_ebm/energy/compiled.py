"""An energy whose value and gradient are computed by one compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm.errors import UserError, in_one_line

GRAPHS = 64  # in one process


class CompiledEnergy(nn.Module):
    """An energy, and one graph for E(y) and dE/dy, by torch.compile. Same weights, which may go on learning.

        Langevin(0.01).sample(CompiledEnergy(energy), start, steps=1000)

    All samplers of `ssl_ebm.energy.sampling` take it; called itself it is the energy as it was. It saves the
    way through Python and autograd, and what elementwise functions write between them: the more, the smaller
    the network. The first call waits for the compiler, some seconds to a minute, and so does the first with
    another number of chains.

    Args:
        energy: (N, *S) -> (N,), each item's own.
        backend: of torch.compile.

    Raises:
        UserError: on a call of `with_gradient`: this energy, or anything on this machine, cannot be compiled.
    """

    def __init__(self, energy: nn.Module, backend: str = "inductor") -> None:
        super().__init__()
        self.energy = energy
        self.backend = backend
        self._compiled: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def forward(self, y: Tensor) -> Tensor:
        energies: Tensor = self.energy(y)
        return energies

    def with_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """E (N,) and dE/dy (N, *S), both without graph; y is (N, *S), floating point."""
        from torch._dynamo.exc import TorchDynamoException  # half of what importing torch takes

        try:
            if self._compiled is None:
                # All energies share this code, each has a graph or more of it, and past the limit none.
                torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
                both = torch.func.grad(self._sum_and_each, has_aux=True)
                self._compiled = torch.compile(both, fullgraph=True, backend=self.backend)
            with torch.no_grad():
                gradient, energies = self._compiled(y)
        except TorchDynamoException as error:
            self.energy(y)  # where it raises itself, that is what is wrong
            raise UserError(
                f"{type(self.energy).__name__} cannot be compiled here, so sample from it without "
                f"CompiledEnergy: {in_one_line(error)}"
            ) from error
        return energies, gradient

    def _sum_and_each(self, y: Tensor) -> tuple[Tensor, Tensor]:
        energies = self.energy(y)
        return energies.sum(), energies

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compiled": None}  # copies and other processes compile for themselves
