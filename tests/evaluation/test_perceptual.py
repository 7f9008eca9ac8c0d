"""LPIPS is computed where its weights are on disk, and nothing is downloaded where they are not."""

from pathlib import Path

import pytest
import torch
import torchvision

from ssl_ebm.evaluation.perceptual import BACKBONE, lpips_if_on_disk


def test_absent_weights_mean_no_lpips_and_no_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    assert lpips_if_on_disk() is None
    assert BACKBONE in torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url


def test_lpips_with_weights_on_disk_is_a_distance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    """With random weights for the trained ones: 0 for equal frames, larger for larger differences."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    weights = torchvision.models.alexnet().state_dict()
    torch.save(weights, tmp_path / "checkpoints" / BACKBONE)
    monkeypatch.setattr(
        torchvision.models.AlexNet_Weights, "get_state_dict", lambda *_, **__: weights, raising=False
    )
    before = torch.get_rng_state()
    distance = lpips_if_on_disk()
    assert distance is not None
    assert torch.equal(torch.get_rng_state(), before)
    frames = torch.rand(2, 1, 32, 32)
    noise = torch.randn(2, 1, 32, 32)
    near, far = distance(frames, frames + 0.01 * noise), distance(frames, frames + 0.3 * noise)
    assert distance(frames, frames).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert (far > near).all()
    assert distance(frames[..., :16, :16], frames[..., :16, :16]).isnan().all()
