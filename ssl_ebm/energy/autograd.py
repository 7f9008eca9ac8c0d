"""Gradients in the input of an energy, asked for from inside other code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ssl_ebm.errors import UserError


def needs_gradients(what: str) -> None:
    """Raises UserError under `torch.inference_mode`, in which nothing can ask for a gradient."""
    if torch.is_inference_mode_enabled():
        raise UserError(
            f"{what} needs gradients: use torch.no_grad() in place of torch.inference_mode() (in Lightning: "
            "Trainer(inference_mode=False))"
        )


@contextmanager
def frozen(energy: object) -> Iterator[None]:
    """No parameter of a module asks for a gradient inside, which saves what their gradients would keep.

    Anything that is no module stays as it is.
    """
    parameters = list(energy.parameters()) if isinstance(energy, nn.Module) else []
    asked = [p for p in parameters if p.requires_grad]
    for p in asked:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in asked:
            p.requires_grad_(True)
