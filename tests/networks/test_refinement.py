"""What the refinement is shown, in a scene whose parts and motions are known."""

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.networks import Refinement, TransportPredictor, block_matching, displacements

RADIUS, CELL, SIDE = 2, 4, 32
MOTIONS = ((1, 2), (-2, 0))  # per frame, of the upper and of the lower thing


class Recorder(nn.Module):
    """Keeps what comes in, changes nothing."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, seen: Tensor) -> Tensor:
        self.seen = seen
        return seen.new_zeros(len(seen), self.outputs, *seen.shape[2:])


def scene(frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two things on black: their sum (1, T, 1, H, W), and each alone in the last frame (2, H, W)."""
    alone = torch.zeros(2, frames, SIDE, SIDE, dtype=torch.float64)
    for part, ((down, right), (row, column)) in enumerate(zip(MOTIONS, ((4, 8), (24, 16)), strict=True)):
        texture = 0.5 + torch.rand(6, 6, generator=generator, dtype=torch.float64) / 2
        for t in range(frames):
            i, j = row + down * t, column + right * t
            alone[part, t, i : i + 6, j : j + 6] = texture
    return alone.sum(0)[None, :, None], alone[:, -1]


@pytest.mark.parametrize("frames", [2, 4])
def test_earlier_frames_come_to_where_each_part_is_now(frames: int, generator: torch.Generator) -> None:
    x, alone = scene(frames, generator)
    refinement = Refinement(1, frames, parts=2, width=8, cell=CELL).double()
    refinement.network = recorder = Recorder(outputs=3)  # type: ignore[assignment]
    masks = torch.full((1, 2, SIDE, SIDE), -20.0, dtype=torch.float64)
    masks[:, 0, : SIDE // 2], masks[:, 1, SIDE // 2 :] = 20.0, 20.0
    cost = block_matching(x[:, -2], x[:, -1], RADIUS, CELL)
    fill = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    same_fill, same_masks, motions = refinement(x, 50 * cost, fill, masks)  # 50: a motion beyond doubt
    assert displacements(RADIUS)[motions.argmax(-1)[0]].tolist() == [list(motion) for motion in MOTIONS]
    torch.testing.assert_close(same_fill, fill)
    torch.testing.assert_close(same_masks, masks)
    history = min(2, frames - 1)
    seen = recorder.seen[0]
    assert len(seen) == 1 + 2 * history + 1 + 2
    torch.testing.assert_close(seen[0], x[0, -1, 0])
    for age in range(history):
        for part in range(2):
            here = alone[part] > 0
            brought = seen[1 + 2 * age + part]
            torch.testing.assert_close(brought[here], alone[part][here], atol=1e-6, rtol=0)
            assert (brought - x[0, -1, 0])[~here].abs().max() > 0.5  # the other thing has run away


def test_starts_with_the_masks_of_the_blocks(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 3, 16, 24, generator=generator)
    plain, refined = (
        TransportPredictor(3, 3, 8, 1, 1, CELL, RADIUS, layers=2, paints=1, features=16, detail=detail).eval()
        for detail in (0, 8)
    )
    refined.load_state_dict(plain.state_dict(), strict=False)
    assert refined.rest_inertia is not None
    nn.init.zeros_(refined.rest_inertia)
    for one, other in zip(plain(x)[:5], refined(x)[:5], strict=True):
        torch.testing.assert_close(one, other)
