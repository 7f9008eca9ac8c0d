"""Suite "probes": logistic regression on frozen features, beside scikit-learn's of the same penalty.

- One fit, for penalties from strong to weak. scikit-learn stops early at its defaults, so it stands there
  twice: as it comes, and as exact as ours. Its name says how far above our loss it ends.
- A whole probe: the penalty chosen among five on a fifth of the items, then fitted to all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor

from ssl_ebm.evaluation.probing.logistic import fit_logistic, logistic_loss, logits, standardise
from ssl_ebm.evaluation.probing.probes import PENALTIES, linear_probe
from ssl_ebm.evaluation.probing.results import Samples, held_out
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.suites import Part
from ssl_ebm.report.benchmarks.timing import Effort, Work, repeated

SUITE = "probes"
PEER = "sklearn"
ITEMS, FEATURES, CLASSES = 10_000, 512, 10
CASE_PENALTIES = (1e-1, 1e-2, 1e-4)
DEFAULT_TOLERANCE, EXACT_TOLERANCE = 1e-4, 1e-6
MOST_STEPS = 1000  # of the exact peer
GAIN = 3.0  # times the rate of scikit-learn
FIT_SECONDS = 3.0  # of the slowest

AS_IT_COMES = "as it comes"
AS_EXACT = "as exact"
WHOLE = "probe, penalty chosen"


def example(items: int, features: int, classes: int) -> Samples:
    """Features as a network's: their deviation along the k-th of some directions is 1 / sqrt(k). Labels are
    drawn from the softmax of a linear teacher, so that no classifier has them all right."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(features, features, generator=generator))[0]
    spread = torch.arange(1, features + 1).float().rsqrt()
    x = (torch.randn(items, features, generator=generator) * spread) @ directions
    teacher = 2 * directions.T @ torch.randn(features, classes, generator=generator)
    y = torch.multinomial((x @ teacher).softmax(1), 1, generator=generator)[:, 0]
    return Samples(standardise(x)[0], y)


def parts(effort: Effort) -> list[Part]:
    """What the suite measures, in order."""
    seconds = FIT_SECONDS * (1 + effort.repeats)
    return [
        *(
            Part(f"penalty {penalty:g}", seconds, partial(fit_rows, effort, penalty))
            for penalty in CASE_PENALTIES
        ),
        Part(WHOLE, 5 * seconds, partial(probe_rows, effort)),
    ]


def fit_rows(
    effort: Effort, penalty: float, items: int = ITEMS, features: int = FEATURES, classes: int = CLASSES
) -> Iterator[Row]:
    """Fits per second at a penalty; a peer's name says how far above our loss it ends."""
    known = example(items, features, classes)
    works = {"ours": repeated(lambda: fit_logistic(known.features, known.target, classes, penalty))}
    names = {}
    ours = logistic_loss(
        known.features, known.target, fit_logistic(known.features, known.target, classes, penalty), penalty
    )
    if peer := _peer():
        for how, tolerance in ((AS_IT_COMES, DEFAULT_TOLERANCE), (AS_EXACT, EXACT_TOLERANCE)):
            fit = partial(peer_fit, known, penalty, tolerance)
            works[how] = repeated(fit)
            above = logistic_loss(known.features, known.target, fit(), penalty) - ours
            names[how] = f"{peer}, {how} (loss {above:+.0e})"
    yield from _rows(
        effort, works, names, f"fit, penalty {penalty:g}, {items:,} x {features}, {classes} classes"
    )


def probe_rows(
    effort: Effort, items: int = ITEMS, features: int = FEATURES, classes: int = CLASSES
) -> Iterator[Row]:
    """Whole probes per second."""
    known = example(items, features, classes)
    works = {"ours": repeated(lambda: linear_probe(known, known))}
    names = {}
    if peer := _peer():
        works[AS_IT_COMES] = repeated(lambda: peer_probe(known))
        names[AS_IT_COMES] = f"{peer}, {AS_IT_COMES}"
    few = Effort(max(1, effort.repeats // 3), effort.seconds, effort.device)
    yield from _rows(few, works, names, f"{WHOLE}, {items:,} x {features}, {classes} classes")


def _rows(effort: Effort, works: dict[str, Work], names: dict[str, str], case: str) -> Iterator[Row]:
    rates = effort.rates(works)
    if not names:
        yield Row(SUITE, case, "float32", rates["ours"], "1/s")
    for how, name in names.items():
        yield Row(SUITE, case, "float32", rates["ours"], "1/s", rates[how], name, rates.ratio("ours", how))


def _peer() -> str | None:
    """The peer with its version, where it is installed."""
    return f"scikit-learn {version('scikit-learn')}" if find_spec(PEER) else None


def peer_fit(known: Samples, penalty: float, tolerance: float) -> Tensor:
    """scikit-learn's weights with the bias as last row, (D + 1, C)."""
    model = import_module(f"{PEER}.linear_model").LogisticRegression(
        C=1 / (len(known.target) * penalty),
        tol=tolerance,
        max_iter=100 if tolerance == DEFAULT_TOLERANCE else MOST_STEPS,
    )
    # Its own threads and torch's wait for each other: with one it is up to three times as fast.
    one_thread = import_module("threadpoolctl").threadpool_limits(1, user_api="blas")
    with one_thread, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 100 steps, its default, were too few
        model.fit(known.features.numpy(), known.target.numpy())
    return torch.cat([torch.from_numpy(model.coef_.T), torch.from_numpy(model.intercept_)[None]]).float()


def peer_probe(known: Samples) -> Tensor:
    """The same choice of a penalty, and the fit with it."""
    held = held_out(known.target)
    assert held is not None
    fitted = Samples(known.features[~held], known.target[~held])
    right = {}
    for penalty in PENALTIES:
        weights = peer_fit(fitted, penalty, DEFAULT_TOLERANCE)
        right[penalty] = float(
            (logits(known.features[held], weights).argmax(1) == known.target[held]).float().mean()
        )
    return peer_fit(known, max(right, key=lambda penalty: right[penalty]), DEFAULT_TOLERANCE)


def summary(rows: Sequence[Row]) -> list[str]:
    """What is promised of this suite, and what was measured."""
    lines = []
    for row in rows:
        if row.ratio is None:
            continue
        r = row.ratio
        lines.append(
            f"{row.case}: {r.value:.2f} ({r.low:.2f} to {r.high:.2f}) times {row.peer_name} "
            f"(promised: at least {GAIN:g})"
        )
    if not find_spec(PEER):
        lines.append("scikit-learn is not installed, so it was not measured: pip install 'ssl_ebm[bench]'")
    return lines
