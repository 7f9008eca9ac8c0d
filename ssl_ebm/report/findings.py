"""What the figures of a comparison say, in sentences: the finding, and what to keep in mind."""

from collections.abc import Mapping
from typing import Any

from ssl_ebm.report.bars import block
from ssl_ebm.report.tables import interval, value

Results = Mapping[str, Any]

IGNORED_GAIN = 0.1  # dB from one sample to the best of all: samples that gain less hardly differ


def _part(results: Results) -> str:
    return "uncertain" if block(results, "latent_ebm") else "all"


def finding(results: Results) -> str:
    """The finding in a sentence: the best of 20 samples against one prediction, and sharpness."""
    part = _part(results)
    ours, theirs = block(results, "latent_ebm", part), block(results, "least_squares", part)
    k = "20" if "20" in ours["psnr_best_of"] else max(ours["psnr_best_of"], key=int)
    gain = results["differences"]["least_squares"][part]["psnr_best_of"][k]
    where = "Where the future is uncertain" if part == "uncertain" else "On all clips"
    sharpness = (
        f"its samples have {value(ours['gradient_energy_ratio'])} times the gradient energy (sharpness) of "
        f"real frames, least squares {value(theirs['gradient_energy_ratio'])} times"
    )
    best = f"the best of {k} samples of the latent-variable EBM comes"
    if gain is None or gain[0] is None:
        return f"{where}, the gain of the best of {k} samples is undefined; {sharpness}."
    if gain[0] <= 0:
        found = f"{best} no nearer to what happened than least squares ({value(gain, 1)} dB)"
    else:
        found = f"{best} {value(gain, 1)} dB nearer to what happened than least squares"
        if gain[1] is not None and gain[1] <= 0:
            found += f", which may be chance (95 % interval {interval(gain, 1)})"
    return f"{where}, {found}; {sharpness}."


def single_guess(results: Results) -> str:
    """Who wins with one guess, and why."""
    part = _part(results)
    ours, theirs = (block(results, name, part)["psnr_k1"] for name in ("latent_ebm", "least_squares"))
    figures = f"{value(theirs)} dB against {value(ours)} dB for one sample of the EBM"
    exact = ((results["bounds"] or {}).get(part) or {}).get("posterior_mean", {}).get("psnr")
    bound = (
        ""
        if exact is None
        else f" The exact mean of all futures, the best possible single guess, has {value(exact)} dB."
    )
    if ours is None or theirs is None or theirs[0] is None or ours[0] is None:
        return f"With a single guess: {figures}.{bound}"
    if theirs[0] >= ours[0]:
        return (
            f"With a single guess least squares wins PSNR, {figures}, and it must: no guess has a smaller "
            f"expected squared error than the mean of all futures, blurred as it is.{bound}"
        )
    return f"With a single guess least squares loses PSNR, {figures}: it is not trained to its best.{bound}"


def caveats(results: Results) -> list[str]:
    """What limits the figures, in sentences."""
    part = _part(results)
    ours = block(results, "latent_ebm", part)
    everything = block(results, "latent_ebm", "all")
    seeds = len(results["seeds"])
    said = [
        "Best of K looks at what came to choose among the samples. It measures whether the true future is "
        "among those that a model proposes; nobody can choose so when predicting. Compare it with the "
        "controls.",
        "PSNR is that of pooled squared error: errors are summed over all clips before the logarithm is "
        "taken. The mean of decibels clip by clip differs by many dB where some samples are nearly exact.",
        f"Figures are over {everything['items']} items of {everything['clips']} test clips, {ours['items']} "
        f"with an uncertain future (according to {results['uncertain_by']}), {everything['K']} samples "
        "each. Best of K is the mean over all subsets of K of these.",
        "Intervals (95 %) come from a bootstrap over test clips and training seeds. "
        + (
            "With one seed they say nothing about other trainings."
            if seeds == 1
            else f"With {seeds} seeds the spread between trainings is underestimated."
        ),
    ]
    most = max(ours["psnr_best_of"], key=int)
    one, best = ours["psnr_k1"], ours["psnr_best_of"][most]
    if one and best and None not in (one[0], best[0]) and best[0] - one[0] < IGNORED_GAIN:
        said.append(
            f"The latent is ignored: the best of {most} samples gains {best[0] - one[0]:.2f} dB over one. "
            "Train again with model.paint_anchors, or another seed."
        )
    if "ensemble" not in results["controls"]:
        said.append(
            "The control by an ensemble of least-squares networks needs two seeds or more: it is not shown."
        )
    else:
        said.append(f"The ensemble has {seeds} networks: beyond K = {seeds} its samples repeat.")
    said.append(
        "The noise control adds noise of the EBM's own standard deviation on validation clips with an "
        "uncertain future, and clips the result to the range of pixel values."
    )
    if "sharpened" in {**results["controls"], **(results["rollouts"] or {})}:
        said.append(
            "The EBM's predictions take displacements more decided than in training (sharpness, "
            "rollout_sharpness), which blurs less and errs more. Sharpened least squares does the same."
        )
    said.append(
        "The test of moving z to another clip is trivial for a decoder that only moves pixels of the "
        "context; this one can also paint, if little."
    )
    if any(row["steps_per_second"] for row in results["models"].values()):
        said.append("Steps per second were measured while several trainings shared the machine.")
    failed = [row["what"] for row in results["bars"] if not row["holds"]]
    if failed:
        said.append(f"Expectations that do not hold: {'; '.join(failed)}.")
    return said
