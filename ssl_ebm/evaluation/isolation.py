"""Looking at a model without leaving a trace in it, or in the random numbers that its training draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn


@contextmanager
def isolated(*models: object) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards every module's mode and all global generators are as
    before.

    Inference mode is off inside: an inference by gradient steps over z must be able to record a graph.
    """
    modules = [module for model in models if isinstance(model, nn.Module) for module in model.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with isolate_rng(), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def generator_for(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is a pure function of ``key``, and unrelated to those of other keys."""
    words = [len(key), *(k % 2**32 for k in key)]  # NumPy pads with zeros, so (0,) would be (0, 0)
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state) % 2**63)
