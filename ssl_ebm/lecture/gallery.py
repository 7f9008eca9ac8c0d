"""The command ``lecture``: runs examples, and writes a page and the claims with their numbers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch

from ssl_ebm.errors import UserError
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.lecture import EXAMPLES
from ssl_ebm.lecture.claims import Outcome, Setting
from ssl_ebm.lecture.images import check_images
from ssl_ebm.progress import Display, clock
from ssl_ebm.report.document import document
from ssl_ebm.report.entries import usable_cores
from ssl_ebm.report.tables import FAILS, HOLDS, table

PATIENCE = 5.0  # seconds between two looks at the clock


class Example(Protocol):
    """A module of this folder."""

    TITLE: str
    SENTENCE: str

    def run(self, setting: Setting) -> Outcome:
        """Trains, measures, and says what to draw."""
        ...


class Shown(NamedTuple):
    """An example that has run: its claims as in claims.json, and its part of the page."""

    claims: list[dict[str, Any]]
    section: str


def gallery(
    names: Sequence[str],
    out: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    images: str | Path | None = None,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Runs examples and writes ``OUT/index.html`` and ``OUT/claims.json``.

    claims.json is a list of {id, row, claim, value, low, high, bar, holds, seconds}: the mean over the seeds
    and its extremes, the limits, whether every seed is within them, and the seconds of the whole example. It
    is written after every example, so an interrupted run leaves what it has.

    Args:
        names: of examples; none: all.
        out: folder.
        seeds: of data and initial weights.
        images: folder with Fashion-MNIST's or MNIST's files; None: digits drawn from a font.
        workers: examples that run at a time, each on one thread; None: one for each core.

    Returns:
        The claims.

    Raises:
        UserError: no such example, no seed or one twice, a folder that cannot be made or read, or that lacks
            the images.
    """
    chosen = list(dict.fromkeys(names)) or list(EXAMPLES)
    if unknown := [name for name in chosen if name not in EXAMPLES]:
        raise UserError(f"no example {unknown[0]!r}: use {', '.join(EXAMPLES)}, or none for all")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds are {list(seeds)}: give one at least, and none twice")
    if images is not None and not Path(images).is_dir():
        raise UserError(f"no folder {images}: give the one that holds the images")
    setting = Setting(list(seeds), None if images is None else Path(images))
    check_images(setting)
    folder = make_folder(out)
    done: dict[str, Shown] = {}
    began = time.monotonic()
    with Display(seconds=20) as display:
        for name, shown in _run_all(chosen, setting, workers or usable_cores(), display):
            done[name] = shown
            ordered = [done[one] for one in chosen if one in done]
            claims = [claim for one in ordered for claim in one.claims]
            write_whole(folder / "claims.json", json.dumps(claims, indent=1, allow_nan=False) + "\n")
            for claim in shown.claims:
                display.say(_line(claim))
    sections = [done[name].section for name in chosen]
    write_whole(folder / "index.html", page(claims, sections, seeds, time.monotonic() - began))
    print(folder / "index.html")
    return claims


def _run_all(
    names: Sequence[str], setting: Setting, workers: int, display: Display
) -> Iterator[tuple[str, Shown]]:
    """Examples as they are done, the longest first; several at a time do not change any of them."""
    began = time.monotonic()
    expected = sum(EXAMPLES[name] for name in names) * len(setting.seeds) / 3 / min(workers, len(names))
    order = sorted(names, key=lambda name: -EXAMPLES[name])
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of torch's threads
    processes = ProcessPoolExecutor(min(workers, len(names)), context, initializer=_quietly)
    with ended_on_error(processes) as pool:
        waiting: dict[Future[Shown], str] = {pool.submit(run_example, name, setting): name for name in order}
        while waiting:
            ready, _ = wait(waiting, timeout=PATIENCE, return_when=FIRST_COMPLETED)
            for future in sorted(ready, key=lambda one: one.exception() is not None):  # what is done, first
                yield waiting.pop(future), future.result()
            finished = len(names) - len(waiting)
            share = sum(EXAMPLES[name] for name in names if name not in waiting.values())
            spent = time.monotonic() - began
            pace = spent / share * sum(EXAMPLES[name] for name in names) if share else expected
            known = pace > spent  # else the machine is slower than expected, and no example is done
            left = 0.0 if not waiting else pace - spent if known else None
            running = ", ".join(list(waiting.values())[:workers])  # in the order that they are taken up
            display.show("examples", finished, len(names), "done", left, running and f"running: {running}")


@contextmanager
def ended_on_error(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Waits for all that the pool was given; after an error, or Ctrl-C, ends what runs and drops the rest."""
    try:
        yield pool
    except BaseException:
        workers = list(pool._processes.values())  # Python 3.14 has terminate_workers
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        raise
    pool.shutdown()


def _quietly() -> None:
    """One thread each: examples share the cores. Ctrl-C is the main process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of no use here; torch would look for them at every step


def run_example(name: str, setting: Setting) -> Shown:
    """Claims and HTML of an example, which does not depend on those before it."""
    example = cast(Example, import_module(f"ssl_ebm.lecture.{name}"))
    torch.manual_seed(0)
    began = time.monotonic()
    outcome = example.run(setting)
    seconds = time.monotonic() - began
    claims = [claim.as_dict(round(seconds, 1)) for claim in outcome.claims]
    return Shown(claims, _section(name, example, outcome, claims))


def _line(claim: dict[str, Any]) -> str:
    verdict = "holds" if claim["holds"] else "DOES NOT HOLD"
    return f"  {claim['id']}: {_number(claim['value'])} ({claim['bar']}) {verdict}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"


def _section(name: str, example: Example, outcome: Outcome, claims: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            claim["claim"],
            [
                f"{_number(claim['value'])}<small>{_number(claim['low'])} to "
                f"{_number(claim['high'])}</small>",
                f'<span class="short">{escape(claim["bar"])}</span>',
                HOLDS if claim["holds"] else FAILS,
                escape(claim["row"]),
            ],
        )
        for claim in claims
    ]
    figures = "".join(figure.html() for figure in outcome.figures)
    numbers = table(["claim", "measured", "wanted", "", "row"], rows)
    shown = figures + "".join(outcome.tables) + numbers
    return (
        f'<section id="{escape(name)}"><h2>{escape(example.TITLE)}</h2>'
        f'<p class="lead">{escape(example.SENTENCE)}</p>{shown}</section>\n'
    )


def page(
    claims: Sequence[dict[str, Any]], sections: Sequence[str], seeds: Sequence[int], seconds: float
) -> str:
    """The whole page, which needs nothing else."""
    failed = [claim for claim in claims if not claim["holds"]]
    if failed:
        names = "; ".join(f"{c['claim']}: {_number(c['value'])}, wanted {c['bar']}" for c in failed)
        verdict = (
            f'<p><span class="bad">{len(failed)} of {len(claims)} claims do not hold:</span> '
            f"{escape(names)}.</p>"
        )
    else:
        verdict = f'<p><span class="good">All {len(claims)} claims hold</span>, for every seed.</p>'
    body = f"""<h1>Energy-based models: what the lecture says, and what it comes to</h1>
<p class="lead">Each example was trained from scratch with seeds {escape(", ".join(map(str, seeds)))}, in
{clock(seconds)} in all. Numbers are means over the seeds, with the extremes below. Rows are those of the
project's list of claims.</p>
{verdict}
{"".join(sections)}
<p class="soft">All numbers are in claims.json beside this page. Source: LeCun, NYU Deep Learning 2020,
week 7-2.</p>"""
    return document("Energy-based models: the lecture's examples", body)
