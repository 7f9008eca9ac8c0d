"""On a GPU: the same losses as on a processor, and training steps in which nothing waits for the device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_ebm.tasks import FramePrediction, Inpainting, MaskedText

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

PATCHES = {
    "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
    "init_args": {
        "size": 16, "width": 24, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1,
        "decoder_heads": 2, "parts": 4, "normalised": True,
    },
}  # fmt: skip
CONVOLUTIONAL = {
    "class_path": "ssl_ebm.networks.completion.ConvolutionalCompletion",
    "init_args": {"parts": 4, "width": 8, "levels": 1, "features": 16},
}
RANDOM = {"class_path": "ssl_ebm.data.masks.RandomPatches", "init_args": {"ratio": 0.75, "patch": 4}}
TEXT = {
    "class_path": "ssl_ebm.networks.text.TextEncoder",
    "init_args": {"vocabulary": 50, "width": 16, "depth": 1, "heads": 2, "length": 16},
}
MAKERS: dict[str, Callable[[], Any]] = {
    "frames, least squares": lambda: FramePrediction(objective="least_squares", width=16),
    "frames, latent": lambda: FramePrediction(width=16, codes=8),
    "frames, continuous latent": lambda: FramePrediction(
        width=16, latent="gaussian", inference="amortised_refined", latent_noise=0.0
    ),
    "pictures, convolutional": lambda: Inpainting(network=CONVOLUTIONAL, codes=5),
    "pictures, patches": lambda: Inpainting(network=PATCHES, mask=RANDOM, codes=5),
    "text": lambda: MaskedText(TEXT),
}


def batch_of(task: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    if isinstance(task, FramePrediction):
        return {"video": torch.rand(4, 5, 1, 16, 16, generator=generator)}
    if isinstance(task, Inpainting):
        return {"image": torch.rand(4, 3, 16, 16, generator=generator)}
    return {"tokens": torch.randint(5, 50, (4, 16), generator=generator)}


def loss_of(task: Any, batch: dict[str, Tensor]) -> Tensor:
    """A loss in which nothing is drawn on the device."""
    if isinstance(task, MaskedText):
        generator = torch.Generator().manual_seed(2)
        hidden = task.masking.hide(batch["tokens"].cpu(), task.ordinary.cpu(), generator=generator)
        energy, _ = task.energies(type(hidden)(*(one.to(task.device) for one in hidden)))
        return energy.sum() / hidden.counts.sum()
    if isinstance(task, Inpainting):
        x, y = task.occluded(batch["image"].cpu(), torch.Generator().manual_seed(2)), batch["image"]
        return task.losses(x.to(task.device), y, beta=1.0)["loss"]
    return task.losses(*task.split(batch), beta=10.0)["loss"]


@pytest.mark.parametrize("name", MAKERS)
def test_losses_and_gradients_are_those_of_a_processor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    task = MAKERS[name]().eval()  # no noise on z
    batch = batch_of(task)
    found = {}
    for device in ("cpu", "cuda"):
        task.to(device).zero_grad()
        loss = loss_of(task, {key: value.to(device) for key, value in batch.items()})
        loss.backward()
        gradients = [p.grad.cpu().clone() for p in task.parameters() if p.grad is not None]
        found[device] = (loss.detach().cpu(), torch.cat([one.flatten() for one in gradients]))
    torch.testing.assert_close(found["cuda"][0], found["cpu"][0], rtol=1e-4, atol=1e-5)
    scale = found["cpu"][1].norm()
    assert (found["cuda"][1] - found["cpu"][1]).norm() < 1e-3 * scale


@pytest.mark.parametrize("name", MAKERS)
def test_no_training_step_waits_for_the_device(name: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    task: LightningModule = MAKERS[name]()
    batch = batch_of(task)
    items = [{key: value[i] for key, value in batch.items()} for i in range(4)]
    step, calls = task.training_step, []

    def watched(*arguments: Any) -> Any:
        if len(calls) > 1:  # the first ones may set up libraries
            torch.cuda.set_sync_debug_mode("error")
        try:
            calls.append(step(*arguments))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return calls[-1]

    task.training_step = watched  # type: ignore[method-assign]
    trainer = Trainer(
        accelerator="gpu", devices=1, max_steps=5, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, DataLoader(items, batch_size=4))  # type: ignore[arg-type]
    assert trainer.global_step == 5
    assert len(calls) == 5


def test_waiting_would_be_seen() -> None:
    values = torch.ones(3, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            values.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
