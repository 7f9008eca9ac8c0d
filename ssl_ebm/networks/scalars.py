"""Networks of vectors: energies of points, perceptrons, dictionaries. Smooth: sampling and score matching
need first and second derivatives, so units are SiLU."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks.linear import Linear
from ssl_ebm.networks.stages import PairedStages


class Mlp(nn.Module):
    """Linear layers with SiLU between them, on the last dimension: (..., inputs) -> (..., outputs).

    Args:
        inputs, outputs: sizes, 1 or more.
        width: of the hidden layers.
        depth: number of hidden layers, 0 or more.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 128, depth: int = 2) -> None:
        if min(inputs, outputs, width) < 1 or depth < 0:
            raise UserError(
                f"Mlp: inputs {inputs}, outputs {outputs}, width {width}, depth {depth}: use at least 1, and "
                "0 for the depth"
            )
        super().__init__()
        sizes = [inputs] + [width] * depth + [outputs]
        layers: list[nn.Module] = []
        for i, (into, out) in enumerate(pairwise(sizes)):
            layers += [nn.SiLU()] if i else []
            layers.append(Linear(into, out))
        self.layers = PairedStages(*layers)

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer sees: (..., inputs) -> (..., width)."""
        made: Tensor = self.layers(x, len(self.layers) - 1)
        return made

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers[-1](self.hidden(x))
        return out


class PointEnergy(nn.Module):
    """F(y) = Mlp(y, sin and cos of y times 1, 2, 4, ...) + confine / 2 |y|^2: (B, dim) -> (B,).

    Args:
        dim: of y.
        width, depth: of the hidden layers.
        confine: 0 or more; above 0 exp(-F) can be integrated, whatever the network does far away, for that is
            linear with SiLU.
        frequencies: number of sines and cosines of each entry of y, 0 or more: without them narrow ridges are
            learnt slowly (Tancik et al., "Fourier features let networks learn high frequency functions",
            2020).

    Raises:
        UserError: a setting out of its range, or a y of another size.
    """

    frequencies: Tensor

    def __init__(
        self, dim: int = 2, width: int = 128, depth: int = 2, confine: float = 0.0, frequencies: int = 0
    ) -> None:
        super().__init__()
        if not (confine >= 0 and frequencies >= 0):
            raise UserError(f"PointEnergy: confine is {confine} and frequencies {frequencies}: use 0 or more")
        self.network = Mlp(dim * (1 + 2 * frequencies), 1, width, depth)
        self.register_buffer("frequencies", 2.0 ** torch.arange(frequencies)[:, None], persistent=False)
        self.dim = dim
        self.confine = confine

    def features(self, y: Tensor) -> Tensor:
        """The last hidden layer: (B, dim) -> (B, width)."""
        return self.network.hidden(self._waves(y))

    def forward(self, y: Tensor) -> Tensor:
        if y.ndim != 2 or y.shape[1] != self.dim:
            raise UserError(f"PointEnergy: y must be (batch, {self.dim}), got {tuple(y.shape)}")
        energy: Tensor = self.network(self._waves(y))[:, 0]
        return torch.add(energy, (y * y).sum(1), alpha=0.5 * self.confine) if self.confine else energy

    def _waves(self, y: Tensor) -> Tensor:
        """(B, dim) -> (B, dim (1 + 2 frequencies))."""
        if not len(self.frequencies):
            return y
        angles = (y[:, None] * self.frequencies).flatten(1)
        return torch.cat([y, angles.sin(), angles.cos()], 1)


class Dictionary(nn.Module):
    """W z with columns of norm 1, whatever training does: (..., atoms) -> (..., outputs).

    Args:
        outputs: P, numbers in a y.
        atoms: K, columns.

    Raises:
        UserError: a setting below 1.
    """

    def __init__(self, outputs: int, atoms: int) -> None:
        super().__init__()
        if outputs < 1 or atoms < 1:
            raise UserError(f"Dictionary: outputs {outputs}, atoms {atoms}: use at least 1")
        self.columns = nn.Parameter(torch.randn(outputs, atoms))

    def matrix(self) -> Tensor:
        """W (P, K)."""
        return self.columns / self.columns.norm(dim=0).clamp_min(torch.finfo(self.columns.dtype).tiny)

    def curvature(self) -> float:
        """2 |W|^2 (spectral norm), the largest curvature of |y - W z|^2 in z. Waits for the device."""
        return 2 * float(torch.linalg.matrix_norm(self.matrix().detach(), 2)) ** 2

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.matrix().T
