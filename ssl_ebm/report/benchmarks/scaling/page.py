"""The section of the page that says what 8, 64 and 512 GPUs would need."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from html import escape
from itertools import groupby

from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.report.benchmarks.rows import number
from ssl_ebm.report.benchmarks.scaling.cluster import Cluster, Demand, Needs, limit, loaded_share, needs
from ssl_ebm.report.benchmarks.scaling.recipes import Recipe, find_configs, read_recipe, trainable
from ssl_ebm.report.tables import DASH, table

GPUS = (8, 64, 512)
LEAST = 1e-3  # smaller figures are not written out
TITLE = "What 8, 64 and 512 GPUs would need"
INTRODUCTION = (
    "Plain arithmetic from the assumptions below: <b>none of this was measured.</b> Each GPU has a copy of "
    "the network (ddp), and the gradient, in float32, is summed over a ring: a GPU sends 2 (N - 1) / N times "
    "its bytes in every optimizer step, during the last backward pass. FLOP are counted in each config's own "
    "training step: all candidates of a latent, all steps of a sampler. That a GPU falls short of the "
    "assumed share of its peak where it has little to do is not counted, nor are stragglers: a step of less "
    "than some milliseconds is longer than is said here."
)
STOPS = (
    "A recipe stops scaling where less than {efficiency:.0%} of a step computes, because the network takes "
    "longer than the backward pass, or where a step has fewer items than there are GPUs. First with the step "
    "that the config takes, shared out among the GPUs; then with the config's batch on each GPU, so that "
    "steps grow with the GPUs until they are larger than is known to help."
)
WITHOUT = (
    "The recipes are in the folder configs, which is not installed: run this from a clone of the project, or "
    "in a folder that has a copy of it."
)
NEEDED: dict[str, Callable[[Needs], str]] = {
    "GPUs": lambda n: f"{n.gpus}",
    "items a step": lambda n: f"{n.step_items:,}",
    "on each GPU": lambda n: number(n.gpu_items),
    "GFLOP a GPU": lambda n: _small(n.flops / 1e9),
    "sent by a GPU, MB": lambda n: _small(n.sent / 1e6),
    "compute, ms": lambda n: _small(n.compute * 1e3),
    "all-reduce, ms": lambda n: _small(n.reduce * 1e3),
    "of a step computes": lambda n: _share(n.efficiency),
    "1,000 items/s": lambda n: _small(n.rate / 1e3),
    "read, GB/s": lambda n: _small(n.storage / 1e9) if n.storage else DASH,
    "loading cores a GPU": lambda n: _small(n.cores),
    "steps an epoch": lambda n: f"{n.steps_per_epoch:,.0f}",
}

ASSUMED: tuple[tuple[str, Callable[[Cluster], str], str], ...] = (
    (
        "peak of a GPU",
        lambda c: f"{c.peak / 1e12:g} TFLOP/s",
        "bfloat16, dense: data sheet of NVIDIA's H100 SXM",
    ),
    (
        "share of it that a step reaches",
        lambda c: f"{c.utilisation:.0%}",
        "Llama 3 on up to 16,384 H100: 38 to 43 % (Grattafiori et al. 2024, table 4); small networks: less",
    ),
    ("GPUs in a node", lambda c: f"{c.gpus_per_node}", "NVIDIA DGX H100"),
    (
        "sent by a GPU within its node",
        lambda c: f"{c.node_link / 1e9:g} GB/s",
        "NVLink, data sheet of the H100: 900 GB/s both ways",
    ),
    (
        "sent by a GPU to other nodes",
        lambda c: f"{c.network_link / 1e9:g} GB/s",
        "a port of 400 Gb/s InfiniBand for each GPU (DGX H100)",
    ),
    ("from one GPU to the next", lambda c: f"{c.hop * 1e6:g} µs", "an assumption"),
    ("written of a checkpoint", lambda c: f"{c.disk / 1e9:g} GB/s", "an assumption: one NVMe disk"),
    ("cores for each GPU", lambda c: f"{c.cores:g}", "a DGX H100 has 112 for its eight"),
    ("least share of a step that computes", lambda c: f"{c.efficiency:.0%}", "a choice"),
)


@cache
def recipes() -> tuple[list[Recipe], dict[str, str]]:
    """All recipes, counted once, in a minute, none where their folder is not there; and why which of them
    could not be."""
    configs = find_configs()
    found: list[Recipe] = []
    wrong: dict[str, str] = {}
    if configs is None:
        return found, wrong
    for name in trainable(configs):
        try:
            found.append(read_recipe(configs, name))
        except (UserError, argparse.ArgumentError) as error:
            wrong[name] = in_one_line(error)
    return found, wrong


def appendix() -> str:
    """The section, as HTML; nothing where its part was not run."""
    return section(*recipes()) if recipes.cache_info().currsize else ""


def section(
    found: Sequence[Recipe], wrong: Mapping[str, str] | None = None, cluster: Cluster | None = None
) -> str:
    """What the recipes of each task are and where they stop scaling, what they need, and all that is assumed.

    Args:
        found: the recipes, those of a task one after another.
        wrong: why others were not worked out, by their names.
        cluster: what is assumed of the machines.
    """
    cluster = cluster or Cluster()
    if not found and not wrong:
        return f"<section><h2>{TITLE}</h2><p>{WITHOUT}</p></section>"
    stops = STOPS.format(efficiency=cluster.efficiency)
    parts = [f"<section><h2>{TITLE}</h2><p>{INTRODUCTION}</p><p>{stops}</p>"]
    for name, some in groupby(found, lambda recipe: recipe.group):
        group = list(some)
        parts.append(
            f"<h3>{escape(name.replace('_', ' ').capitalize())}</h3>{_described(group, cluster)}"
            f"{_limits(group, cluster)}{_needs(group, cluster)}{_sources(group)}"
        )
    for name, why in (wrong or {}).items():
        parts.append(f"<p class='bad'>{escape(name)} was not worked out: {escape(why)}</p>")
    parts.append(f"<h3>Assumed of the machines</h3>{_assumed(cluster)}</section>")
    return "".join(parts)


def _assumed(cluster: Cluster) -> str:
    rows = [(name, [escape(show(cluster)), escape(source)]) for name, show, source in ASSUMED]
    return table(["", "value", "from"], rows)


def _described(group: Iterable[Recipe], cluster: Cluster) -> str:
    rows = []
    for one in group:
        asked, items = one.demand, one.items
        few = needs(asked, GPUS[0], cluster)
        fixed = f"<small>and {_small(asked.fixed / 1e9)} a batch</small>" if asked.fixed else ""
        stored = f"{items.stored / 1e3:.3g} kB<small>{items.form}</small>" if items.stored else items.form
        cells = [
            escape(_in_words(one.objective)),
            f"{asked.parameters:,}",
            f"{_small(asked.flops / 1e9)}{fixed}",
            _share(asked.backward),
            f"{stored}{'<small>kept in memory</small>' if items.kept else ''}",
            f"{_small(few.checkpoint / 1e6)}<small>{_small(few.checkpoint_seconds)} s</small>",
            _share(loaded_share(few, cluster)),
        ]
        rows.append((_short(one), cells))
    columns = ["objective", "parameters", "GFLOP an item", "in the last backward pass", "an item, as stored"]
    columns += ["checkpoint, MB", f"{cluster.cores:g} cores a GPU load"]
    return table(["", *columns], rows)


def _limits(group: Iterable[Recipe], cluster: Cluster) -> str:
    rows = []
    for one in group:
        asked = one.demand
        kept = replace(asked, largest=asked.step)
        rows.append((_short(one), [_stops(kept, cluster), _stops(asked, cluster)]))
    return table(
        ["", "the step of the config, shared out: scales to", "its batch on each GPU: scales to"], rows
    )


def _stops(asked: Demand, cluster: Cluster) -> str:
    most, why = limit(asked, cluster)
    grown = f" to {asked.largest:,}" if asked.largest > asked.step else ""
    gpus = f"<b>{most:,} GPU{'s' * (most > 1)}</b>"
    return f"{gpus} ({asked.step:,}{grown} items a step); then {escape(why)}"


def _needs(group: Iterable[Recipe], cluster: Cluster) -> str:
    rows = []
    for one in group:
        each = [needs(one.demand, gpus, cluster) for gpus in GPUS]
        rows.append((_short(one), ["<br>".join(map(show, each)) for show in NEEDED.values()]))
    return table(["", *NEEDED], rows, empty="<br>".join([DASH] * len(GPUS)))


def _sources(group: Sequence[Recipe]) -> str:
    """Each said once, with the recipes that it is of where it is not of all."""
    of: dict[str, list[str]] = {}
    for one in group:
        for source in one.sources:
            of.setdefault(source, []).append(_short(one))
    lines = [
        escape(source if len(names) == len(group) else f"{', '.join(names)}: {source}")
        for source, names in of.items()
    ]
    return f"<p class='read'>{'<br>'.join(lines)}</p>"


def _short(recipe: Recipe) -> str:
    """Its name in its folder, which may be broken into lines."""
    return recipe.name.rpartition("/")[2].replace("_", "_\u200b")


def _in_words(name: str) -> str:
    """latent_ebm or LatentEbm as words."""
    return re.sub("(?<=[a-z])(?=[A-Z])|_", " ", name).lower()


def _small(value: float) -> str:
    return f"&lt; {LEAST:g}" if value < LEAST else number(value)


def _share(value: float) -> str:
    return "&lt; 1%" if value < 0.01 else f"{value:.0%}"
