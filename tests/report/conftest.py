"""Results of a comparison as compare writes them, with figures that are all different."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from ssl_ebm.report.animation import Row, Tile

KS = ("1", "5", "20", "100")


def figures(numbers: Iterator[int], low: float, step: float = 0.0137) -> Callable[[], list[float]]:
    """Makes ``[value, low, high]``, no two alike."""

    def one() -> list[float]:
        value = low + step * next(numbers)
        return [value, value - 0.011, value + 0.012]

    return one


def bar(
    what: str, value: float, wanted: str, verdict: str, interval: list[float] | None = None
) -> dict[str, Any]:
    """An expectation as `judge` writes it."""
    return {"what": what, "value": value, "wanted": wanted, "interval": interval, "verdict": verdict}


@pytest.fixture
def make_results() -> Callable[..., dict[str, Any]]:
    def make(known: bool = True, seeds: int = 3) -> dict[str, Any]:
        numbers = count(1)
        decibels, share = figures(numbers, 15.0), figures(numbers, 0.1, 0.00113)

        def block(latent: bool) -> dict[str, Any]:
            areas = {"other_clip": share(), "time_shuffled": share()}
            areas |= {"impossible": share() if known else None, "blurred_mean": share()}
            truth = {
                name: share() if known else None for name in ("coverage", "precision", "total_variation")
            }
            leak = ("psnr_z_from_y", "gap_mean", "gap_best", "swap_copied", "energy_noise_ratio")
            return {
                "psnr_k1": decibels(),
                "psnr_best_of": {k: decibels() for k in KS},
                "ssim_best_of": {k: share() for k in KS},
                "psnr_mean": decibels(),
                "psnr_worst": decibels(),
                "psnr_item_mean": decibels(),
                "psnr_of_mean_frame": decibels(),
                "gradient_energy_ratio": share(),
                "diversity": share(),
                "lpips": None,
                **truth,
                "auroc": areas,
                "auroc_beta": {name: share() if area else None for name, area in areas.items()},
                "leakage": {name: decibels() if latent else None for name in leak},
                "K": 100,
                "clips": 512,
                "items": 77,
                "seeds": seeds,
            }

        def blocks(name: str) -> dict[str, Any]:
            return {part: block(name in ("latent_ebm", "bank")) for part in ("all", "uncertain")}

        models = {
            name: {
                "parameters": 123_456 + i,
                "steps": 2500,
                "steps_per_second": 21.5 + i,
                "trainings": {str(seed): {"seconds": 100.0 + seed} for seed in range(seeds)},
                **blocks(name),
            }
            for i, name in enumerate(("least_squares", "latent_ebm"))
        }
        controls = ["matched_noise", "bank"] + (["ensemble"] if seeds > 1 else [])
        bounds = {
            part: {
                "posterior_mean": {"psnr": decibels(), "gradient_energy_ratio": share()},
                "exact_sampler": {
                    "total_variation": share(),
                    "coverage": share(),
                    "psnr_best_of": {k: decibels() for k in KS},
                },
            }
            for part in ("all", "uncertain")
        }
        gain = {kind: {k: [6.25, 5.75, 6.85] for k in KS} for kind in ("psnr_best_of", "ssim_best_of")}
        rolled = {
            name: {
                "psnr_best_trajectory": [decibels() for _ in range(4)],
                "gradient_energy_ratio": [share() for _ in range(4)],
                "K": 10,
                "horizon": 4,
                "clips": 48,
            }
            for name in models
        }
        return {
            "data": {"name": "MovingDigits", "digits": 1},
            "seeds": list(range(seeds)),
            "device": "cpu: x86_64, 2 cores",
            "seconds": 900.0,
            "seconds_by_phase": {"training": 700.0, "evaluation": 200.0},
            "models": models,
            "controls": {name: blocks(name) for name in controls},
            "bounds": bounds if known else None,
            "differences": {"least_squares": {"all": gain, "uncertain": gain}},
            "uncertain_by": "the data" if known else "the 25% of clips whose samples are most diverse",
            "rollouts": rolled,
            "protocol": {"beta": 1.0},
            "configs": {name: {"file": f"{name}.yaml", "settings": {"model": name}} for name in models},
            "versions": {"python": "3.12"},
            "bars": [bar("a thing", 0.5, "at least 0.25", "holds")],
        }

    return make


@pytest.fixture
def rows() -> list[Row]:
    """Pictures of a clip with a nasty name."""
    tile = Tile("what came", "truth", "data:image/webp;base64,UklGRg==", 1.0)
    return [Row("<script>alert('x')</script> & \"co\".mp4", False, 4, 8, [tile])]
