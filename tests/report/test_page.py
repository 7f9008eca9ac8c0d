"""The page says what the results say, whole, safely, and without anything from elsewhere."""

import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from ssl_ebm.report.animation import Row
from ssl_ebm.report.page import render

VOID = {"meta", "input"}


class Checker(HTMLParser):
    """Notes tags, and elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def text_of(page: str) -> str:
    body = page.partition("<body>")[2]
    return unescape(re.sub(r"<[^>]*>", " ", body))


Make = Callable[..., dict[str, Any]]


def test_numbers_of_the_page_are_those_of_the_results(make_results: Make, rows: list[Row]) -> None:
    results = make_results()
    page = text_of(render(results, rows))
    for part in ("all", "uncertain"):
        for name in ("least_squares", "latent_ebm"):
            block = results["models"][name][part]
            for figure in (*block["psnr_best_of"].values(), block["psnr_worst"]):
                assert f"{figure[0]:.2f}" in page
                assert f"{figure[1]:z.2f} to {figure[2]:z.2f}" in page
    block = results["models"]["latent_ebm"]["uncertain"]
    for figure in (block["coverage"], block["precision"], block["total_variation"], *block["auroc"].values()):
        assert f"{figure[0]:.3f}" in page
        assert f"{figure[1]:z.3f} to {figure[2]:z.3f}" in page
    exact = results["bounds"]["uncertain"]["exact_sampler"]["total_variation"]
    assert f"{exact[0]:.3f}" in page
    assert f"{block['gradient_energy_ratio'][0]:.2f} times the gradient energy" in page
    assert "123,456" in page


def test_page_needs_nothing_else(make_results: Make, rows: list[Row]) -> None:
    page = render(make_results(), rows)
    checker = parsed(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(checker.tags)
    assert all(link.startswith("#") for link in checker.links)
    assert all(address.startswith("data:") for address in re.findall(r"url\(['\"]?([^)'\"]*)", page))
    assert "http" not in page
    assert "@import" not in page


def test_names_are_escaped(make_results: Make, rows: list[Row]) -> None:
    results = make_results()
    results["configs"]["latent_ebm"]["file"] = "<img src=x onerror=alert(1)>.yaml"
    results["data"]["source"] = "</pre><script>"
    page = render(results, rows)
    checker = parsed(page)
    assert not {"script", "img"} & set(checker.tags)
    assert rows[0].title in text_of(page)


@pytest.mark.parametrize("seeds", [1, 3])
def test_nothing_is_empty_where_the_truth_is_unknown(make_results: Make, rows: list[Row], seeds: int) -> None:
    results = make_results(known=False, seeds=seeds)
    results["rollouts"] = None
    page = render(results, rows)
    parsed(page)
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert "Against the true distribution of futures" not in headings
    assert not any("ahead" in heading for heading in headings)
    assert "exact" not in text_of(page).replace("exact mean)", "").replace("nearly exact", "")
    assert "a digit into the wall" not in page
    assert "nan" not in text_of(page).lower().split()
    assert "None" not in page
    assert ("least-squares ensemble" in text_of(page)) == (seeds > 1)
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        assert "<td>" in table
    assert "most diverse" in page


def test_charts_are_well_formed(make_results: Make, rows: list[Row]) -> None:
    pictures = re.findall(r"<svg.*?</svg>", render(make_results(), rows), re.S)
    assert len(pictures) == 7
    for picture in pictures:
        ElementTree.fromstring(picture)


def test_a_failed_expectation_is_said_at_the_top(make_results: Make, rows: list[Row]) -> None:
    results = make_results()
    assert "All 1 expectations set beforehand hold" in render(results, rows)
    failed = {"what": "the <thing>", "value": 0.125, "wanted": "at least 0.9"}
    results["bars"].append(failed | {"interval": None, "verdict": "does not hold"})
    page = text_of(render(results, rows))
    assert "1 of 2 expectations set beforehand do not hold" in page
    assert "the <thing>: 0.125, wanted at least 0.9" in page
    assert "Expectations that do not hold: the <thing>" in page


def test_an_expectation_that_may_be_chance_is_undecided(make_results: Make, rows: list[Row]) -> None:
    results = make_results()
    unsure = {"what": "a gain", "value": 0.05, "wanted": "above 0", "interval": [-0.3, 0.4]}
    results["bars"].append(unsure | {"verdict": "undecided"})
    page = text_of(render(results, rows))
    assert "1 of 2 expectations set beforehand are undecided, the others hold" in page
    assert "a gain: 0.05 (-0.3 to 0.4), wanted above 0" in page
    assert "Expectations that are undecided, for 0 lies within their interval: a gain." in page
    assert "do not hold" not in page
    results["bars"].append(unsure | {"verdict": "does not hold"})
    page = text_of(render(results, rows))
    assert "1 of 3 expectations set beforehand do not hold" in page
    assert ", 1 more undecided" in page


def test_where_clips_come_from_is_said(make_results: Make, rows: list[Row]) -> None:
    """Those of `draw_clips`: uncertain ones first, whatever says which these are."""
    page = text_of(render(make_results(), rows))
    assert "those with an uncertain future (according to the data) before others" in page
    assert "according to the 25% of clips whose" in text_of(render(make_results(known=False), rows))


def test_dark_pages_have_their_own_colours(make_results: Make, rows: list[Row]) -> None:
    page = render(make_results(), rows)
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    dark = "".join(re.findall(r"prefers-color-scheme: dark\) \{(.*?\})\s*\}", page, re.S))
    for name in used - {"--kind"}:
        assert f"{name}:" in dark, name
    assert not re.search(r"<(svg|line|text|rect|circle|poly\w+)[^>]*#[0-9a-f]{3}", page)
