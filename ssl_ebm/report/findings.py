"""What the figures of a comparison say, in sentences: the finding, its limits, what to keep in mind."""

from collections.abc import Mapping
from typing import Any

from ssl_ebm.report.bars import (
    FAILS,
    UNDECIDED,
    block,
    clips_in_words,
    first,
    judged_part,
    resampled,
    with_verdict,
)
from ssl_ebm.report.sections import LABELS
from ssl_ebm.report.tables import interval, value

Results = Mapping[str, Any]

IGNORED_GAIN = 0.1  # dB from one sample to the best of all: samples that gain less hardly differ


def finding(results: Results) -> str:
    """The finding in a sentence: the best of 20 samples against one prediction, and sharpness."""
    part = judged_part(results)
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
    """Who wins with one guess, and why; nobody does where the interval of the paired difference holds 0."""
    part = judged_part(results)
    ours, theirs = (block(results, name, part)["psnr_k1"] for name in ("latent_ebm", "least_squares"))
    figures = f"{value(theirs)} dB against {value(ours)} dB for one sample of the EBM"
    exact = ((results["bounds"] or {}).get(part) or {}).get("posterior_mean", {}).get("psnr")
    bound = (
        ""
        if exact is None
        else f" The exact mean of all futures, the best possible single guess, has {value(exact)} dB."
    )
    gain = (results["differences"]["least_squares"].get(part) or {}).get("psnr_best_of", {}).get("1")
    if not interval(gain):
        return f"With a single guess: {figures}.{bound}"
    if gain[1] <= 0 <= gain[2]:
        return (
            f"With a single guess neither is seen to win PSNR, {figures} (95 % interval of the difference: "
            f"{interval(gain)}).{bound}"
        )
    if gain[2] < 0:
        return (
            f"With a single guess least squares wins PSNR, {figures}, and it must: no guess has a smaller "
            f"expected squared error than the mean of all futures, blurred as it is.{bound}"
        )
    return f"With a single guess least squares loses PSNR, {figures}: it is not trained to its best.{bound}"


def reasons(results: Results) -> list[str]:
    """Why the EBM gains no more than it does, as far as the figures tell; empty where nothing stands out.

    Of the best of 20 (or the most there are): gains that may be chance, or that one sample's loss eats up;
    a prior p(z | x) that does not help; sharpness that does not come from the latent.
    """
    part = judged_part(results)
    ours, theirs = block(results, "latent_ebm", part), block(results, "least_squares", part)
    k = "20" if "20" in ours["psnr_best_of"] else max(ours["psnr_best_of"], key=int)
    gains = {
        name: {kind: curve[k] for kind, curve in (parts.get(part) or {}).items()}
        for name, parts in results["differences"].items()
    }
    said = []
    unsure = [
        f"{kind} over {LABELS[name]} ({interval(gain, digits)})"
        for name in ("least_squares", "sharpened")
        for kind, key, digits in (("PSNR", "psnr_best_of", 2), ("SSIM", "ssim_best_of", 3))
        if (gain := gains.get(name, {}).get(key)) and None not in gain and gain[1] <= 0 < gain[2]
    ]
    if unsure:
        said.append(
            f"Zero lies within the interval of the gain in {' and in '.join(unsure)}: {clips_in_words(ours)} "
            "do not tell whether it is there."
        )
    costs = _numbers(
        gains.get("least_squares", {}).get("psnr_best_of"),
        theirs["psnr_k1"],
        ours["psnr_k1"],
        ours["psnr_best_of"][k],
    )
    if costs and costs[0] <= 0:
        _, mean, one, best = costs
        said.append(
            f"Why there is no gain: one sample costs {mean - one:.2f} dB against least squares, for it has "
            f"to choose a future, and the best of {k} wins {best - one:.2f} dB back."
        )
    among = gains.get("ensemble", {}).get("psnr_best_of")
    if among and among[0] is not None and among[0] <= 0:
        said.append(
            f"The best of {k} predictions by {len(results['seeds'])} least-squares networks is nearer to "
            f"what happened by {-among[0]:.2f} dB: trainings from this data differ by more than the latent "
            "explains."
        )
    foresight = gains.get("bank", {}).get("psnr_best_of")
    if foresight and None not in foresight and foresight[1] <= 0:
        said.append(
            f"The prior p(z | x) is not seen to help: the best of {k} samples with z from x comes "
            f"{value(foresight)} dB ({interval(foresight)}) nearer than with z drawn whatever x is. The "
            "codes say what changed; what is likely to change, the model does not know."
        )
    names = ("least_squares", "latent_ebm", "sharpened")
    ratios = _numbers(*(block(results, name, part).get("gradient_energy_ratio") for name in names))
    if ratios and ratios[0] < ratios[1] <= ratios[2]:
        said.append(
            f"The sharpness is that of more decided displacements, not of the latent: least squares with the "
            f"same setting has a gradient energy of {ratios[2]:.2f} of real frames, the EBM {ratios[1]:.2f}."
        )
    ratios = _numbers(*(block(results, name, part).get("gradient_energy_ratio") for name in names[:2]))
    if ratios and ratios[1] <= ratios[0] < 1:
        said.append(
            f"The samples are no sharper than least squares (gradient energy {ratios[1]:.2f} of real frames "
            f"against {ratios[0]:.2f}): each code still averages over what it does not say, and the same "
            "number of steps had to teach all codes."
        )
    return said


def _numbers(*figures: Any) -> list[float]:
    """The values of ``[value, low, high]``; empty if one of them is missing."""
    values = [number for number in map(first, figures) if number is not None]
    return values if len(values) == len(figures) else []


def caveats(results: Results) -> list[str]:
    """What limits the figures, in sentences."""
    part = judged_part(results)
    ours = block(results, "latent_ebm", part)
    everything = block(results, "latent_ebm", "all")
    uncertain = block(results, "latent_ebm", "uncertain").get("items", 0)
    seeds = len(results["seeds"])
    said = [
        *reasons(results),
        "Best of K looks at what came to choose among the samples. It measures whether the true future is "
        "among those that a model proposes; nobody can choose so when predicting. Compare it with the "
        "controls.",
        "PSNR is that of pooled squared error: errors are summed over all clips before the logarithm is "
        "taken. The mean of decibels clip by clip differs by many dB where some samples are nearly exact.",
        f"Figures are over {everything['items']} items of {clips_in_words(everything)}, {uncertain} "
        f"with an uncertain future (according to {results['uncertain_by']}), {everything['K']} samples "
        "each. Best of K is the mean over all subsets of K of these"
        + (", of the ensemble over K in a row." if "ensemble" in results["controls"] else "."),
        f"Intervals (95 %) come from a bootstrap over {resampled(everything)} and training seeds. "
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
    for verdict, words in (
        (FAILS, "do not hold"),
        (UNDECIDED, "are undecided, for 0 lies within their interval"),
    ):
        if rows := with_verdict(results, verdict):
            said.append(f"Expectations that {words}: {'; '.join(row['what'] for row in rows)}.")
    return said
