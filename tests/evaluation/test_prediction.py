"""The whole evaluation on a toy world: right models get the right figures, wrong ones are told apart."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_ebm.evaluation.controls import Bank, Ensemble, MatchedNoise, matched_sigma
from ssl_ebm.evaluation.isolation import generator_for
from ssl_ebm.evaluation.prediction import evaluate_frames
from ssl_ebm.evaluation.records import FrameEvaluation
from ssl_ebm.evaluation.statistics import Bootstrap
from ssl_ebm.evaluation.summary import summarise


@pytest.fixture
def evaluation(world: Any, exact: Any, mean: Any, copier: Any) -> FrameEvaluation:
    sigma = matched_sigma(exact, world, range(len(world)))
    models = {
        "least_squares": [mean, mean],
        "latent_ebm": [exact, exact, exact],
        "noise": [MatchedNoise(mean, sigma)],
        "bank": [Bank(exact)],
        "copier": [copier],
    }
    return evaluate_frames(models, world, beta=0.5, batch_size=7, model_seeds=(0, 1, 2))


@pytest.fixture
def figures(evaluation: FrameEvaluation) -> dict[str, Any]:
    return summarise(evaluation, resamples=200)


def test_exact_model_covers_the_truth(figures: dict[str, Any]) -> None:
    block = figures["models"]["latent_ebm"]["uncertain"]
    assert block["precision"] == [1.0, 1.0, 1.0]
    assert block["coverage"][0] == pytest.approx(1.0, abs=1e-3)
    bound = figures["bounds"]["uncertain"]["exact_sampler"]
    assert block["total_variation"][0] == pytest.approx(bound["total_variation"][0], abs=0.02)
    assert figures["models"]["bank"]["uncertain"]["total_variation"][0] == pytest.approx(0.15, abs=0.03)
    assert block["gradient_energy_ratio"][0] == pytest.approx(1.0, abs=0.01)
    assert block["leakage"]["swap_copied"] == [0.0, 0.0, 0.0]


def test_least_squares_reaches_the_bound_and_hits_no_future(figures: dict[str, Any]) -> None:
    block, bound = (
        figures["models"]["least_squares"]["uncertain"],
        figures["bounds"]["uncertain"]["posterior_mean"],
    )
    assert block["psnr_k1"] == pytest.approx(bound["psnr"])
    assert block["gradient_energy_ratio"] == pytest.approx(bound["gradient_energy_ratio"])
    assert block["gradient_energy_ratio"][0] < 0.5
    assert (block["coverage"][0], block["precision"][0]) == (0.0, 0.0)
    assert block["total_variation"][0] == pytest.approx(1.0)
    assert block["psnr_best_of"]["100"] == pytest.approx(block["psnr_k1"])
    assert block["diversity"][0] == pytest.approx(0.0, abs=1e-12)
    assert block["leakage"]["psnr_z_from_y"] is None


def test_one_sample_loses_to_least_squares_and_many_win(figures: dict[str, Any]) -> None:
    """An exact sample has twice the posterior mean's squared error: 3 dB less."""
    models = figures["models"]
    ours, theirs = models["latent_ebm"]["uncertain"], models["least_squares"]["uncertain"]
    assert theirs["psnr_k1"][0] - ours["psnr_k1"][0] == pytest.approx(10 * np.log10(2), abs=0.7)
    assert ours["psnr_best_of"]["5"][0] > theirs["psnr_k1"][0]
    assert ours["psnr_of_mean_frame"][0] == pytest.approx(theirs["psnr_k1"][0], abs=0.1)
    difference = figures["differences"]["least_squares"]["uncertain"]["psnr_best_of"]["5"]
    assert difference[0] == pytest.approx(
        ours["psnr_best_of"]["5"][0] - theirs["psnr_best_of"]["5"][0], abs=1e-9
    )
    assert difference[1] > 0.0
    expected = figures["bounds"]["uncertain"]["exact_sampler"]["psnr_best_of"]["5"][0]
    assert ours["psnr_best_of"]["5"][0] == pytest.approx(expected, abs=0.3)


def test_noise_of_matched_variance_buys_nothing(figures: dict[str, Any]) -> None:
    models = figures["models"]
    noise, least = models["noise"]["uncertain"], models["least_squares"]["uncertain"]
    assert noise["psnr_best_of"]["20"][0] < least["psnr_k1"][0]
    assert models["latent_ebm"]["uncertain"]["psnr_best_of"]["20"][0] > noise["psnr_best_of"]["20"][0] + 5


