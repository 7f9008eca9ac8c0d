"""The suite "probes": ours and scikit-learn's end at the same minimum, and the rows say how far from it."""

import pytest
import torch

from ssl_ebm.evaluation.probing.logistic import fit_logistic, logistic_loss, logits
from ssl_ebm.report.benchmarks import probes
from ssl_ebm.report.benchmarks.probes import EXACT_TOLERANCE, example, fit_rows, peer_fit, probe_rows
from ssl_ebm.report.benchmarks.timing import Effort

ONCE = Effort(repeats=1, seconds=0, device=torch.device("cpu"))


def test_the_example_can_be_learnt_in_part() -> None:
    known = example(2000, 32, 5)
    weights = fit_logistic(known.features, known.target, 5, 1e-3)
    right = (logits(known.features, weights).argmax(1) == known.target).float().mean()
    assert 0.35 < right < 0.95


@pytest.mark.parametrize("penalty", [1e-1, 1e-4])
def test_both_end_at_the_same_minimum(penalty: float) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    known = example(1000, 32, 5)
    x, y = known.features, known.target
    ours, theirs = fit_logistic(x, y, 5, penalty), peer_fit(known, penalty, EXACT_TOLERANCE)
    assert logistic_loss(x, y, ours, penalty) == pytest.approx(logistic_loss(x, y, theirs, penalty), abs=1e-5)
    assert (logits(x, ours).argmax(1) == logits(x, theirs).argmax(1)).float().mean() > 0.999


def test_rows_and_their_summary() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    rows = [*fit_rows(ONCE, 1e-2, 200, 16, 3), *probe_rows(ONCE, 200, 16, 3)]
    assert [row.case for row in rows] == [
        *["fit, penalty 0.01, 200 x 16, 3 classes"] * 2,
        "probe, penalty chosen, 200 x 16, 3 classes",
    ]
    assert all(row.ratio is not None and row.ratio.value > 0 for row in rows)
    assert all("promised: at least 3" in line for line in probes.summary(rows))
