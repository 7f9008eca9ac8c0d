"""The page of a comparison of inpainting models, made from ``results.json`` and pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image
from torch import Tensor

from ssl_ebm.evaluation.pictures import to_picture
from ssl_ebm.report.bars import block
from ssl_ebm.report.charts import Series, bars, legend, lines
from ssl_ebm.report.completions import CompletedPicture
from ssl_ebm.report.document import document
from ssl_ebm.report.page import expected, setup, verdict
from ssl_ebm.report.sections import LABELS, section
from ssl_ebm.report.tables import cell, interval, table, tiles, value

Results = Mapping[str, Any]

CURVES = ("latent_ebm", "bank", "matched_noise", "ensemble", "least_squares")
SMALLEST = 96  # pixels of a picture on the page


def render_completions(results: Results, pictures: Sequence[CompletedPicture]) -> str:
    """The whole page."""
    sections = [
        _pictures(pictures),
        _best_of(results),
        _sharpness(results),
        _table(results),
        section(
            "What was expected",
            expected(results, "in the hole, all test pictures"),
            "These limits were set before the models were trained. A line that does not hold is a result, "
            "too.",
            "expected",
        ),
        _caveats(results),
        setup(results),
    ]
    body = f"""<h1>{escape(finding(results))}</h1>
<p class="lead">{escape(_single_guess(results))}</p>
{verdict(results)}
{_facts(results)}
{"".join(sections)}
<p class="soft">All figures, with their 95 % intervals, are in results.json beside this page.</p>"""
    return document("Least squares and a latent-variable EBM: inpainting", body)


def _shown_k(results: Results) -> str:
    """The K whose best-of-K figures are shown: 20, or the most there are."""
    ks = block(results, "latent_ebm", "all")["psnr_best_of"]
    return "20" if "20" in ks else max(ks, key=int)


def finding(results: Results) -> str:
    """In a sentence: the best of 20 samples against one completion, and sharpness."""
    gain, k = results["differences"]["least_squares"]["all"]["psnr_best_of"], _shown_k(results)
    ours, theirs = block(results, "latent_ebm", "all"), block(results, "least_squares", "all")
    ratios = value(ours["gradient_energy_ratio"]), value(theirs["gradient_energy_ratio"])
    found = f"{value(gain[k], 1)} dB nearer to the truth than the one completion of least squares"
    if gain[k][0] <= 0:
        found = f"no nearer to the truth than least squares ({value(gain[k], 1)} dB)"
    return (
        f"The best of {k} completions by the latent-variable EBM is {found}; its samples have {ratios[0]} "
        f"times the gradient energy (sharpness) of real pictures, least squares {ratios[1]} times."
    )


def _single_guess(results: Results) -> str:
    ours, theirs = (block(results, name, "all")["psnr_k1"] for name in ("latent_ebm", "least_squares"))
    text = (
        f"With one completion least squares has {value(theirs)} dB and a sample of the EBM {value(ours)} dB"
    )
    if theirs[0] >= ours[0]:
        text += ": no single guess has a smaller expected squared error than the mean of all completions"
    classical = [
        f"{LABELS[name]} {value(block(results, name, 'all')['psnr_k1'])} dB"
        for name in ("telea", "navier_stokes", "mean_fill")
        if block(results, name, "all")
    ]
    return f"{text}. Without learning: {', '.join(classical)}."


def _facts(results: Results) -> str:
    gain, k = results["differences"]["least_squares"]["all"]["psnr_best_of"], _shown_k(results)
    ours, theirs = block(results, "latent_ebm", "all"), block(results, "least_squares", "all")
    facts = [
        (f"{value(gain[k], 1)} dB", f"best of {k}, EBM over least squares ({interval(gain[k], 1)})"),
        (value(ours["gradient_energy_ratio"]), "gradient energy of the EBM's samples, real pictures are 1"),
        (value(theirs["gradient_energy_ratio"]), "the same of least squares"),
    ]
    if ours["auroc"]["swapped"]:
        facts.append((value(ours["auroc"]["swapped"], 3), "AUROC of F: the true hole, another picture's"))
    return tiles(facts)


def _pictures(rows: Sequence[CompletedPicture]) -> str:
    body = ""
    for row in rows:
        cells = "".join(
            f'<figure><img class="still kind-{kind}" alt="{escape(label)}" src="{png(picture)}">'
            f"<figcaption>{escape(label)}</figcaption></figure>"
            for label, kind, picture in row.tiles
        )
        body += f'<div class="tiles">{cells}</div>'
    return section(
        "Completions",
        body,
        "Grey is hidden. Least squares gives the average of all that may be there. Each sample of the EBM "
        "has a latent z drawn from what is seen alone. The nearest of 20 is chosen by looking at the truth. "
        "Pictures are spread evenly over the test split, not chosen by their looks.",
    )


def png(picture: Tensor) -> str:
    """A picture (C, H, W) as a data URI, enlarged by a whole number without smoothing."""
    scale = max(1, -(-SMALLEST // min(picture.shape[1:])))
    file = io.BytesIO()
    Image.fromarray(to_picture(picture, scale)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _best_of(results: Results) -> str:
    names = [name for name in CURVES if block(results, name, "all")]
    ks = sorted(block(results, "latent_ebm", "all")["psnr_best_of"], key=int)
    charts, series = [], []
    for kind, unit, title in (("psnr_best_of", "PSNR, dB", "PSNR"), ("ssim_best_of", "SSIM", "SSIM")):
        series = [
            Series(LABELS[name], name, [block(results, name, "all")[kind][k] for k in ks]) for name in names
        ]
        if any(point for one in series for point in one.points):
            drawn = lines(list(map(float, ks)), series, "K samples", unit, f"{title} of the best of K", True)
            charts.append(f"<div>{drawn}</div>")
    return section(
        "How near the best of K completions comes",
        f'<div class="pair">{"".join(charts)}</div>{legend(series)}',
        "All figures are of the hole alone. K completions are drawn and the one nearest to the truth counts; "
        "bands are 95 % intervals. Mere variety is not enough, as the controls show: noise as strong as the "
        "EBM's variety, other least-squares networks, and the EBM with a z drawn without looking at x.",
    )


def _sharpness(results: Results) -> str:
    items = [
        Series(LABELS[name], name, [block(results, name, "all")["gradient_energy_ratio"]])
        for name in LABELS
        if block(results, name, "all")
    ]
    return section(
        "How sharp completions are",
        bars(items, "Gradient energy of completions over that of real pictures"),
        "Gradient energy is the sum of squared differences between neighbouring pixels of which one is "
        "hidden at least, here divided by that of the real pictures: 1 (dotted) is as sharp as real, less "
        "is blurred, more is noisy. Necessary for realism, not sufficient.",
    )


def _table(results: Results) -> str:
    names = [name for name in LABELS if block(results, name, "all")]
    k = _shown_k(results)
    rows = []
    for name in names:
        figures = block(results, name, "all")
        rows.append(
            (
                LABELS[name],
                [
                    cell(figures["psnr_k1"]),
                    cell(figures["psnr_best_of"][k]),
                    cell(figures["ssim_best_of"]["1"], 3),
                    cell(figures["ssim_best_of"][k], 3),
                    cell(figures["psnr_worst"]),
                    cell(figures["auroc"]["swapped"], 3),
                ],
            )
        )
    headings = [
        "in the hole", "PSNR of one, dB", f"best of {k}, dB", "SSIM of one", f"best of {k}",
        "worst of all, dB", "AUROC of F, true against swapped",
    ]  # fmt: skip
    return section(
        "The numbers",
        table(headings, rows),
        "PSNR is that of squared error pooled over all hidden pixels. AUROC is the chance that the true "
        "picture has a lower free energy than one whose hole holds another picture's pixels: 0.5 is a coin.",
    )


def _caveats(results: Results) -> str:
    ours = block(results, "latent_ebm", "all")
    seeds = len(results["seeds"])
    several = 1 < ours["groups"] < ours["items"]
    drawn = f"{ours['groups']} groups of pictures" if several else "pictures"
    said = [
        "Best of K looks at the truth to choose among the completions. It measures whether the truth is "
        "among those that a model proposes; nobody can choose so when a hole is to be filled.",
        f"Figures are over {ours['items']} test pictures, {ours['K']} samples each. Best of K is of K in a "
        "row, as one call gives them: the EBM's are spread over its codes, so that few repeat another. One "
        "mask for each picture.",
        f"Intervals (95 %) come from a bootstrap over {drawn} and training seeds. "
        + ("With one seed they say nothing about other trainings." if seeds == 1 else ""),
    ]
    k = _shown_k(results)
    bank = results["differences"].get("bank", {}).get("all", {}).get("psnr_best_of", {}).get(k)
    if bank and bank[1] is not None and bank[1] <= 0:
        said.append(
            f"The prior p(z | x) is not seen to help: its best of {k} is {value(bank)} dB ({interval(bank)}) "
            "nearer than with z drawn whatever x is."
        )
    ratio = ours["gradient_energy_ratio"]
    if ratio and ratio[0] is not None and ratio[0] < 0.8:
        said.append(
            f"The EBM's samples are softer than real pictures ({value(ratio)} of the gradient energy): a "
            "code says a few bits about the hole, and what it does not say is averaged."
        )
    if "not" in str(results["protocol"].get("classical")):
        said.append(str(results["protocol"]["classical"]))
    if "ensemble" not in results["controls"]:
        said.append("The control by an ensemble needs two seeds or more: it is not shown.")
    items = "".join(f"<li>{escape(text)}</li>" for text in said)
    return f'<section id="caveats"><h2>What to keep in mind</h2><ul>{items}</ul></section>\n'
