"""The suite "text": both do the same work, on the same tokens."""

import pytest
import torch

from ssl_ebm.networks.bert import from_bert
from ssl_ebm.report.benchmarks import text
from ssl_ebm.report.benchmarks.steps import flops_of_step
from ssl_ebm.report.benchmarks.text import CASE, example, our_loss, peer_loss, step_rows
from ssl_ebm.report.benchmarks.timing import Effort

CPU = torch.device("cpu")
ONCE = Effort(repeats=1, seconds=0, device=CPU)
TINY = {"vocabulary": 50, "width": 16, "depth": 2, "heads": 2, "length": 20}


def test_the_peer_has_the_same_size_and_loss() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    hidden = example(TINY, 4, CPU)
    (ours, our), (theirs, their) = our_loss(TINY, hidden), peer_loss(TINY, hidden)
    count = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
    assert count[0] == count[1] - TINY["width"]  # the segment
    from_bert(ours, theirs.state_dict())  # type: ignore[arg-type]
    torch.testing.assert_close(our(), their())


def test_the_arithmetic_is_that_of_all_products() -> None:
    w, t, hidden, v = 16, 20, 3, 50
    blocks = 2 * 2 * t * (12 * w * w + 2 * t * w)
    forward = blocks + 2 * hidden * (w * w + w * v)
    assert flops_of_step(our_loss(TINY, example(TINY, 1, CPU))[1]) == 3 * forward


def test_rows_and_their_summary() -> None:
    [row] = list(step_rows(ONCE, torch.float32, TINY, 2))
    assert row.case == CASE
    assert row.ceiling_share is not None
    lines = text.summary([row])
    assert "at least 1.5" in lines[0] if row.ratio is not None else "ssl_ebm[bench]" in lines[-1]


def test_loading_stands_beside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "DOCUMENTS", 200)
    rows = list(text.text_loading_rows(ONCE))
    assert [row.unit for row in rows] == ["tokens/s"] * 3
    assert all(row.ratio is not None and row.ratio.value > 0 for row in rows)
