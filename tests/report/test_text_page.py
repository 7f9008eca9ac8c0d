"""The page of masked text: what `fit` and `test` write, and that it shows the figures beside it."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_configs import MASKED_LETTERS

from ssl_ebm.cli import main
from ssl_ebm.report.text_page import headline, render

CONFIG = (
    MASKED_LETTERS
    + """\
data:
  class_path: ssl_ebm.data.Text
  init_args: {path: PLACE/a.txt, unit: line, vocabulary: 45, length: 32, cache: PLACE/cache}
trainer:
  max_steps: 4
  accelerator: cpu
  callbacks:
    - class_path: ssl_ebm.report.TextReport
      init_args: {sequences: 40, windows: 30}
"""
)
ABOUT = {
    "steps": 4,
    "parameters": 10,
    "device": "cpu <1>",
    "versions": {"torch": "2"},
    "task": {"lr": "<i>"},
    "data": {"path": "<u>"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    words = [f"{a}{b}" for a in "bdfgk" for b in ("an", "en", "in", "on")]
    noise = np.random.default_rng(0)
    (folder / "a.txt").write_text(
        "\n".join(" ".join(noise.choice(words, 24)) + f" {i % 7}" for i in range(400))
    )
    (folder / "text.yaml").write_text(CONFIG.replace("PLACE", str(folder)))
    assert main(["fit", "--config", str(folder / "text.yaml"), "--run_dir", str(folder / "run")]) == 0
    return folder


def test_fit_and_test_write_a_page_beside_the_numbers(run: Path) -> None:
    page = run / "run" / "report.html"
    assert "sequences of validation text" in page.read_text()
    checkpoint = str(run / "run" / "checkpoints" / "last.ckpt")
    given = ["--config", str(run / "text.yaml"), "--ckpt_path", checkpoint, "--run_dir", str(run / "again")]
    assert main(["test", *given]) == 0
    found = json.loads((run / "again" / "text_quality_test.json").read_text())
    shown = (run / "again" / "report.html").read_text()
    assert f"4 steps. {found['sequences']} sequences of test text" in shown
    for name in ("unigram", "bigram", "trigram"):
        for figure in (found[name]["perplexity"], [100 * v for v in found[name]["accuracy"]]):
            assert f"<td>{figure[0]:z.1f}<small>{figure[1]:z.1f} to {figure[2]:z.1f}</small></td>" in shown
    for figure in (found["auroc_swapped"], found["pairs"]["gain"]):
        assert f"{figure[0]:z.2f}" in shown
        assert f"{figure[1]:z.2f} to {figure[2]:z.2f}" in shown
    for one in found["examples"]["fills"]:
        assert f"[{one['truth']}]" in shown
        assert f"{one['top'][0][1]:.2f}" in shown
    assert shown.count("<svg") == 2
    assert shown.count("How to read this") == 5
    assert not re.search(r'(src|href)="http', shown)


def test_texts_and_settings_are_escaped(run: Path) -> None:
    results = json.loads((run / "run" / "text_quality_val.json").read_text())
    evil = "<script>x</script>"
    for one in results["examples"]["fills"]:
        one |= {"before": evil, "after": evil, "truth": evil}
        one["top"][0][0] = evil
    for one in results["pairs"]["examples"]:
        one |= {"before": evil, "truth": [evil, evil]}
        one["words"][0]["pair"] = [evil, evil]
    for one in results["examples"]["swapped"]:
        one["real"][0][0] = f" {evil}"
    page = render(results, ABOUT)
    for hidden in ("<script", "<i>", "<u>", "cpu <1>"):
        assert hidden not in page
    assert page.count("&lt;script&gt;x") >= 4 * len(results["examples"]["fills"])


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0.5, 0.4, 0.6], "foreseen better than by a trigram"),
        ([1.0, 0.9, 1.1], "about as well as by a trigram"),
        ([1.3, 1.2, 1.4], "A trigram foresees hidden words better"),
    ],
)
def test_the_headline_says_which_is_better(run: Path, times: list[float], words: str) -> None:
    results: dict[str, Any] = json.loads((run / "run" / "text_quality_val.json").read_text())
    assert words in headline(results | {"perplexity_over_trigram": times})


def test_the_page_says_what_intervals_are_over(run: Path) -> None:
    results: dict[str, Any] = json.loads((run / "run" / "text_quality_val.json").read_text())
    assert results["documents"] > 1
    page = render(results, ABOUT)
    assert f"of {results['documents']} documents, " in page
    assert "95 % intervals over documents" in page
    alone = render(results | {"documents": 1}, ABOUT)
    assert "of one document, " in alone
    assert "95 % intervals over parts of it" in alone


def test_what_there_is_nothing_of_is_left_out(run: Path) -> None:
    results = deepcopy(json.loads((run / "run" / "text_quality_val.json").read_text()))
    whole = render(results, ABOUT)
    results |= {"pairs": None, "auroc_swapped": None}
    results["examples"] = {"fills": [], "swapped": []}
    page = render(results, ABOUT)
    for title in ("Two words hidden", "Two words swapped", "One word hidden"):
        assert title in whole
        assert title not in page
