"""Negatives: partners from other clips, frames that are no negatives, energies in one call."""

from typing import Any

import pytest
import torch

from ssl_ebm.evaluation.leakage import swap_test
from ssl_ebm.evaluation.scores import coincide, free_energies, partners


def test_partners_belong_to_other_clips() -> None:
    clips = torch.tensor([3, 3, 5, 7, 3])
    partner = partners(clips)
    assert (clips[partner] != clips).all()
    assert partner.tolist() == [2, 2, 3, 4, 2]


def test_no_partner_in_a_batch_of_one_clip() -> None:
    assert partners(torch.tensor([4, 4])).tolist() == [-1, -1]
    assert partners(torch.tensor([], dtype=torch.int64)).tolist() == []


def test_a_plausible_future_is_recognised(world: Any) -> None:
    frames = world.futures(1).frames
    assert coincide(frames[2].clone(), frames)
    assert not coincide(world.impossible(1), frames)


def test_free_energies_in_one_call_equal_those_one_by_one(world: Any, exact: Any) -> None:
    class Candidates(type(exact)):  # type: ignore[misc]
        """Rates all candidates of a context at once."""

        def free_energies(self, x: torch.Tensor, y: torch.Tensor, betas: tuple[float, ...]) -> torch.Tensor:
            return torch.stack(
                [
                    torch.stack([self.free_energy(x, y[:, n], beta) for n in range(y.shape[1])], 1)
                    for beta in betas
                ]
            )

    x = torch.stack([world[i]["video"][:2] for i in range(4)])
    real = torch.stack([world[i]["video"][2] for i in range(4)])
    candidates = {"real": real, "noise": torch.rand(4, 1, 16, 16)}
    betas = (float("inf"), 0.7)
    for model in (exact, Candidates(world)):
        for beta, energies in zip(betas, free_energies(model, x, candidates, betas), strict=True):
            for name, y in candidates.items():
                assert energies[name].tolist() == pytest.approx(exact.free_energy(x, y, beta).tolist())


def test_swap_of_a_code_keeps_the_context_and_of_a_picture_does_not(
    world: Any, exact: Any, copier: Any
) -> None:
    x = torch.stack([world[i]["video"][:2] for i in (1, 2, 4)])
    y = torch.stack([world[i]["video"][2] for i in (1, 2, 4)])
    partner = torch.tensor([1, 2, -1])
    futures = [world.futures(i).frames for i in (1, 2, 4)]
    code, picture = (swap_test(model, x, y, partner, futures) for model in (exact, copier))
    assert code.copied[:2].tolist() == [0.0, 0.0]
    assert code.to_context[:2].tolist() == [0.0, 0.0]
    assert picture.copied[:2].tolist() == [1.0, 1.0]
    assert picture.to_source[:2].tolist() == [0.0, 0.0]
    assert code.copied[2].isnan()
    assert code.oracle.tolist() == picture.oracle.tolist() == [0.0, 0.0, 0.0]
