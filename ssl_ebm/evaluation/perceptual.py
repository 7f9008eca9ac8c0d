"""LPIPS, only where its weights are on disk: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

BACKBONE = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet_Weights.IMAGENET1K_V1
SMALLEST = 32  # pixels a side: AlexNet's pooling leaves nothing of smaller frames

Distance = Callable[[Tensor, Tensor], Tensor]


def lpips_if_on_disk(device: torch.device | str = "cpu") -> Distance | None:
    """The LPIPS distance (Zhang et al., The unreasonable effectiveness of deep features as a perceptual
    metric, 2018; AlexNet).

    Returns a function (B, C, H, W), (B, C, H, W) in [0, 1] -> (B,), C of 1 or 3; None where torch hub's
    folder has no AlexNet. Its linear heads come with torchmetrics.
    """
    if not (Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE).is_file():
        return None
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.random.fork_rng(devices=[]):  # the network's throw-away initial weights are drawn globally
        network = _LPIPS(pretrained=True, net="alex", eval_mode=True).to(device).eval()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        if min(a.shape[-2:]) < SMALLEST:
            return a.new_full((len(a),), float("nan"))
        a, b = (frames.expand(-1, 3, -1, -1) if frames.shape[1] == 1 else frames for frames in (a, b))
        with torch.no_grad():
            return network(a, b, normalize=True).flatten()

    return distance
