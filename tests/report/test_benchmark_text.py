"""The suite "text": both do the same work, on the same tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_ebm.networks.bert import from_bert
from ssl_ebm.report.benchmarks import corpus_memory, text
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
    first_block = 2 * t * (12 * w * w + 2 * t * w)
    # Keys and values of the last block are of all tokens.
    last_block = 2 * t * 2 * w * w + 2 * hidden * (10 * w * w + 2 * t * w)
    forward = first_block + last_block + 2 * hidden * (w * w + w * v)
    assert flops_of_step(our_loss(TINY, example(TINY, 1, CPU))[1]) == 3 * forward


def test_rows_and_their_summary() -> None:
    [row] = list(step_rows(ONCE, torch.float32, TINY, 2))
    assert row.case == CASE
    assert row.ceiling_share is not None
    lines = text.summary([row])
    assert "at least 1.5" in lines[0] if row.ratio is not None else "ssl_ebm[bench]" in lines[-1]


@pytest.mark.slow
def test_peak_memory_is_that_of_the_process_alone(tmp_path: Path) -> None:
    """Whatever the parent has: 400 MB here."""
    held = np.ones(50_000_000)
    rows = list(corpus_memory.memory_rows("text", times=2, documents=200))
    assert [row.case for row in rows] == [f"{corpus_memory.CASE}, {size} MB of text" for size in (0, 0)]
    corpus_memory.write_documents(tmp_path / "a.txt", 200, 3)
    assert (tmp_path / "a.txt").read_text().count("\n\n") == 600
    script = corpus_memory.SCRIPT.replace(
        "data.setup()", "data.setup(); import numpy; more = numpy.ones(25_000_000)"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_memory, "SCRIPT", script)
        more = corpus_memory.peak(tmp_path / "a.txt", tmp_path)
    assert 150 < more - rows[1].ours < 250  # 200 MB are seen
    assert len(held) == 50_000_000
    [line] = corpus_memory.summary(rows)
    assert "promised: at most +10%" in line


def test_loading_stands_beside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "DOCUMENTS", 200)
    rows = list(text.text_loading_rows(ONCE))
    assert [row.unit for row in rows] == ["tokens/s"] * 3
    assert all(row.ratio is not None and row.ratio.value > 0 for row in rows)
