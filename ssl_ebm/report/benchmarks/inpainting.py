"""Suite "inpainting": training steps of a masked autoencoder beside Hugging Face's, and the loader.

A step is forward, loss on the hidden patches, backward and AdamW, on one batch that is in memory, with masks
that are given. Both have the same sizes and the same fused optimizer; neither is compiled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_ebm.data import ImageFolder
from ssl_ebm.networks.masked_autoencoder import MaskedAutoencoder, patchify
from ssl_ebm.report.benchmarks.loading_rates import WORKERS, Loading
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.steps import Loss, dtype_name, promises, step_row, stepping
from ssl_ebm.report.benchmarks.suites import Part
from ssl_ebm.report.benchmarks.timing import Effort, has_bfloat16
from ssl_ebm.tasks.memory import keep_freed_memory

SUITE = "inpainting"
PEER = "transformers"
BATCH, HIDDEN = 64, 0.75  # pictures; share of the patches
SIZES: dict[str, Any] = {
    "size": 32, "patch": 4, "width": 192, "depth": 6, "heads": 3, "decoder_width": 96, "decoder_depth": 2,
    "decoder_heads": 3,
}  # fmt: skip
GAIN = {"float32": 1.2, "bfloat16": 1.5}  # times the rate of the peer
PICTURES = 512  # of the generated folder
CASE = "training step, 32x32, patch 4, width 192, 6 + 2 layers, 3/4 hidden, batch 64"


def parts(effort: Effort) -> list[Part]:
    """What the suite measures, in order."""
    keep_freed_memory()
    dtypes = [torch.float32, *([torch.bfloat16] if has_bfloat16(effort.device) else [])]
    seconds = 3 * (effort.repeats * (effort.seconds + 0.3) + 1)
    steps = [Part(f"steps, {dtype_name(one)}", seconds, partial(step_rows, effort, one)) for one in dtypes]
    return [*steps, Part("loading", seconds, partial(image_loading_rows, effort))]


def step_rows(
    effort: Effort, dtype: torch.dtype, sizes: dict[str, Any] = SIZES, batch: int = BATCH
) -> Iterator[Row]:
    """Pictures per second of our training step, beside the peer's where it is installed."""
    device = effort.device
    images, noise = example(sizes, batch, device)
    peer = peer_loss(sizes, images, noise) if find_spec(PEER) else None
    name = f"ViTMAE, {PEER} {version(PEER)}" if peer else None
    row = partial(Row, SUITE, CASE, dtype_name(dtype))
    yield step_row(row, effort, dtype, our_loss(sizes, images, noise), peer, name, batch, "images/s")


def example(sizes: dict[str, Any], batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W), and noise (B, N) whose lowest quarter of the patches is visible."""
    generator = torch.Generator().manual_seed(0)
    side = sizes["size"]
    images = torch.rand(batch, 3, side, side, generator=generator)
    noise = torch.rand(batch, (side // sizes["patch"]) ** 2, generator=generator)
    return images.to(device), noise.to(device)


def our_loss(sizes: dict[str, Any], images: Tensor, noise: Tensor) -> tuple[nn.Module, Loss]:
    """Our network, and its mean squared error on the hidden patches of the pictures."""
    torch.manual_seed(0)
    network = MaskedAutoencoder(channels=3, **sizes).to(images.device)
    visible = int(noise.shape[1] * (1 - HIDDEN))
    hidden = noise.argsort(1).argsort(1) >= visible

    def loss() -> Tensor:
        error = (network(images, hidden, visible) - patchify(images, network.patch)).square().mean(2)
        return (error * hidden).sum() / hidden.sum()

    return network, loss


def peer_loss(sizes: dict[str, Any], images: Tensor, noise: Tensor) -> tuple[nn.Module, Loss]:
    """Hugging Face's ViTMAE of the same sizes, as it comes, and its loss."""
    peer: Any = import_module(PEER)
    torch.manual_seed(0)
    network = peer.ViTMAEForPreTraining(
        peer.ViTMAEConfig(
            image_size=sizes["size"],
            patch_size=sizes["patch"],
            num_channels=3,
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["heads"],
            intermediate_size=4 * sizes["width"],
            decoder_hidden_size=sizes["decoder_width"],
            decoder_num_hidden_layers=sizes["decoder_depth"],
            decoder_num_attention_heads=sizes["decoder_heads"],
            decoder_intermediate_size=4 * sizes["decoder_width"],
            mask_ratio=HIDDEN,
        )
    ).to(images.device)
    return network, lambda: network(images, noise=noise).loss


def image_loading_rows(effort: Effort) -> Iterator[Row]:
    """Pictures per second of a loader with crops and mirroring; the peer is our float32 step."""
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))

        def make(workers: int) -> ImageFolder:
            size = SIZES["size"]
            return ImageFolder(folder, size=size, flip=True, crop=0.2, batch_size=BATCH, workers=workers)

        loading = {workers: Loading(make, workers) for workers in WORKERS}
        step = stepping(*our_loss(SIZES, *example(SIZES, BATCH, effort.device)), torch.float32)
        works = {f"workers {workers}": one.work for workers, one in loading.items()}
        rates = effort.rates({"step": step, **works})
        for workers in WORKERS:
            yield Row(
                SUITE,
                f"load 32x32 with crops and flips, {workers} worker{'' if workers == 1 else 's'}",
                "float32",
                rates[f"workers {workers}"] * BATCH,
                "images/s",
                rates["step"] * BATCH,
                "training step",
                rates.ratio(f"workers {workers}", "step"),
            )


def write_pictures(folder: Path, count: int = PICTURES) -> None:
    """JPEG files of noise."""
    noise = np.random.default_rng(0)
    for number in range(count):
        pixels = noise.integers(0, 256, (SIZES["size"], SIZES["size"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.jpg")


def summary(rows: Sequence[Row]) -> list[str]:
    """What is promised of this suite, and what was measured."""
    return promises(rows, CASE, GAIN, PEER)
