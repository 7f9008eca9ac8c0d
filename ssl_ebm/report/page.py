"""The report of a comparison: one HTML page that needs nothing else, made from ``results.json`` and pictures.

Every number on the page is taken from the results; nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from ssl_ebm.progress import clock
from ssl_ebm.report.animation import Row
from ssl_ebm.report.bars import FAILS, UNDECIDED, block, judged_part, with_verdict
from ssl_ebm.report.document import document
from ssl_ebm.report.findings import caveats, finding, single_guess
from ssl_ebm.report.sections import (
    LABELS,
    best_of,
    distribution,
    energies,
    leakage,
    next_frames,
    rollouts,
    section,
    sharpness,
)
from ssl_ebm.report.tables import VERDICTS, cell, interval, table, tiles, value

Results = Mapping[str, Any]

NAMED = 3  # failed expectations at the top of the page; the rest is in the table


def render(results: Results, clips: Sequence[Row]) -> str:
    """The whole page."""
    sections = [
        next_frames(results, clips),
        best_of(results),
        sharpness(results),
        distribution(results),
        energies(results),
        leakage(results),
        rollouts(results, clips),
        _expectations(results),
        _caveats(results),
        setup(results),
    ]
    body = f"""<h1>{escape(finding(results))}</h1>
<p class="lead">{escape(single_guess(results))}</p>
{verdict(results)}
{_facts(results)}
<input type="checkbox" class="switch" id="still"><label class="button" for="still"></label>
{"".join(sections)}
<p class="soft">All figures, with their 95 % intervals, are in results.json beside this page.</p>"""
    return document(
        "Least squares and a latent-variable EBM: predicting the next frame",
        body,
        {(row.context, row.ticks) for row in clips},
    )


def verdict(results: Results) -> str:
    """Whether all expectations hold, and which do not, or may not."""
    failed, undecided = with_verdict(results, FAILS), with_verdict(results, UNDECIDED)
    count = len(results["bars"])
    if not failed and not undecided:
        held = f'<span class="good">All {count} expectations set beforehand hold</span>'
        return f'<p>{held} (<a href="#expected">the list</a>).</p>'
    if failed:
        said = f'<span class="bad">{len(failed)} of {count} expectations set beforehand do not hold</span>'
        said += f", {len(undecided)} more undecided" if undecided else ""
    else:
        said = f"{len(undecided)} of {count} expectations set beforehand are undecided, the others hold"
    named = [*failed, *undecided]
    names = "; ".join(f"{row['what']}: {_measured(row)}, wanted {row['wanted']}" for row in named[:NAMED])
    more = f"; and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return (
        f'<p>{said} (<a href="#expected">all of them</a>, <a href="#caveats">why</a>): '
        f"{escape(names + more)}.</p>"
    )


def _measured(row: Mapping[str, Any]) -> str:
    """The figure of an expectation, and the interval that it is judged by."""
    if not row["interval"]:
        return f"{row['value']:.3g}"
    low, high = row["interval"]
    return f"{row['value']:.3g} ({low:.3g} to {high:.3g})"


def _facts(results: Results) -> str:
    ours, theirs = block(results, "latent_ebm"), block(results, "least_squares")
    if not ours:
        return ""
    k = "20" if "20" in ours["psnr_best_of"] else list(ours["psnr_best_of"])[-1]
    gains = results["differences"]["least_squares"].get(judged_part(results)) or {}
    gain = gains.get("psnr_best_of", {}).get(k)
    facts = [
        (f"{value(gain, 1)} dB", f"best of {k}, EBM over least squares ({interval(gain, 1)})"),
        (value(ours["gradient_energy_ratio"]), "gradient energy of the EBM's samples, real frames are 1"),
        (value(theirs["gradient_energy_ratio"]), "the same of least squares"),
    ]
    if ours["coverage"] is not None:
        facts.append(
            (f"{100 * ours['coverage'][0]:.0f} %", "of the possible futures are among the EBM's samples")
        )
    return tiles(facts)


def _expectations(results: Results) -> str:
    uncertain = judged_part(results) == "uncertain"
    clips = "clips with an uncertain future" if uncertain else "all test clips"
    return section(
        "What was expected",
        expected(results, f"on {clips}"),
        "These limits were set before the models were trained. A line that does not hold is a result, too. "
        "One with a 95 % interval is judged by it: it holds where all of it is above 0, and is undecided "
        "where 0 lies within.",
        "expected",
    )


def expected(results: Results, where: str) -> str:
    """The table of expectations, measured `where`."""
    rows = [
        (
            row["what"],
            [
                cell([row["value"], *(row["interval"] or ())], 3),
                f'<span class="short">{escape(row["wanted"])}</span>',
                VERDICTS[row["verdict"]],
            ],
        )
        for row in results["bars"]
    ]
    return table([where, "measured", "wanted", ""], rows)


def _caveats(results: Results) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in caveats(results))
    return f'<section id="caveats"><h2>What to keep in mind</h2><ul>{items}</ul></section>\n'


def setup(results: Results) -> str:
    """Sizes, times, device, versions, data and settings."""
    models = results["models"]
    fields = {
        "parameters": lambda m: f"{m['parameters']:,}",
        "optimizer steps": lambda m: f"{m['steps']:,}",
        "steps per second": lambda m: f"{m['steps_per_second']:.1f}" if m["steps_per_second"] else "–",
        "seconds of training, each seed": lambda m: ", ".join(
            f"{t['seconds']:.0f}" for t in m["trainings"].values()
        ),
    }
    rows = [(name, [escape(get(models[m])) for m in models]) for name, get in fields.items()]
    trained = table(["", *(LABELS[name] for name in models)], rows)
    phases = ", ".join(f"{name} {clock(seconds)}" for name, seconds in results["seconds_by_phase"].items())
    about = [
        ("device", results["device"]),
        ("seeds", ", ".join(map(str, results["seeds"]))),
        ("time of this command", f"{clock(results['seconds'])} ({phases})"),
        ("versions", ", ".join(f"{name} {number}" for name, number in results["versions"].items())),
    ]
    facts = table(["", "this comparison"], [(name, [escape(text)]) for name, text in about])
    data = escape(yaml.safe_dump(dict(results["data"]), sort_keys=False, allow_unicode=True))
    configs = "".join(
        f"<details><summary>Settings of {escape(LABELS[name])}: {escape(one['file'])}</summary>"
        f"<pre>{escape(yaml.safe_dump(one['settings'], sort_keys=False))}</pre></details>"
        for name, one in results["configs"].items()
    )
    folded = f"<details><summary>The data</summary><pre>{data}</pre></details>{configs}"
    return f"<section><h2>How it was made</h2>{trained}{facts}{folded}</section>\n"
