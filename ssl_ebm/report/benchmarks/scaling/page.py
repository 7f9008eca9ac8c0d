"""The section of the page that says what 8, 64 and 512 GPUs would need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from html import escape

from ssl_ebm.report.benchmarks.rows import number
from ssl_ebm.report.benchmarks.scaling.cluster import Cluster, Demand, Needs, limit, loaded_share, needs
from ssl_ebm.report.benchmarks.scaling.recipes import RECIPES, demand
from ssl_ebm.report.tables import table

GPUS = (8, 64, 512)
TITLE = "What 8, 64 and 512 GPUs would need"
INTRODUCTION = (
    "Plain arithmetic from the assumptions below: <b>none of this was measured.</b> Each GPU has a copy of "
    "the network (ddp), and the gradient, in float32, is summed over a ring: a GPU sends 2 (N - 1) / N times "
    "its bytes in every optimizer step, during the last backward pass. That a GPU falls short of the assumed "
    "share of its peak where it has little to do is not counted, nor are stragglers."
)
COLUMNS: dict[str, Callable[[Needs], str]] = {
    "items a step": lambda n: f"{n.step_items:,}",
    "on each GPU": lambda n: f"{n.gpu_items:g}",
    "TFLOP a GPU": lambda n: f"{n.flops / 1e12:.3g}",
    "sent by a GPU, MB": lambda n: f"{n.sent / 1e6:,.0f}",
    "compute, ms": lambda n: f"{n.compute * 1e3:.3g}",
    "all-reduce, ms": lambda n: f"{n.reduce * 1e3:.3g}",
    "not hidden, ms": lambda n: f"{n.exposed * 1e3:.3g}",
    "of a step computes": lambda n: f"{n.efficiency:.0%}",
    "1,000 items/s": lambda n: number(n.rate / 1e3),
    "read, GB/s": lambda n: number(n.storage / 1e9),
    "loading cores a GPU": lambda n: f"{n.cores:.3g}",
    "steps an epoch": lambda n: f"{n.steps_per_epoch:,.0f}",
}


@cache
def demands() -> dict[str, Demand]:
    """Of all recipes, by their configs; counted once, in a minute."""
    return {recipe.config: demand(recipe) for recipe in RECIPES}


def appendix() -> str:
    """The section, as HTML."""
    return section(demands())


def section(recipes: Mapping[str, Demand], cluster: Cluster | None = None) -> str:
    """A table for each recipe, where it stops, and all that is assumed.

    Args:
        recipes: what each asks for, by its config.
        cluster: what is assumed of the machines.
    """
    cluster = cluster or Cluster()
    parts = [f"<section><h2>{TITLE}</h2><p>{INTRODUCTION}</p>"]
    for recipe in RECIPES:
        if recipe.config not in recipes:
            continue
        asked = recipes[recipe.config]
        each = [needs(asked, gpus, cluster) for gpus in GPUS]
        rows = [(f"{one.gpus} GPUs", [show(one) for show in COLUMNS.values()]) for one in each]
        most, why = limit(asked, cluster)
        loaded = loaded_share(each[0], cluster)
        if loaded < 1:
            why += (
                f". On {GPUS[0]} GPUs {cluster.cores:g} cores each load {loaded:.0%} of what they could take"
            )
        parts.append(
            f"<h3>{escape(recipe.config)}</h3><p>{asked.parameters / 1e6:.3g} million parameters, "
            f"{asked.flops / 1e9:.3g} GFLOP for an item ({recipe.unit}), a checkpoint of "
            f"{each[0].checkpoint / 1e6:,.0f} MB in {each[0].checkpoint_seconds:.2g} s. "
            f"<b>Scales to {most:,} GPU{'s' * (most > 1)}</b>; then {escape(why)}.</p>"
            f"{table(['', *COLUMNS], rows)}<p class='read'>{escape(recipe.sources)}</p>"
        )
    assumed = ", ".join(f"{name} {value:g}" for name, value in asdict(cluster).items())
    parts.append(f"<p class='read'><b>Assumed</b> (bytes, seconds, FLOP): {escape(assumed)}.</p></section>")
    return "".join(parts)
