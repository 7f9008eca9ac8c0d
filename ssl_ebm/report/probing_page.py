"""The page of a probe: figures, whom a class is taken for, and a map of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
import yaml
from torch import Tensor

from ssl_ebm.report.charts import Series, bars
from ssl_ebm.report.document import document
from ssl_ebm.report.sections import section
from ssl_ebm.report.tables import DASH, cell, table, tiles

NAMES = {"trained": "pre-trained", "untrained": "the same network, random weights", "raw": "raw input"}
SHORT = {**NAMES, "untrained": "random weights"}  # under a bar
PROBES = {
    "linear": "linear probe",
    "knn": "nearest neighbours",
    "attentive": "attentive probe",
    "regression": "regression",
}
COLOURS = {"trained": "latent_ebm", "untrained": "matched_noise", "raw": "least_squares"}
MOST_CLASSES = 40  # of a confusion matrix on the page
SIDE = 520  # pixels of the map


@dataclass(frozen=True)
class Seen:
    """What the page shows beyond figures.

    Attributes:
        features: (N, D) of test items.
        labels: (N,) of the same.
        confusion: (C, C), truth by prediction, of the first probe of classes.
    """

    features: Tensor
    labels: Tensor
    confusion: Tensor


def render(results: Mapping[str, Any], seen: Seen | None) -> str:
    """The whole page."""
    names = list(results["classes"])
    sections = [_accuracies(results), _regressions(results)]
    if seen is not None:
        names = names if len(names) == len(seen.confusion) else list(map(str, range(len(seen.confusion))))
        sections += [_confusion(seen.confusion, names), _map(seen, names)]
    about = {key: results[key] for key in ("checkpoint", "layer", "pooling", "seed", "data", "device")}
    folded = escape(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
    sections.append(f"<section><h2>How it was made</h2><pre>{folded}</pre></section>")
    body = f"<h1>{escape(finding(results))}</h1>{_facts(results)}{''.join(sections)}"
    return document(f"A probe of {results['task']}", body)


def finding(results: Mapping[str, Any]) -> str:
    """In a sentence: what the pre-training is worth to the first probe."""
    trained = results["models"]["trained"]
    kind = next((one for one in PROBES if one in trained), None)
    if kind is None:
        return "Nothing was probed"
    if kind == "regression":
        best = max(trained[kind]["r2"].items(), key=lambda pair: pair[1][0])
        return f"The frozen features foresee {best[0]} with R² = {best[1][0]:.2f}"
    said = f"On frozen features a {PROBES[kind]} is right for {_percent(trained[kind]['accuracy'])}"
    others = [
        f"{NAMES[name]} {_percent(results['models'][name][kind]['accuracy'])}"
        for name in ("untrained", "raw")
        if kind in results["models"].get(name, {})
    ]
    return f"{said} of the {results['split']} items" + (f" ({'; '.join(others)})" if others else "")


def _percent(figure: Sequence[float]) -> str:
    return f"{100 * figure[0]:.1f} %"


def _facts(results: Mapping[str, Any]) -> str:
    facts = []
    for name, found in results["models"].items():
        kind = next((one for one in ("linear", "knn", "attentive") if one in found), None)
        if kind:
            _, low, high = found[kind]["accuracy"]
            shown = f"{NAMES[name]}, {PROBES[kind]} ({100 * low:.1f} to {100 * high:.1f})"
            facts.append((_percent(found[kind]["accuracy"]), shown))
    return tiles(facts) if facts else ""


def _accuracies(results: Mapping[str, Any]) -> str:
    kinds = [kind for kind in PROBES if kind != "regression" and kind in results["models"]["trained"]]
    if not kinds:
        return ""
    rows = []
    for name, found in results["models"].items():
        cells = [
            cell([100 * v for v in found[kind]["accuracy"]], 1) if kind in found else DASH for kind in kinds
        ]
        rows.append((NAMES[name], [*cells, f"{found['rank_me']:.1f}" if "rank_me" in found else DASH]))
    first = results["models"]["trained"][kinds[0]]
    shown = [
        Series(SHORT[name], COLOURS[name], [found[kinds[0]]["accuracy"]])
        for name, found in results["models"].items()
        if kinds[0] in found
    ]
    headings = ["", *(f"{PROBES[kind]}, %" for kind in kinds), "effective rank (RankMe)"]
    drawn = bars(shown, "Accuracy", first["chance"])
    shape = " The same network with random weights shows what its shape alone is worth."
    shape = shape if "untrained" in results["models"] else ""
    return section(
        "Accuracy",
        table(headings, rows) + drawn,
        f"Probes were fitted to {first['train_items']:,} items and tested on {first['test_items']:,} others; "
        "intervals are of 95 %. Always saying the most frequent class is right for "
        f"{100 * first['chance']:.1f} % (dotted).{shape}",
    )


def _regressions(results: Mapping[str, Any]) -> str:
    found = {name: one["regression"]["r2"] for name, one in results["models"].items() if "regression" in one}
    if not found:
        return ""
    targets = list(next(iter(found.values())))
    rows = [(target, [cell(found[name].get(target), 3) for name in found]) for target in targets]
    return section(
        "Numbers that the features hold",
        table(["R²", *(NAMES[name] for name in found)], rows),
        "Ridge regression from the features. R² is 1 where a target is foreseen exactly, 0 where no better "
        "than by its mean; intervals are of 95 %.",
    )


def _confusion(confusion: Tensor, names: Sequence[str]) -> str:
    if len(names) > MOST_CLASSES:
        return ""
    shares = confusion / confusion.sum(1, keepdim=True).clamp_min(1)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for name, counts, part in zip(names, confusion.tolist(), shares.tolist(), strict=True):
        cells = "".join(
            f'<td style="background:color-mix(in srgb, var(--c-latent_ebm) {70 * one:.0f}%, transparent)" '
            f'title="{count}">{100 * one:.0f}</td>'
            for count, one in zip(counts, part, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    body = (
        f'<div class="scroll"><table class="confusion"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
    return section(
        "What is taken for what",
        body,
        "Rows are the true class, columns what the first probe says, in per cent of the row.",
    )


def _map(seen: Seen, names: Sequence[str]) -> str:
    places, part = plane(seen.features)
    low, high = places.quantile(0.005, 0), places.quantile(0.995, 0)
    scaled = ((places - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    dots = []
    for (x, y), label in zip(scaled.tolist(), seen.labels.tolist(), strict=True):
        at = f'cx="{12 + x * (SIDE - 24):.1f}" cy="{12 + (1 - y) * (SIDE - 24):.1f}"'
        dots.append(f'<circle {at} r="3" fill="{hue(label, len(names))}" fill-opacity=".65"/>')
    keys = "".join(
        f'<li><i class="key" style="background:{hue(label, len(names))}"></i>{escape(name)}</li>'
        for label, name in enumerate(names)
    )
    drawn = (
        f'<svg class="chart" viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="Map of the features">'
        f'{"".join(dots)}</svg><ul class="legend">{keys}</ul>'
    )
    return section(
        "A map of the features",
        drawn,
        f"Every dot is one of {len(seen.labels):,} test items, where its features fall on their two "
        f"principal components ({100 * part:.0f} % of the variance); colours are the true classes. Classes "
        "that overlap here may well be apart in the other directions.",
    )


def plane(features: Tensor) -> tuple[Tensor, float]:
    """Coordinates (N, 2) on the two principal components, and their share of the variance."""
    centred = (features - features.mean(0)).double()
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    shares = values.square() / values.square().sum().clamp_min(1e-300)
    found = centred @ directions[:2].T
    if found.shape[1] < 2:
        found = torch.cat([found, torch.zeros_like(found)], 1)
    return found.float(), float(shares[:2].sum())


def hue(label: int, classes: int) -> str:
    """A colour for a class, evenly around the circle of colours; two lightnesses where there are many."""
    light = 48 if label % 2 == 0 or classes <= 8 else 66
    return f"hsl({360 * label // max(1, classes)} 70% {light}%)"
