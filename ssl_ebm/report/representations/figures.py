"""Figures of the study with their intervals, and whether what was expected holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ssl_ebm.evaluation.statistics import Bootstrap, Estimate, seeds_share_interval
from ssl_ebm.report.representations.recipes import Recipe
from ssl_ebm.report.representations.runs import Result

Results = Mapping[tuple[str, str, float | None, int], Result]

WANTED_R2 = 0.9  # of the velocity, set before anything was trained
STAGES = {"probe": "a linear probe", "tune": "fine-tuned"}
LABELS: dict[str, str] = {
    "raw": "raw input",
    "untrained": "random weights",
    "least_squares": "least squares",
    "latent_ebm": "latent-variable EBM",
    "masked_text": "masked text",
    "scratch": "from scratch",
}


def figures_of(recipe: Recipe, seeds: Sequence[int], results: Results) -> dict[str, Any]:
    """What representations.json says of a task.

    `accuracy` by stage, row and share; `r2` by row and target; `gain` of fine-tuning over training from
    scratch, and of a probe over random weights and over raw input, paired by seed and item. All are
    [value, low, high]: accuracies and gains as shares of the items.
    """
    right = {
        (stage, row, share): np.array([results[stage, row, share, seed].items["right"] for seed in seeds])
        for (stage, row, share, seed) in results
        if stage in STAGES and share is not None
    }
    items = np.arange(next(iter(right.values())).shape[1])
    drawn = Bootstrap(items)
    known = {key: drawn.mean(values) for key, values in right.items()}
    accuracy: dict[str, Any] = {stage: {} for stage in STAGES}
    gains: dict[str, Any] = {"over_scratch": {}, "over_untrained": {}, "over_raw": {}}
    for (stage, row, share), estimate in known.items():
        shown = seeds_share_interval(right[stage, row, share], items, drawn)
        accuracy[stage].setdefault(row, {})[f"{share:g}"] = shown.to_json()
        if row in recipe.pretexts:
            against = {"tune": ["scratch"], "probe": ["untrained", "raw"]}[stage]
            for other in against:
                gain = (estimate - known[stage, other, share]).interval().to_json()
                gains[f"over_{other}"].setdefault(row, {})[f"{share:g}"] = gain
    facts = {
        f"{stage}/{row}/{share:g}/{seed}": result.facts | {"seconds": round(result.seconds, 1)}
        for (stage, row, share, seed), result in results.items()
        if share is not None
    }
    return {
        "title": recipe.title,
        "pretexts": list(recipe.pretexts),
        "shares": list(recipe.shares),
        "labels": {
            f"{share:g}": results["tune", "scratch", share, seeds[0]].facts["labels"]
            for share in recipe.shares
        },
        "epochs": {
            f"{share:g}": results["tune", "scratch", share, seeds[0]].facts["epochs"]
            for share in recipe.shares
        },
        "test_items": int(drawn.items),
        "accuracy": accuracy,
        "gain": gains,
        "r2": _regressions(recipe, seeds, results, drawn),
        "pretraining": {
            f"{row}/{seed}": result.facts | {"seconds": round(result.seconds, 1)}
            for (stage, row, _, seed), result in results.items()
            if stage == "pretrain"
        },
        "runs": facts,
        "seconds": sum(result.seconds for result in results.values()),
        "recipe": asdict(recipe),
    }


def _regressions(
    recipe: Recipe, seeds: Sequence[int], results: Results, drawn: Bootstrap
) -> dict[str, dict[str, list[float | None]]]:
    """R2 = 1 - squared error / squared distance from the mean, by row and target."""
    found: dict[str, dict[str, list[float | None]]] = {}
    if not recipe.targets:
        return found
    share = recipe.shares[-1]
    for row in sorted({row for stage, row, _, _ in results if stage == "regress"}):
        made = [results["regress", row, share, seed] for seed in seeds]
        wrong = np.array([one.items["wrong"] for one in made])  # (seeds, items, targets)
        spread = np.array([one.items["spread"] for one in made])
        found[row] = {
            name: _explained(drawn.ratio(wrong[..., k], spread[..., k])).interval().to_json()
            for k, name in enumerate(made[0].facts["targets"])
        }
    return found


def _explained(unexplained: Estimate) -> Estimate:
    return unexplained.map(lambda part: 1 - np.asarray(part))


def judge(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was expected of each task, and whether it holds, by the interval and not by the value.

    `verdict` is "holds" where the whole interval is above the limit, "does not hold" where all of it is
    below, else "undecided".
    """
    bars = []
    for name, task in described["tasks"].items():
        for row in task["pretexts"]:
            pretext = LABELS.get(row, row)
            for share in task["shares"][:-1]:
                gain = task["gain"]["over_scratch"][row][f"{share:g}"]
                bars.append(
                    _bar(f"{name}, {100 * share:g} % of the labels: {pretext}, over scratch", gain, 0.0)
                )
            for target, figure in task["r2"].get(row, {}).items():
                if target.startswith("velocity"):
                    what = f"{name}: R² of {target.replace('_', ' ')} by frozen features of {pretext}"
                    bars.append(_bar(what, figure, WANTED_R2))
            if task["r2"]:
                gain = task["gain"]["over_raw"][row][f"{task['shares'][-1]:g}"]
                bars.append(_bar(f"{name}: classes by frozen features of {pretext}, over raw", gain, 0.0))
    return bars + _more_for_text(described["tasks"])


def _more_for_text(tasks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether pre-training gains more on text than on pictures: the best pretext of each, two independent
    intervals, whose half-widths add in squares."""
    if not {"text", "images"} <= tasks.keys():
        return []
    bars = []
    for share in tasks["text"]["shares"][:-1]:
        best = {}
        for name in ("text", "images"):
            gains = [rows[f"{share:g}"] for rows in tasks[name]["gain"]["over_scratch"].values()]
            best[name] = max(gains, key=lambda one: one[0])
        (text, low, high), (image, low_image, high_image) = best["text"], best["images"]
        value = text - image
        below, above = np.hypot(text - low, high_image - image), np.hypot(high - text, image - low_image)
        what = f"gain over scratch at {100 * share:g} % of the labels: text over images"
        bars.append(_bar(what, [value, value - float(below), value + float(above)], 0.0))
    return bars


def _bar(what: str, figure: Sequence[float], limit: float) -> dict[str, Any]:
    verdict = "holds" if figure[1] > limit else "does not hold" if figure[2] < limit else "undecided"
    return {"what": what, "figure": list(figure), "above": limit, "verdict": verdict}
