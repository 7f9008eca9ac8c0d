"""The whole command at a tiny size: what it writes, and that running it again trains nothing anew."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssl_ebm.cli import main
from ssl_ebm.data import MovingDigits
from ssl_ebm.report.assessment import Protocol, evenly
from ssl_ebm.report.compare import compare
from ssl_ebm.tasks.saving import last_checkpoint

CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "ssl_ebm.tasks.frame_prediction.FramePrediction",
        "init_args": {"context_frames": 3, "width": 8, "levels": 1, "codes": 4, "features": 16, "paints": 1},
    },
    "data": {
        "class_path": "ssl_ebm.data.MovingDigits",
        "init_args": {
            "size": 20,
            "digit_size": 10,
            "context_frames": 3,
            "eval_future_frames": 3,
            "batch_size": 4,
            "glyphs_per_digit": 2,
            "val_clips": 40,
            "test_clips": 60,
        },
    },
    "trainer": {
        "max_steps": 3,
        "accelerator": "cpu",
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    },
}
PROTOCOL = Protocol(clips=40, samples=20, horizon=10, rollout_clips=3, rollout_samples=3)


def configs(folder: Path) -> list[Path]:
    paths = []
    for objective in ("least_squares", "latent_ebm"):
        content = deepcopy(CONFIG)
        content["model"]["init_args"]["objective"] = objective
        paths.append(folder / f"{objective}.yaml")
        paths[-1].write_text(yaml.safe_dump(content))
    return paths


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and what ``compare`` returned."""
    folder, told = tmp_path_factory.mktemp("compare"), MovingDigits.settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(MovingDigits, "settings", lambda data: {**told(data), "password": "s3cr3t"})
        return folder, compare(configs(folder), folder / "out", seeds=[3, 5], protocol=PROTOCOL)


def triples(tree: Any, path: str = "") -> Iterator[tuple[str, list[float]]]:
    """All figures ``[value, low, high]``."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from triples(value, f"{path}/{key}")
    elif isinstance(tree, list) and len(tree) == 3 and all(isinstance(v, float) for v in tree):
        yield path, tree
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from triples(value, f"{path}/{i}")


@pytest.mark.slow
def test_results_hold_what_is_promised(done: tuple[Path, dict[str, Any]]) -> None:
    folder, returned = done
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results == returned
    assert {"data", "seeds", "device", "seconds", "models", "bounds"} <= results.keys()
    assert results["seeds"] == [3, 5]
    assert results["seconds"] == pytest.approx(sum(results["seconds_by_phase"].values()))
    assert results["data"]["items"] == {"train": 32768, "val": 40, "test": 60}
    assert results["data"]["evaluated"]["items"] == 40
    assert results["data"]["password"] == "HIDDEN"
    assert "s3cr3t" not in (folder / "out" / "report.html").read_text()
    assert set(results["models"]) == {"least_squares", "latent_ebm"}
    assert set(results["controls"]) == {"matched_noise", "ensemble", "bank"}
    for name, model in results["models"].items():
        assert model["parameters"] > 0
        assert model["steps_per_second"] > 0
        for part in ("all", "uncertain"):
            block = model[part]
            assert set(block["psnr_best_of"]) == set(block["ssim_best_of"]) == {"1", "5", "20"}
            assert set(block["auroc"]) == {"other_clip", "time_shuffled", "impossible", "blurred_mean"}
            for key in ("psnr_k1", "gradient_energy_ratio"):
                assert len(block[key]) == 3
        for key in ("coverage", "precision", "total_variation"):
            assert len(model["uncertain"][key]) == 3
        assert isinstance(model["uncertain"]["leakage"], dict)
        best = [model["uncertain"]["psnr_best_of"][k][0] for k in ("1", "5", "20")]
        assert best == sorted(best)
        if name == "least_squares":
            assert best[0] == pytest.approx(best[2])
    exact = results["bounds"]["uncertain"]
    assert exact["posterior_mean"]["psnr"][0] > results["models"]["latent_ebm"]["uncertain"]["psnr_k1"][0]
    assert results["bars"]


@pytest.mark.slow
def test_intervals_are_ordered(done: tuple[Path, dict[str, Any]]) -> None:
    results = done[1]
    parts = {key: results[key] for key in ("models", "controls", "bounds", "differences", "rollouts")}
    found = list(triples(parts))
    assert len(found) > 100
    for path, (_, low, high) in found:
        assert low <= high, path


@pytest.mark.slow
def test_every_training_can_be_used_afterwards(done: tuple[Path, dict[str, Any]]) -> None:
    for name in ("least_squares", "latent_ebm"):
        for seed in (3, 5):
            run = done[0] / "out" / name / f"seed{seed}"
            assert last_checkpoint(run).is_file()
            assert yaml.safe_load((run / "config.yaml").read_text())["seed_everything"] == seed
            assert (run / "metrics").is_dir()


@pytest.mark.slow
def test_running_again_trains_nothing_and_finds_the_same(
    done: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = done
    checkpoints = sorted((folder / "out").rglob("last.ckpt"))
    written = [path.stat().st_mtime_ns for path in checkpoints]
    again = compare(configs(folder), folder / "out", seeds=[3, 5], protocol=PROTOCOL)
    assert [path.stat().st_mtime_ns for path in checkpoints] == written
    assert "already trained" in capsys.readouterr().out
    for key in ("models", "controls", "bounds", "rollouts", "bars"):
        assert again[key] == before[key]


@pytest.mark.slow
def test_page_shows_the_figures_and_clips(done: tuple[Path, dict[str, Any]]) -> None:
    page = (done[0] / "out" / "report.html").read_text()
    block = done[1]["models"]["latent_ebm"]["uncertain"]
    assert f"{block['psnr_best_of']['20'][0]:.2f}" in page
    assert page.count('class="film') == 4 * 9 + 2 * 6
    assert "2 frames ahead" not in page
    assert "3 frames ahead" in page


def test_wrong_requests_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in configs(tmp_path)]
    both = ["--config", paths[0], "--config", paths[1], "--out", str(tmp_path / "out")]
    (tmp_path / "file").write_text("")
    for arguments, word in (
        ([*both, "--seeds", "1", "1"], "seeds"),
        ([*both, "--samples", "1"], "samples is 1"),
        ([*both, "--clips", "0"], "clips is 0"),
        ([*both[:4], "--out", str(tmp_path / "file" / "out")], "--out"),
    ):
        assert main(["compare", *arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert word in lines[0]
    assert not (tmp_path / "out" / "latent_ebm").exists()


def test_evenly_spreads_over_the_split() -> None:
    assert evenly(3, 9) == [1, 4, 7]
    assert evenly(5, 3) == [0, 1, 2]
    assert evenly(1000, 1024) == sorted(set(evenly(1000, 1024)))
