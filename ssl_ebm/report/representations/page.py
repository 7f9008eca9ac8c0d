"""The page of the study: what holds, one plot and one table for each task."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import yaml

from ssl_ebm.evaluation.probing.counted_words import LABELS as LABELLED
from ssl_ebm.progress import clock
from ssl_ebm.report.charts import Series, legend
from ssl_ebm.report.document import document
from ssl_ebm.report.representations.figures import LABELS
from ssl_ebm.report.representations.plot import KINDS, PLOTS, curve
from ssl_ebm.report.sections import section
from ssl_ebm.report.tables import DASH, VERDICTS, cell, table


def render(described: Mapping[str, Any]) -> str:
    """The whole page, from what representations.json holds."""
    body = [f"<h1>{escape(finding(described))}</h1>", _bars(described)]
    body += [_task(name, task) for name, task in described["tasks"].items()]
    return document("What pre-training is worth", "".join([*body, _about(described)]))


def finding(described: Mapping[str, Any]) -> str:
    """In a sentence: how much of what was expected holds."""
    bars = described["bars"]
    counts = {verdict: sum(bar["verdict"] == verdict for bar in bars) for verdict in VERDICTS}
    rest = [f"{count} {'are' if count > 1 else 'is'} undecided" for count in [counts["undecided"]] if count]
    rest += [
        f"{count} {'do' if count > 1 else 'does'} not hold" for count in [counts["does not hold"]] if count
    ]
    return f"Of {len(bars)} expectations of pre-training {counts['holds']} hold" + "".join(
        f", {one}" for one in rest
    )


def _bars(described: Mapping[str, Any]) -> str:
    rows = []
    for bar in described["bars"]:
        points = bar["above"] == 0
        shown = [100 * v for v in bar["figure"]] if points else bar["figure"]
        wanted = "above 0" if points else f"above {bar['above']}"
        unit = "points" if points else ""
        rows.append((bar["what"], [cell(shown, 1 if points else 3), unit, wanted, VERDICTS[bar["verdict"]]]))
    return section(
        "What was expected",
        table(["", "measured", "unit", "wanted", ""], rows, empty=""),
        "Over scratch, and over raw: percentage points of accuracy that are gained, fine-tuned and by a "
        "linear probe; paired, with the same seeds, labels and test items. A line holds where its whole 95 % "
        "interval is above the limit, does not hold where all of it is below, and is undecided between.",
        "expected",
    )


def _task(name: str, task: Mapping[str, Any]) -> str:
    shares = task["shares"]
    charts = [
        f"<div><h3>{escape(title)}</h3>{curve(task, stage, title)}</div>" for stage, title in PLOTS.items()
    ]
    present: set[str] = {row for stage in PLOTS for row in task["accuracy"][stage]}
    rows = [row for row in LABELS if row in present] + [row for row in sorted(present) if row not in LABELS]
    headings = [""]
    headings += [f"{how}, {100 * share:g} %" for how in ("probe", "fine-tuned") for share in shares]
    cells = [
        (
            LABELS.get(row, row),
            [_accuracy(task, stage, row, share) for stage in ("probe", "tune") for share in shares],
        )
        for row in rows
    ]
    labels = ", ".join(f"{100 * share:g} % are {task['labels'][f'{share:g}']:,} labels" for share in shares)
    epochs = ", ".join(f"{task['epochs'][f'{share:g}']:g}" for share in shares)
    most = max(fact["labels"] for key, fact in task["runs"].items() if key.startswith("probe/"))
    keys = [Series(LABELS.get(row, row), KINDS.get(row, "bank"), []) for row in rows]
    drawn = f'<div class="pair">{"".join(charts)}</div>{legend(keys)}'
    return section(
        f"{name.capitalize()}: {task['title']}",
        drawn + table(headings, cells) + _regressions(task),
        f"Accuracy on {task['test_items']:,} test items in per cent, with 95 % intervals over items and "
        f"seeds; {labels}. Training from scratch has the same network and as many steps as fine-tuning: "
        f"{epochs} epochs. Probes are fitted to {most:,} labels at most.{_raw(task)}",
        name,
    )


def _raw(task: Mapping[str, Any]) -> str:
    """What the raw input of documents is; nothing else needs a word."""
    counted = [fact for fact in task["runs"].values() if fact.get("features") == "TF-IDF"]
    return f" Raw input is TF-IDF, up to {LABELLED:,} labels; above, counts of tokens." if counted else ""


def _accuracy(task: Mapping[str, Any], stage: str, row: str, share: float) -> str:
    figure = task["accuracy"][stage].get(row, {}).get(f"{share:g}")
    return DASH if figure is None else cell([100 * v for v in figure], 1)


def _regressions(task: Mapping[str, Any]) -> str:
    if not task["r2"]:
        return ""
    targets = list(next(iter(task["r2"].values())))
    rows = [
        (LABELS.get(row, row), [cell(task["r2"][row][target], 3) for target in targets])
        for row in LABELS
        if row in task["r2"]
    ]
    names = [target.replace("_", " ") for target in targets]
    return f"<h3>R² of numbers, by ridge regression of frozen features</h3>{table(['', *names], rows)}"


def _about(described: Mapping[str, Any]) -> str:
    facts = [
        ("seeds", ", ".join(map(str, described["seeds"]))),
        ("time of all runs", clock(described["seconds_of_all_runs"])),
        ("device", described["device"]),
        ("versions", ", ".join(f"{name} {number}" for name, number in described["versions"].items())),
    ]
    shown = table(["", "this study"], [(name, [escape(str(text))]) for name, text in facts])
    folded = "".join(
        f"<details><summary>Settings of {escape(name)}</summary>"
        f"<pre>{escape(yaml.safe_dump(_plain(task['recipe']), sort_keys=False))}</pre></details>"
        for name, task in described["tasks"].items()
    )
    return f"<section><h2>How it was made</h2>{shown}{folded}</section>"


def _plain(value: Any) -> Any:
    """Tuples as lists: YAML has no others."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
