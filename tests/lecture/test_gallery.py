"""The command: what it writes, and what it says of mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ssl_ebm.cli import main
from ssl_ebm.lecture import EXAMPLES
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
