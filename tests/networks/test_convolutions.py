"""Convolutional blocks at any height and width."""

import pytest
import torch
from torch import nn

from ssl_ebm.networks.convolutions import UNet, coordinates, grow_to


def test_coordinates_run_from_edge_to_edge() -> None:
    grid = coordinates(torch.zeros(2, 7, 3, 5, dtype=torch.float64))
    assert grid[1, 0].tolist() == [[-1.0] * 5, [0.0] * 5, [1.0] * 5]
    assert grid[0, 1].tolist() == [[-1.0, -0.5, 0.0, 0.5, 1.0]] * 3


@pytest.mark.parametrize("size", range(1, 12))
def test_coarse_features_lie_above_the_places_they_stand_for(size: int) -> None:
    """Halved (an odd last row with one of zeros) and grown again, place i gets what i // 2 held."""
    coarse = torch.arange((size + 1) // 2, dtype=torch.float32).expand(1, 1, 1, -1)
    grown = grow_to(coarse, torch.zeros(1, 1, 1, size))
    assert grown.flatten().tolist() == [i // 2 for i in range(size)]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (1, 3)])
def test_unet_sees_the_whole_picture_at_every_place(height: int, width: int) -> None:
    torch.manual_seed(0)
    network = UNet(3, 8, levels=3).double()
    x = torch.rand(1, 3, height, width, dtype=torch.float64, requires_grad=True)
    fine, coarse = network(x)
    assert fine.shape == (1, 8, height, width)
    assert coarse.shape == (1, 16, -(-height // 8), -(-width // 8))
    for i, j in [(0, 0), (height - 1, width - 1)]:
        (gradient,) = torch.autograd.grad(fine[0, :, i, j].sum(), x, retain_graph=True)
        assert (gradient.abs().sum(1) > 0).all()


def test_levels_and_blocks_are_those_asked_for() -> None:
    network = UNet(3, 8, levels=2, blocks=3)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    # a stem, and two in each of three blocks at three levels down and two up
    assert len(convolutions) == 1 + 2 * 3 * (3 + 2)
