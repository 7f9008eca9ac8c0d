"""The parts of the report that show pictures, curves and tables, each with how to read it.

A part without content is an empty string: on real clips the true futures are unknown.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ssl_ebm.report.animation import Row
from ssl_ebm.report.bars import block, judged_part
from ssl_ebm.report.charts import Series, bars, legend, lines
from ssl_ebm.report.tables import cell, table

Results = Mapping[str, Any]

LABELS = {
    "least_squares": "least squares",
    "latent_ebm": "latent-variable EBM",
    "matched_noise": "least squares + noise",
    "ensemble": "least-squares ensemble",
    "sharpened": "least squares, sharpened",
    "bank": "EBM, z whatever x is",
    "telea": "Telea (OpenCV)",
    "navier_stokes": "Navier-Stokes (OpenCV)",
    "mean_fill": "mean of the visible pixels",
}
NEGATIVES = {
    "other_clip": "another clip's frame",
    "time_shuffled": "an earlier frame of x",
    "impossible": "a digit into the wall",
    "blurred_mean": "the blurred mean",
}


def section(title: str, body: str, read: str, anchor: str = "") -> str:
    """A section with its explanation; nothing where it has no content."""
    if not body:
        return ""
    place = f' id="{anchor}"' if anchor else ""
    return (
        f"<section{place}><h2>{escape(title)}</h2>{body}"
        f'<p class="read"><b>How to read this.</b> {escape(read)}</p></section>\n'
    )


def _present(results: Results, part: str | None = None) -> list[str]:
    return [name for name in LABELS if block(results, name, part)]


def _exact(results: Results, part: str, kind: str) -> Mapping[str, Any]:
    return ((results["bounds"] or {}).get(part) or {}).get(kind) or {}


def _tiles(row: Row) -> str:
    tiles = "".join(
        f'<figure><div class="film kind-{tile.kind} play-{row.context}-{row.ticks}" role="img" '
        f'aria-label="{escape(tile.label)}" style="aspect-ratio:{tile.aspect:.4f};'
        f"background-image:url('{tile.strip}')\"></div>"
        f"<figcaption>{escape(tile.label)}</figcaption></figure>"
        for tile in row.tiles
    )
    return f'<h3>{escape(row.title)}</h3><div class="tiles">{tiles}</div>'


def next_frames(results: Results, clips: Sequence[Row]) -> str:
    """What came, and what the models say."""
    by = results["uncertain_by"]
    order = f"those with an uncertain future (according to {by}) before others" if by else "of the test split"
    rows = [row for row in clips if not row.rollout]
    return section(
        "The next frame",
        "".join(_tiles(row) for row in rows),
        "Every picture first plays the same frames of context (grey border). Then comes the next frame: "
        "the one that really came, the average of all that could have come where it is known (exact mean), "
        "the single prediction of least squares, and samples of the EBM, each with a latent z drawn from "
        "the context alone. Least squares blurs where several futures are possible; a good sample is sharp "
        "and one of them, though not always the one that came. Clips and samples are not chosen by their "
        f"looks: samples are the first ones, and so are clips, {order}.",
    )


def _curves(results: Results, part: str, kind: str) -> tuple[list[float], list[Series]]:
    ks: list[str] = _ks(results)
    series = [
        Series(LABELS[name], name, [block(results, name, part)[kind].get(k) for k in ks])
        for name in _present(results, part)
    ]
    exact = _exact(results, part, "exact_sampler").get(kind)
    if exact:
        series.append(Series("exact sampler", "exact", [exact.get(k) for k in ks]))
    return [float(k) for k in ks], series


def _ks(results: Results) -> list[str]:
    """The K of best-of-K, ascending."""
    found: Mapping[str, Any] = block(results, "latent_ebm", "all")["psnr_best_of"]
    return sorted(found, key=int)


def best_of(results: Results) -> str:
    """Curves over K of PSNR and SSIM, models and controls."""
    parts = []
    for part, title in (("uncertain", "Clips with an uncertain future"), ("all", "All clips")):
        if not _present(results, part):
            continue
        x, psnr = _curves(results, part, "psnr_best_of")
        _, ssim = _curves(results, part, "ssim_best_of")
        mean = _exact(results, part, "posterior_mean").get("psnr")
        left = lines(
            x, psnr, "K samples", "PSNR, dB", f"PSNR of the best of K, {title}", True, mean and mean[0]
        )
        right = lines(x, ssim, "K samples", "SSIM", f"SSIM of the best of K, {title}", True)
        charts = f'<div class="pair"><div>{left}</div><div>{right}</div></div>'
        ks = _ks(results)
        rows = [(one.label, [cell(figure) for figure in one.points]) for one in psnr]
        numbers = table(["PSNR in dB", *(f"best of {k}" for k in ks)], rows)
        folded = f"<details><summary>The numbers</summary>{numbers}{_spread(results, part)}</details>"
        count = block(results, "latent_ebm", part)["items"]
        if part == "uncertain" and results["uncertain_by"] != "the data":
            title += f", judged by {results['uncertain_by']}"
        parts.append(f"<h3>{escape(title)}: {count}</h3>{charts}{legend(psnr)}{folded}")
    dotted = (
        " The dotted line is the exact posterior mean, the best that one prediction can be."
        if results["bounds"]
        else ""
    )
    return section(
        "How near the best of K samples comes",
        "".join(parts),
        "For each clip, K samples are drawn and the one nearest to what came counts; higher is nearer, "
        "bands are 95 % intervals. At K = 1 no single guess can have a smaller expected squared error than "
        "the mean of all futures, which least squares is trained to predict. With more samples a model "
        "that knows the possible futures can pull away. Whether mere variety does as well is for the "
        "controls to show: noise as strong as the EBM's variety, other least-squares networks, and the EBM "
        f"with a z drawn without looking at the context.{dotted}",
    )


def _spread(results: Results, part: str) -> str:
    names = _present(results, part)
    columns = [
        ("psnr_mean", "mean of samples", 2), ("psnr_worst", "worst sample", 2),
        ("psnr_of_mean_frame", "mean frame", 2), ("psnr_item_mean", "mean of dB per sample", 2),
        ("diversity", "diversity", 4), ("lpips", "LPIPS", 3),
    ]  # fmt: skip
    rows = [
        (LABELS[name], [cell(block(results, name, part).get(key), digits) for key, _, digits in columns])
        for name in names
    ]
    return table(["PSNR in dB, and more", *(label for _, label, _ in columns)], rows)


def sharpness(results: Results) -> str:
    """Bars of the gradient-energy ratio."""
    part = judged_part(results)
    items = [
        Series(LABELS[n], n, [block(results, n, part)["gradient_energy_ratio"]])
        for n in _present(results, part)
    ]
    exact = _exact(results, part, "posterior_mean").get("gradient_energy_ratio")
    if exact:
        items.append(Series("exact mean", "exact", [exact]))
    return section(
        "How sharp predictions are",
        bars(items, "Gradient energy of predictions over that of real frames"),
        "Gradient energy is the sum of squared differences between neighbouring pixels, here divided by "
        "that of the real frames: 1 (dotted) is as sharp as real, less is blurred, more is noisy. It is "
        "necessary for realism, not sufficient.",
    )


def distribution(results: Results) -> str:
    """Coverage, precision, total variation; nothing where the truth is unknown."""
    keys = ("coverage", "precision", "total_variation")
    rows = [
        (LABELS[name], [cell(block(results, name).get(key), 3) for key in keys]) for name in _present(results)
    ]
    if all(block(results, name).get("coverage") is None for name in _present(results)):
        return ""
    sampler = _exact(results, "uncertain", "exact_sampler")
    rows.append(
        (
            "exact sampler",
            [cell(sampler.get("coverage"), 3), "1 by definition", cell(sampler.get("total_variation"), 3)],
        )
    )
    samples = block(results, "latent_ebm")["K"]
    return section(
        "Against the true distribution of futures",
        table(["", "coverage", "precision", "total variation"], rows),
        f"All possible next frames and their probabilities are known in this world. Of {samples} samples a "
        "clip: coverage is the share of the possible futures that were hit, precision the share of the "
        "samples that hit one (within a quarter of the smallest squared distance between two futures), and "
        "total variation the distance between the frequencies and the true probabilities: 0 is perfect, 1 "
        "is all wrong. A perfect sampler with as many draws reaches the last line.",
    )


def energies(results: Results) -> str:
    """AUROC of the free energy against wrong frames."""
    rows = []
    beta = results["protocol"]["beta"]
    for name in _present(results):
        for key, label in (("auroc", "F"), ("auroc_beta", f"F at beta = {beta:g}")):
            if key == "auroc_beta" and name == "least_squares":
                continue  # one value of z: the same at every temperature
            areas = block(results, name).get(key) or {}
            rows.append(
                (f"{LABELS[name]}, {label}", [cell(areas.get(negative), 3) for negative in NEGATIVES])
            )
    return section(
        "Does the energy know what is plausible?",
        table(["free energy of", *NEGATIVES.values()], rows),
        "The chance (AUROC) that the frame which came has a lower free energy F(x, y) than a wrong one: 1 "
        "is always, 0.5 is a coin, near 0 means that the wrong one is preferred. Least squares prefers the "
        "blurred mean to every real frame, because that is what it predicts.",
    )


def leakage(results: Results) -> str:
    """What z says, and whether it says too much."""
    figures = block(results, "latent_ebm").get("leakage") or {}
    meaning = {
        "psnr_z_from_y": (
            "PSNR with z inferred from the frame itself, dB",
            "not a prediction: the answer was seen",
        ),
        "gap_mean": ("that, over one sample with z from x, dB", "large wherever the future is uncertain"),
        "gap_best": (
            "that, over the best sample with z from x, dB",
            "small where samples cover the futures; a few missed ones cost many dB",
        ),
        "swap_copied": ("z of another clip brought its picture along, share", "0: z carries no picture"),
        "energy_noise_ratio": (
            "free energy of noise over that of real frames",
            "far above 1: the energy is not flat",
        ),
        "energy_other_clip_ratio": ("free energy of another clip's frame over real", "far above 1"),
    }
    rows = [
        (text, [cell(figures.get(key)), escape(good)])
        for key, (text, good) in meaning.items()
        if figures.get(key)
    ]
    return section(
        "Does the latent leak?",
        table(["", "EBM", "what is good"], rows),
        "A latent that can say too much copies the answer: predictions with z from y would look perfect "
        "and those with z from x alone would not. So both are compared, z is moved to other clips, and "
        "frames that cannot come are rated. All other figures on this page use z from x alone.",
    )


def rollouts(results: Results, clips: Sequence[Row]) -> str:
    """Pictures and curves of roll-outs."""
    rolled = results["rollouts"]
    pictures = "".join(_tiles(row) for row in clips if row.rollout)
    if not rolled:
        return ""
    names = [name for name in LABELS if name in rolled]
    x = [float(h + 1) for h in range(rolled[names[0]]["horizon"])]
    count = rolled[names[0]]["K"]
    psnr = [Series(LABELS[name], name, rolled[name]["psnr_best_trajectory"]) for name in names]
    ratio = [Series(LABELS[name], name, rolled[name]["gradient_energy_ratio"]) for name in names]
    left = lines(x, psnr, "frames ahead", "PSNR, dB", f"PSNR of the best of {count} roll-outs")
    right = lines(
        x, ratio, "frames ahead", "gradient energy", "Gradient energy over that of real frames", reference=1.0
    )
    charts = f'<div class="pair"><div>{left}</div><div>{right}</div></div>{legend(psnr)}'
    return section(
        f"{len(x)} frames ahead",
        pictures + charts,
        f"Each predicted frame becomes context of the next. Left: of {count} roll-outs the one nearest to "
        f"the truth over all frames, followed through ({rolled[names[0]]['clips']} clips); the futures "
        "multiply, so it falls. Right: sharpness, real frames are 1. A blurred frame makes the next one "
        "more blurred; a sampled future has to stay sharp.",
    )
