"""The command: what it writes, and what it says of mistakes."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.lecture import EXAMPLES, gallery
from ssl_ebm.lecture.claims import Setting
from ssl_ebm.lecture.gallery import page

KEYS = {"id", "row", "claim", "value", "low", "high", "bar", "holds", "seconds"}


def test_two_examples_make_a_page_and_their_claims(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page"
    assert main(["lecture", "kmeans_spiral", "free_energy", "--seeds", "0", "1", "--out", str(out)]) == 0
    claims = json.loads((out / "claims.json").read_text())
    assert all(set(claim) == KEYS for claim in claims)
    assert len({claim["id"] for claim in claims}) == len(claims) == 11
    assert [claim["id"] for claim in claims if not claim["holds"]] == []
    html = (out / "index.html").read_text()
    assert "All 11 claims hold" in html
    assert html.index("kmeans_spiral") < html.index("free_energy")  # in the order asked for
    assert html.count('prefers-color-scheme: dark)"><img') == 3  # every figure for both pages
    assert not re.search(r'(src|href)="https?:', html)  # needs nothing else
    assert "examples 2/2 done" in capsys.readouterr().out


def test_a_claim_that_fails_is_named_at_the_top() -> None:
    claim = {
        "id": "a", "row": "L1", "claim": "two < one", "value": 2.0, "low": 2.0, "high": 2.0,
        "bar": "at most 1", "holds": False, "seconds": 1.0,
    }  # fmt: skip
    html = page([claim], [], [0], 1.0)
    assert "1 of 1 claims do not hold" in html
    assert "two &lt; one: 2, wanted at most 1" in html


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kmeans"], "no example 'kmeans': use blur, free_energy"),
        (["--seeds", "1", "1"], "none twice"),
        (["--images", "/nowhere"], "no folder /nowhere"),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lecture", *arguments, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_images_that_are_not_there_are_missed_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train-images-idx3-ubyte").touch()
    out = tmp_path / "page"
    assert main(["lecture", "kmeans_spiral", "--images", str(tmp_path), "--out", str(out)]) == 2
    assert "no file t10k-images-idx3-ubyte" in capsys.readouterr().err
    assert not out.exists()


class AtOnce(Executor):
    """Does what it is given where it is given."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._processes: dict[int, Any] = {}

    def submit(self, call: Any, /, *arguments: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def test_what_was_done_before_an_error_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(name: str, setting: Setting) -> gallery.Shown:
        if name == "blur":
            raise UserError("no")
        claim = {"id": name, "value": 1.0, "bar": "at most 1", "holds": True}
        return gallery.Shown([claim], "")

    monkeypatch.setattr(gallery, "ProcessPoolExecutor", AtOnce)
    monkeypatch.setattr(gallery, "run_example", ran)
    with pytest.raises(UserError, match="no"):
        gallery.gallery([], tmp_path)
    kept = [claim["id"] for claim in json.loads((tmp_path / "claims.json").read_text())]
    assert kept == [name for name in EXAMPLES if name != "blur"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError])
def test_an_error_ends_what_runs_and_drops_what_waits(error: type[BaseException]) -> None:
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    futures: list[Future[None]] = []

    def work() -> None:
        with gallery.ended_on_error(pool):
            futures.extend(pool.submit(time.sleep, 20) for _ in range(4))
            while not futures[0].running():
                wait(futures, 0.01)
            raise error

    began = time.monotonic()
    with pytest.raises(error):
        work()
    assert isinstance(futures[0].exception(10), BrokenProcessPool)
    assert futures[3].cancelled()
    assert time.monotonic() - began < 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_claims_hold_with_a_seed_that_no_setting_was_chosen_on(tmp_path: Path) -> None:
    rest = [name for name in EXAMPLES if name not in ("kmeans_spiral", "free_energy")]
    assert main(["lecture", *rest, "--seeds", "11", "--out", str(tmp_path)]) == 0
    claims = json.loads((tmp_path / "claims.json").read_text())
    failed = {claim["claim"]: (claim["value"], claim["bar"]) for claim in claims if not claim["holds"]}
    assert failed == {}
    html = (tmp_path / "index.html").read_text()
    assert all(f'<section id="{name}">' in html for name in rest)
