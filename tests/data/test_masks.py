"""Masks: how much they hide, where, and that they are those of the generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_ebm.data.masks import Blocks, Half, Mask, MaskFile, RandomPatches, Strokes
from ssl_ebm.errors import UserError

SIZE = (24, 30)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mask", [RandomPatches(), Blocks(), Half(), Strokes()])
def test_masks_are_those_of_the_generator(mask: Mask) -> None:
    drawn = mask.draw(64, SIZE, seeded())
    assert drawn.shape == (64, 1, *SIZE)
    assert drawn.dtype == torch.bool
    assert torch.equal(drawn, mask.draw(64, SIZE, seeded()))
    assert not torch.equal(drawn, mask.draw(64, SIZE, seeded(1)))
    assert len(torch.unique(drawn.flatten(1), dim=0)) > 1
    assert bool((drawn.flatten(1).any(1) & ~drawn.flatten(1).all(1)).all())


@pytest.mark.parametrize("size", [(24, 30), (23, 29)])
def test_patches_hide_whole_squares_as_many_in_each_image_and_all_alike(size: tuple[int, int]) -> None:
    mask = RandomPatches(0.6, patch=6)
    drawn = mask.draw(4000, size, seeded())[:, 0]
    corners = [(top, left) for top in range(0, 24, 6) for left in range(0, 30, 6)]
    cut = [drawn[:, top : top + 6, left : left + 6] for top, left in corners]
    squares = torch.stack([one.flatten(1).float().mean(1) for one in cut], 1)
    assert set(squares.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(squares.sum(1), torch.full((4000,), 12.0))
    assert mask.hidden(size) == 12
    error = (0.6 * 0.4 / 4000) ** 0.5
    assert float((squares.mean(0) - 0.6).abs().max()) < 4.5 * error
    # of two squares both: 12 * 11 / (20 * 19), as in draws without replacement
    pairs = squares.T @ squares / 4000
    expected = 12 * 11 / (20 * 19)
    apart = pairs[~torch.eye(20, dtype=torch.bool)]
    assert float((apart - expected).abs().max()) < 5 * (expected * (1 - expected) / 4000) ** 0.5


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def test_a_block_is_a_rectangle_of_a_size_in_its_range_anywhere() -> None:
    heights, widths, tops = [], [], []
    for mask in Blocks(1, 0.25, 0.5).draw(2000, SIZE, seeded())[:, 0]:
        top, bottom, left, right = bounds(mask)
        assert bool(mask[top : bottom + 1, left : right + 1].all())
        heights.append(bottom - top + 1)
        widths.append(right - left + 1)
        tops.append((top, 24 - heights[-1]))
    assert set(heights) == set(range(6, 13))
    assert set(widths) == set(range(8, 16))
    places = [top / room for top, room in tops]
    assert np.mean(places) == pytest.approx(0.5, abs=0.03)
    assert {0.0, 1.0} <= set(places)
    assert bool(Blocks(1, 1.0, 1.0).draw(2, SIZE, seeded()).all())


def test_several_blocks_are_the_union_of_independent_ones() -> None:
    """A pixel stays visible if all blocks miss it."""
    one, three = (Blocks(n).draw(20_000, (8, 8), seeded(n)).float().mean(0) for n in (1, 3))
    torch.testing.assert_close(1 - three, (1 - one) ** 3, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("side", "hidden"),
    [
        ("left", (slice(None), slice(0, 2))),
        ("right", (slice(None), slice(3, 5))),
        ("top", (slice(0, 2), slice(None))),
        ("bottom", (slice(2, 4), slice(None))),
    ],
)
def test_halves(side: str, hidden: tuple[slice, slice]) -> None:
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[hidden] = True
    drawn = Half([side]).draw(3, (4, 5), seeded())  # type: ignore[list-item]
    assert torch.equal(drawn, expected.expand(3, 1, 4, 5))


def test_all_halves_come_as_often() -> None:
    drawn = Half().draw(4000, (4, 4), seeded())[:, 0]
    kinds, counts = torch.unique(drawn.flatten(1), dim=0, return_counts=True)
    assert len(kinds) == 4
    assert float((counts / 4000 - 0.25).abs().max()) < 0.03


def test_a_straight_stroke_is_a_line_with_round_ends() -> None:
    """Far from the borders its area is length * width + pi / 4 width^2."""
    strokes = Strokes(strokes=1, pieces=2, width=0.1, length=0.1, turn=0.0)
    drawn = strokes.draw(400, (100, 100), seeded())[:, 0]
    area = drawn.flatten(1).sum(1).float()
    inside = torch.tensor([min(a, c) > 12 and max(b, d) < 87 for a, b, c, d in map(bounds, drawn)])
    expected = 20 * 10 + np.pi / 4 * 100
    assert int(inside.sum()) > 50
    assert float(area[inside].mean()) == pytest.approx(expected, rel=0.01)
    assert float(area.max()) < 1.1 * expected


def test_a_mask_from_a_file_is_scaled_without_smoothing(tmp_path: Path) -> None:
    picture = np.zeros((4, 6), np.uint8)
    picture[:2, 3:] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    mask = MaskFile(str(tmp_path / "mask.png"))
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[:4, 6:] = True
    assert torch.equal(mask.draw(2, (8, 12)), expected.expand(2, 1, 8, 12))
    assert torch.equal(mask.draw(1, (2, 2)), torch.tensor([[[[False, True], [False, False]]]]))


def test_files_that_are_no_masks(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text.png cannot be read as a mask"):
        MaskFile(str(tmp_path / "text.png"))
    for value, what in ((0, "nothing"), (255, "everything")):
        Image.fromarray(np.full((3, 3), value, np.uint8)).save(tmp_path / "flat.png")
        with pytest.raises(UserError, match=f"hides {what}"):
            MaskFile(str(tmp_path / "flat.png"))
    dot = np.zeros((99, 99), np.uint8)
    dot[0, 0] = 255
    Image.fromarray(dot).save(tmp_path / "dot.png")
    with pytest.raises(UserError, match="hides nothing"):
        MaskFile(str(tmp_path / "dot.png")).draw(1, (3, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomPatches(1.0), "ratio is 1.0"),
        (lambda: RandomPatches(0.75, 8).draw(1, (8, 8)), "1 of 1 squares"),
        (lambda: Blocks(0), "blocks is 0"),
        (lambda: Blocks(1, 0.6, 0.5), "least 0.6 and most 0.5"),
        (lambda: Half(["middle"]), "no side 'middle'"),  # type: ignore[list-item]
        (lambda: Half().draw(1, (1, 8)), "1x8 pixels has no halves"),
        (lambda: Strokes(width=0), "width 0"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
