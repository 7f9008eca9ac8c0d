"""What a comparison is expected to show, and whether it did: set before looking, and reported either way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class Bar:
    """One expectation.

    Attributes:
        what: of which figure, in words.
        value: the figure, of a results dictionary; None where it does not exist.
        low, high: it must lie between them.
        paired: the figure as a paired difference [value, low, high], by whose 95 % interval a limit of 0 is
            judged; None, or where there is no interval: by the value.
    """

    what: str
    value: Callable[[Results], float | None]
    low: float = float("-inf")
    high: float = float("inf")
    paired: Callable[[Results], Sequence[Any] | None] | None = None

    @property
    def wanted(self) -> str:
        if self.low == float("-inf"):
            return f"at most {self.high:g}"
        if self.high == float("inf"):
            return "above 0" if self.low == 0 else f"at least {self.low:g}"
        return f"{self.low:g} to {self.high:g}"


def judged_part(results: Results) -> str:
    """The clips that a comparison is judged on: those with an uncertain future where the data says which they
    are, else all. Where a model's own samples say so, its opinion must not choose the clips it is judged on.
    """
    known = results["bounds"] is not None and results["models"]["latent_ebm"].get("uncertain")
    return "uncertain" if known else "all"


def block(results: Results, name: str, part: str | None = None) -> Mapping[str, Any]:
    """The figures of a model or control on a part of the clips (None: `judged_part`); empty where there are
    none."""
    part = part or judged_part(results)
    return (results["models"].get(name) or results["controls"].get(name) or {}).get(part) or {}


def clips_in_words(figures: Mapping[str, Any]) -> str:
    """How many clips figures are over, and of how many recordings where these are fewer: "36 test clips of 27
    recordings"."""
    several = _drawn_by_recording(figures)
    return f"{figures['clips']} test clips" + (f" of {figures['recordings']} recordings" if several else "")


def resampled(figures: Mapping[str, Any]) -> str:
    """What the bootstrap of these figures draws."""
    return "recordings of test clips" if _drawn_by_recording(figures) else "test clips"


def _drawn_by_recording(figures: Mapping[str, Any]) -> bool:
    return 1 < figures.get("recordings", figures["clips"]) < figures["clips"]


def first(figure: Any) -> float | None:
    """The value of ``[value, low, high]``."""
    return None if not figure else figure[0]