def test_energy_tells_negatives_apart_where_it_should(figures: dict[str, Any]) -> None:
    exact = figures["models"]["latent_ebm"]["uncertain"]
    least = figures["models"]["least_squares"]["uncertain"]
    for kind in ("auroc", "auroc_beta"):
        assert all(exact[kind][name][0] == 1.0 for name in exact[kind]), exact[kind]
        assert least[kind]["blurred_mean"][0] == 0.0  # nothing pleases least squares more than its own blur
    copier = figures["models"]["copier"]["uncertain"]
    # Of the 23 other clips 8 are dim, and the copier gives all that is dim less energy: 15 / 23 / 2 = 0.33.
    assert copier["auroc"]["other_clip"][0] == pytest.approx(15 / 23 / 2, abs=0.2)
    assert figures["models"]["noise"]["uncertain"]["auroc"]["other_clip"] is None


def test_keys_of_any_length_name_different_draws() -> None:
    keys = [(), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0), (5,), (5, 0), (0, 5), (5, 0, 0), (1, 5), (2**32 - 1,)]
    assert len({generator_for(*key).initial_seed() for key in keys}) == len(keys)


def test_a_latent_that_carries_the_picture_is_found_out(figures: dict[str, Any]) -> None:
    leakage = figures["models"]["copier"]["all"]["leakage"]
    assert leakage["swap_copied"] == [1.0, 1.0, 1.0]
    assert leakage["energy_noise_ratio"][0] == pytest.approx(1.0, abs=0.01)
    assert figures["models"]["latent_ebm"]["all"]["leakage"]["gap_best"] is None  # infinite less infinite


def test_blocks_name_what_is_behind_them_and_are_json(figures: dict[str, Any]) -> None:
    json.dumps(figures, allow_nan=False)
    everything, uncertain = (figures["models"]["latent_ebm"][part] for part in ("all", "uncertain"))
    assert (everything["clips"], uncertain["clips"]) == (24, 16)
    assert (everything["K"], everything["horizon"], everything["seeds"]) == (100, 1, 3)
    assert everything["model_seeds"] == [0, 1, 2]
    assert everything["split"] == "test"
    assert list(everything["psnr_best_of"]) == ["1", "5", "20", "100"]
    assert everything["psnr_best_of"]["1"] == pytest.approx(everything["psnr_k1"])
    assert everything["coverage"] == uncertain["coverage"]  # a clip with one future has no scale
    assert everything["lpips"] is None
    assert figures["uncertain_by"] == "the data"


def test_figures_do_not_depend_on_which_other_models_are_there(world: Any, exact: Any, mean: Any) -> None:
    alone = evaluate_frames({"latent_ebm": [exact]}, world, samples=20, best_of=(1, 20))
    together = evaluate_frames({"a": [mean], "latent_ebm": [exact]}, world, samples=20, best_of=(1, 20))
    ours, same = alone.models["latent_ebm"], together.models["latent_ebm"]
    np.testing.assert_array_equal(ours.squared_error, same.squared_error)


def test_records_belong_to_their_clips_whatever_the_batches(world: Any, mean: Any) -> None:
    """A deterministic model gives each clip the same error in any batching, in the order of ``clips``."""
    clips = [5, 2, 9, 0, 7]
    for batch_size in (1, 2, 5):
        record = evaluate_frames(
            {"least_squares": [mean]}, world, clips, samples=2, best_of=(1,), batch_size=batch_size
        )
        assert record.clip.tolist() == clips
        for row, i in enumerate(clips):
            video = world[i]["video"]
            error = (mean.mean(video[None, :2])[0] - video[2]).square().sum()
            assert record.models["least_squares"].squared_error[0, row, 1] == pytest.approx(
                float(error), rel=1e-4, abs=1e-8
            )
        assert record.uncertain.tolist() == [i % 3 != 0 for i in clips]


