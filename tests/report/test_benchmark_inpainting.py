"""The suite "inpainting": both do the same work, on the same patches."""

import pytest
import torch

from ssl_ebm.report.benchmarks import inpainting
from ssl_ebm.report.benchmarks.inpainting import CASE, example, our_loss, peer_loss, step_rows
from ssl_ebm.report.benchmarks.steps import flops_of_step
from ssl_ebm.report.benchmarks.timing import Effort

CPU = torch.device("cpu")
ONCE = Effort(repeats=1, seconds=0, device=CPU)
TINY = {
    "size": 16, "patch": 4, "width": 24, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1,
    "decoder_heads": 2,
}  # fmt: skip


def test_the_peer_has_the_same_size_and_hides_the_same_patches() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    images, noise = example(TINY, 4, CPU)
    (ours, _), (theirs, loss) = our_loss(TINY, images, noise), peer_loss(TINY, images, noise)
    count = [sum(p.numel() for p in network.parameters() if p.requires_grad) for network in (ours, theirs)]
    assert count[0] == count[1]
    hidden = noise.argsort(1).argsort(1) >= 4
    assert torch.equal(theirs(images, noise=noise).mask.bool(), hidden)
    assert loss().ndim == 0


def test_the_arithmetic_is_that_of_all_products() -> None:
    images, noise = example(TINY, 1, CPU)
    w, d, seen, everything, pixels = 24, 16, 5, 17, 48

    def blocks(width: int, tokens: int, count: int) -> int:
        return count * 2 * tokens * (12 * width * width + 2 * tokens * width)

    forward = blocks(w, seen, 2) + blocks(d, everything, 1)
    forward += 2 * (16 * pixels * w + seen * w * d + 16 * d * pixels)
    no_gradient = 2 * 16 * pixels * w  # of the pictures: nobody asks for it
    assert flops_of_step(our_loss(TINY, images, noise)[1]) == 3 * forward - no_gradient


def test_rows_and_their_summary() -> None:
    [row] = list(step_rows(ONCE, torch.float32, TINY, 2))
    assert row.case == CASE
    assert row.ceiling_share is not None
    assert 0 < row.ceiling_share < 1
    lines = inpainting.summary([row])
    assert "at least 1.2" in lines[0] if row.ratio is not None else "ssl_ebm[bench]" in lines[-1]


def test_loading_stands_beside_a_step() -> None:
    rows = list(inpainting.image_loading_rows(ONCE))
    assert [row.unit for row in rows] == ["images/s", "images/s"]
    assert all(row.ratio is not None and row.ratio.value > 0 for row in rows)