def _of(name: str, *keys: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        found: Any = block(results, name)
        for key in keys:
            found = (found or {}).get(key)
        return first(found)

    return value


def _over(control: str, kind: str = "psnr_best_of") -> Callable[[Results], float | None]:
    """Best of 20 of the latent model over that of a control."""

    def value(results: Results) -> float | None:
        ours = first((block(results, "latent_ebm").get(kind) or {}).get("20"))
        theirs = first((block(results, control).get(kind) or {}).get("20"))
        return None if ours is None or theirs is None else ours - theirs

    return value


def _paired(control: str, kind: str = "psnr_best_of") -> Callable[[Results], Sequence[Any] | None]:
    """The same with its interval."""

    def difference(results: Results) -> Sequence[Any] | None:
        curves = (results["differences"].get(control) or {}).get(judged_part(results)) or {}
        found: Sequence[Any] | None = (curves.get(kind) or {}).get("20")
        return found

    return difference


def _beyond_chance(what: str, control: str, kind: str = "psnr_best_of") -> Bar:
    """That the best of 20 of the latent model is better than that of a control."""
    return Bar(what, _over(control, kind), 0.0, paired=_paired(control, kind))


def _bound(results: Results, key: str) -> float | None:
    exact = ((results["bounds"] or {}).get("uncertain") or {}).get("posterior_mean") or {}
    return first(exact.get(key))


def _from_bound(key: str, ours: str) -> Callable[[Results], float | None]:
    """Distance of least squares from the exact posterior mean."""

    def value(results: Results) -> float | None:
        exact, learnt = _bound(results, key), first(block(results, "least_squares").get(ours))
        return None if exact is None or learnt is None else abs(learnt - exact)

    return value


def _closer_to_one(results: Results) -> float | None:
    ratios = [
        first(block(results, name).get("gradient_energy_ratio")) for name in ("least_squares", "latent_ebm")
    ]
    return None if None in ratios else abs(ratios[0] - 1) - abs(ratios[1] - 1)  # type: ignore[operator]


def _sharp_to_the_end(results: Results) -> float | None:
    curve = ((results["rollouts"] or {}).get("latent_ebm") or {}).get("gradient_energy_ratio")
    return first(curve[-1]) if curve else None


_SHARPNESS = "gradient energy of the EBM's samples over that of real frames"
SMALL_WORLD = (
    Bar("least squares from the exact mean, dB", _from_bound("psnr", "psnr_k1"), high=0.3),
    Bar(
        "least squares from the exact mean, gradient energy over that of real frames",
        _from_bound("gradient_energy_ratio", "gradient_energy_ratio"),
        high=0.05,
    ),
    Bar(_SHARPNESS, _of("latent_ebm", "gradient_energy_ratio"), 0.9, 1.1),
    Bar("EBM's best of 20 over least squares, dB", _over("least_squares"), 5.0),
    Bar("EBM's best of 20 over that of matched noise, dB", _over("matched_noise"), 5.0),
    Bar("EBM's best of 20 over that of the ensemble, dB", _over("ensemble"), 5.0),
    Bar("share of the possible futures that the EBM's samples cover", _of("latent_ebm", "coverage"), 0.85),
    Bar("share of the EBM's samples that are a possible future", _of("latent_ebm", "precision"), 0.85),
    Bar(
        "total variation of the EBM's samples from the truth", _of("latent_ebm", "total_variation"), high=0.25
    ),
    Bar("AUROC against another clip's frame", _of("latent_ebm", "auroc", "other_clip"), 0.99),
    Bar("AUROC against a digit that goes into the wall", _of("latent_ebm", "auroc", "impossible"), 0.95),
    Bar("AUROC against the blurred mean", _of("latent_ebm", "auroc", "blurred_mean"), 0.95),
)
LARGE_WORLD = (
    Bar("EBM's best of 20 over least squares, dB", _over("least_squares"), 3.0),
    Bar(_SHARPNESS, _of("latent_ebm", "gradient_energy_ratio"), 0.85),
    Bar("the same at the end of the roll-out", _sharp_to_the_end, 0.85),
)
UNKNOWN_WORLD = (
    _beyond_chance("EBM's best of 20 over least squares, PSNR in dB", "least_squares"),
    _beyond_chance("EBM's best of 20 over least squares, SSIM", "least_squares", "ssim_best_of"),
    _beyond_chance("EBM's best of 20 over that of sharpened least squares, PSNR in dB", "sharpened"),
    Bar("how much closer to 1 the EBM's gradient-energy ratio is", _closer_to_one, 0.0),
)


def _over_classical(results: Results) -> float | None:
    """One completion of least squares over the better of Telea's and Navier-Stokes."""
    ours = first(block(results, "least_squares").get("psnr_k1"))
    known = [first(block(results, name).get("psnr_k1")) for name in ("telea", "navier_stokes")]
    theirs = [one for one in known if one is not None]
    return None if ours is None or not theirs else ours - max(theirs)


COMPLETIONS = (
    Bar("least squares over the better of Telea and Navier-Stokes, dB", _over_classical, 1.5),
    Bar("EBM's best of 20 over least squares, dB", _over("least_squares"), 1.5),
    Bar("EBM's best of 20 over that of matched noise, dB", _over("matched_noise"), 1.5),
    Bar("EBM's best of 20 over that of the ensemble, dB", _over("ensemble"), 1.5),
    Bar("how much closer to 1 the EBM's gradient-energy ratio is", _closer_to_one, 0.0),
)


def expectations(results: Results) -> tuple[Bar, ...]:
    """Those of the data at hand."""
    if results.get("task") == "Inpainting":
        return COMPLETIONS
    if results["bounds"] is None:
        return UNKNOWN_WORLD
    return SMALL_WORLD if results["data"].get("digits") == 1 else LARGE_WORLD


def judge(results: Results) -> list[dict[str, Any]]:
    """``{"what", "value", "wanted", "interval", "verdict"}`` for each; on the clips of `judged_part`.

    `verdict` is "holds" or "does not hold". Where it is judged by an ``interval`` [low, high], of which all
    must be above 0 to hold and nothing is not to, it is "undecided" between; else ``interval`` is null. An
    expectation whose figure does not exist (an ensemble of one network) is left out.
    """
    rows = []
    for bar in expectations(results):
        value = bar.value(results)
        if value is None:
            continue
        paired = bar.paired(results) if bar.paired is not None else None
        interval = list(paired[1:]) if paired and None not in paired else None
        low, high = interval or (value, value)
        if bar.low == 0:
            verdict = HOLDS if low > 0 else FAILS if high <= 0 else UNDECIDED
        else:
            verdict = HOLDS if bar.low <= value <= bar.high else FAILS
        row = {"what": bar.what, "value": value, "wanted": bar.wanted, "interval": interval}
        rows.append(row | {"verdict": verdict})
    return rows


def with_verdict(results: Results, verdict: str) -> list[Mapping[str, Any]]:
    """The expectations of ``results["bars"]`` with this verdict."""
    return [row for row in results["bars"] if row["verdict"] == verdict]