def test_models_and_global_random_numbers_are_left_alone(world: Any, exact: Any) -> None:
    exact.train()
    exact.dropout.eval()
    before = torch.get_rng_state()
    evaluate_frames({"latent_ebm": [exact]}, world, samples=5, best_of=(1, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert exact.training
    assert not exact.dropout.training
    assert torch.is_grad_enabled()


class Unknown:
    """The same clips without the truth, as recorded video."""

    def __init__(self, world: Any) -> None:
        self.world = world

    def __len__(self) -> int:
        return len(self.world)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.world[index]
        return {"video": item["video"], "clip": item["clip"] // 2}


def test_without_the_truth_only_what_can_be_known_is_told(world: Any, exact: Any, mean: Any) -> None:
    models = {"least_squares": [mean], "latent_ebm": [exact, exact]}
    evaluation = evaluate_frames(models, Unknown(world), samples=20, best_of=(1, 20))
    figures = summarise(evaluation, resamples=100)
    block = figures["models"]["latent_ebm"]["uncertain"]
    assert figures["bounds"] is None
    assert block["coverage"] is None
    assert block["auroc"]["impossible"] is None
    assert block["auroc"]["blurred_mean"][0] == 1.0  # against the prediction of least squares
    assert "most diverse" in figures["uncertain_by"]
    assert block["items"] == 6
    assert not evaluation.uncertain[::3].any()  # the certain clips are not among them
    assert figures["models"]["latent_ebm"]["all"]["clips"] == 12  # two items of each clip
    json.dumps(figures, allow_nan=False)


class Recorded(Unknown):
    """Clips of recordings, three of each, whose numbers are in no order."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return item | {"group": 10**15 - 7 * (item["clip"] // 3)}


def test_intervals_are_over_recordings_where_these_are_known(world: Any, exact: Any) -> None:
    models = {"latent_ebm": [exact]}
    evaluation = evaluate_frames(models, Recorded(world), samples=4, best_of=(1,))
    assert evaluation.recording.tolist() == [3 * (clip // 3) for clip in evaluation.clip]
    block = summarise(evaluation, resamples=300)["models"]["latent_ebm"]["all"]
    assert (block["items"], block["clips"], block["recordings"]) == (24, 12, 4)
    error = evaluation.models["latent_ebm"].squared_error.mean(2)
    by_hand = Bootstrap(np.arange(24) // 6, resamples=300).psnr(error, evaluation.pixels)
    assert block["psnr_k1"] == pytest.approx(by_hand.interval().to_json())

    alone = evaluate_frames(models, Unknown(world), samples=4, best_of=(1,))
    assert (alone.recording == alone.clip).all()
    assert summarise(alone, resamples=10)["models"]["latent_ebm"]["all"]["recordings"] == 12


def test_wrong_requests_are_refused(world: Any, exact: Any) -> None:
    with pytest.raises(ValueError, match="between 1 and 10"):
        evaluate_frames({"latent_ebm": [exact]}, world, samples=10)
    with pytest.raises(ValueError, match="no clips"):
        evaluate_frames({"latent_ebm": [exact]}, world, [])


def test_progress_reaches_the_end(make_world: Callable[..., Any], mean: Any) -> None:
    seen: list[tuple[int, int]] = []
    evaluate_frames(
        {"least_squares": [mean]},
        mean.world,
        samples=2,
        best_of=(1,),
        batch_size=10,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(8, 24), (16, 24), (24, 24)]


def test_the_best_of_an_ensemble_is_that_of_as_many_networks(world: Any) -> None:
    """Of K samples up to its number of networks no two are of one network."""

    class Grey:
        context_frames = 2

        def __init__(self, level: float) -> None:
            self.level = level

        def sample(self, x: Tensor, samples: int, horizon: int = 1, generator: Any = None) -> Tensor:
            return torch.full((len(x), samples, horizon, *x.shape[2:]), self.level)

    levels = (0.1, 0.3, 0.5, 0.7)
    ensemble = Ensemble([Grey(level) for level in levels])
    found = evaluate_frames({"ensemble": [ensemble]}, world, samples=20, best_of=(1, 3, 4, 20))
    block = summarise(found, reference="ensemble")["models"]["ensemble"]["all"]
    truth = torch.stack([world[i]["video"][2] for i in range(len(world))])
    error = torch.stack([(truth - level).square().flatten(1).mean(1) for level in levels], 1)
    in_turn = error.repeat(1, 5)
    for k in (1, 3, 4, 20):
        best = torch.stack([in_turn[:, s : s + k].amin(1) for s in range(20 - k + 1)])
        expected = -10 * math.log10(float(best.mean()))
        assert block["psnr_best_of"][str(k)][0] == pytest.approx(expected, rel=1e-5)
