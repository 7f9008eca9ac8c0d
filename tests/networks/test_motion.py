"""Shifted pictures and block matching, against loops over pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ssl_ebm.networks import block_matching, displacements, moved_by, part_motions, shifted, shifts


def moved(
    picture: NDArray[np.float64], down: int, right: int, continued: bool = False
) -> NDArray[np.float64]:
    """(H, W) moved, with zeros where nothing comes from, or what is nearest to there."""
    result = np.zeros_like(picture)
    height, width = picture.shape
    for i in range(height):
        for j in range(width):
            inside = 0 <= i - down < height and 0 <= j - right < width
            if inside or continued:
                result[i, j] = picture[min(max(i - down, 0), height - 1), min(max(j - right, 0), width - 1)]
    return result


def in_order(radius: int) -> list[tuple[int, int]]:
    """All displacements, the most downward first, then the most rightward."""
    steps = range(radius, -radius - 1, -1)
    return [(down, right) for down in steps for right in steps]


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_displacements_go_from_down_right_to_up_left(radius: int) -> None:
    assert displacements(radius).tolist() == [list(pair) for pair in in_order(radius)]
    assert shifts(radius) == len(in_order(radius))


@pytest.mark.parametrize(("height", "width"), [(5, 7), (8, 4), (1, 2)])
@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("continued", [False, True])
def test_shifted_equals_loops_for_every_displacement(
    height: int, width: int, radius: int, continued: bool, generator: torch.Generator
) -> None:
    pictures = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
    copies = shifted(pictures, radius, continued)
    assert copies.shape == (2, 3, shifts(radius), height, width)
    for s, (down, right) in enumerate(in_order(radius)):
        for item in range(2):
            for depth in range(3):
                expected = moved(pictures[item, depth].numpy(), down, right, continued)
                np.testing.assert_array_equal(copies[item, depth, s].numpy(), expected)


def test_shifted_equals_roll_away_from_the_edges(generator: torch.Generator) -> None:
    picture = torch.zeros(1, 1, 12, 12)
    picture[..., 3:9, 3:9] = torch.rand(6, 6, generator=generator)
    for s, (down, right) in enumerate(displacements(3).tolist()):
        assert torch.equal(shifted(picture, 3)[:, :, s], picture.roll((down, right), (2, 3)))


@pytest.mark.parametrize("cell", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_block_matching_equals_loops(cell: int, channels: int, generator: torch.Generator) -> None:
    before, after = torch.rand(2, 2, channels, 8, 12, generator=generator, dtype=torch.float64)
    cost = block_matching(before, after, 2, cell)
    assert cost.shape == (2, shifts(2), 8 // cell, 12 // cell)
    for item in range(2):
        for s, (down, right) in enumerate(in_order(2)):
            copies = np.stack([moved(colour, down, right, continued=True) for colour in before[item].numpy()])
            error = ((copies - after[item].numpy()) ** 2).mean(0)
            for i in range(8 // cell):
                for j in range(12 // cell):
                    block = error[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell]
                    assert cost[item, s, i, j].item() == pytest.approx(block.sum())


@pytest.mark.parametrize("motion", [(2, -1), (-3, 3), (0, 0), (0, 1)])
def test_block_matching_finds_a_known_motion(motion: tuple[int, int], generator: torch.Generator) -> None:
    wide = torch.rand(1, 3, 26, 30, generator=generator)  # more of a scene than the frames show
    down, right = motion
    before, after = wide[..., 5:21, 5:25], wide[..., 5 - down : 21 - down, 5 - right : 25 - right]
    cost = block_matching(before, after, 3, 4)
    inside = cost[0, :, 1:-1, 1:-1].flatten(1)  # blocks that nothing enters from outside of the frame
    found = displacements(3)[inside.argmin(0)]
    assert found.tolist() == [[down, right]] * inside.shape[1]
    assert inside.amin(0).max() == 0


@pytest.mark.parametrize("motion", [(1, 2), (-2, 0), (3, -3)])
def test_a_pan_over_a_bright_scene_is_recognised(motion: tuple[int, int], generator: torch.Generator) -> None:
    """Smooth textures of mean 0.5, of which the frame shows a part; 12 scenes of 64 x 64 pixels."""
    coarse = torch.rand(12, 3, 15, 15, generator=generator, dtype=torch.float64)
    wide = 0.3 + 0.4 * F.interpolate(coarse, size=(80, 80), mode="bicubic")
    down, right = motion
    before, after = wide[..., 8:72, 8:72], wide[..., 8 - down : 72 - down, 8 - right : 72 - right]
    cost = block_matching(before, after, 3, 4)
    whole = torch.ones(12, 1, 16, 16, dtype=torch.float64)
    found = displacements(3)[part_motions(whole, cost)[:, 0].argmax(-1)]
    assert found.tolist() == [[down, right]] * 12
    of_blocks = displacements(3)[cost.argmin(1)]  # (12, 16, 16, 2)
    at_edges = torch.ones(16, 16, dtype=torch.bool)
    at_edges[1:-1, 1:-1] = False
    right_ones = (of_blocks == torch.tensor(motion)).all(-1)[:, at_edges]
    assert right_ones.double().mean() > 0.75  # with black outside of the frame: half


def test_block_matching_has_no_gradient() -> None:
    before = torch.rand(1, 1, 4, 4, requires_grad=True)
    assert not block_matching(before, before, 1, 2).requires_grad


def test_moved_by_one_displacement_is_the_shifted_copy(generator: torch.Generator) -> None:
    pictures = torch.rand(2, 3, 2, 9, 7, generator=generator, dtype=torch.float64)
    for s in range(shifts(2)):
        motions = F.one_hot(torch.tensor(s), shifts(2)).double().expand(2, 3, -1)
        moved = moved_by(pictures, motions)
        torch.testing.assert_close(moved, shifted(pictures.flatten(1, 2), 2)[:, :, s].view_as(moved))


@pytest.mark.parametrize("exporting", [False, True])
def test_moved_by_a_distribution_is_the_mean_of_the_copies(
    exporting: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    pictures = torch.rand(2, 3, 2, 9, 7, generator=generator, dtype=torch.float64)
    motions = torch.rand(2, 3, shifts(1), generator=generator, dtype=torch.float64).softmax(-1)
    copies = shifted(pictures.flatten(1, 2), 1).unflatten(1, (3, 2))
    torch.testing.assert_close(
        moved_by(pictures, motions), torch.einsum("bms,bmcsij->bmcij", motions, copies)
    )


def test_parts_with_motions_of_their_own_are_told_apart(generator: torch.Generator) -> None:
    before = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    before[..., 4:8, 4:8] = 0.5 + torch.rand(4, 4, generator=generator, dtype=torch.float64) / 2
    before[..., 16:20, 12:16] = 0.5 + torch.rand(4, 4, generator=generator, dtype=torch.float64) / 2
    after = torch.zeros_like(before)
    after[..., 6:10, 3:7] = before[..., 4:8, 4:8]  # 2 down, 1 left
    after[..., 16:20, 14:18] = before[..., 16:20, 12:16]  # 2 right
    upper = torch.zeros(1, 2, 6, 6, dtype=torch.float64)
    upper[:, 0, :3], upper[:, 1, 3:] = 1.0, 1.0
    found = part_motions(10 * upper, block_matching(before, after, 2, 4)).argmax(-1)[0]
    assert displacements(2)[found].tolist() == [[2, -1], [0, 2]]
