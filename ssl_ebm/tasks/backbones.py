"""What fine-tuning starts from: a pre-trained task, or the same network with random weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks.layers import Layers, representation_layers
from ssl_ebm.tasks.checkpoints import load_task, read_checkpoint
from ssl_ebm.tasks.frame_prediction import FramePrediction
from ssl_ebm.tasks.inpainting import Inpainting
from ssl_ebm.tasks.masked_text import MaskedText

Description = dict[str, Any]
Backbone = Inpainting | FramePrediction | MaskedText

BACKBONES: dict[str, type[Backbone]] = {
    task.__name__: task for task in (Inpainting, FramePrediction, MaskedText)
}


def make_backbone(
    path: str | None, description: Description | None, fresh: bool
) -> tuple[Backbone, Description]:
    """The task to start from, and its description by class_path and init_args.

    Args:
        path: a checkpoint of it.
        description: of the task, where there is no checkpoint.
        fresh: take the settings of the checkpoint (and the tokenizer of text) but random weights.

    Raises:
        UserError: neither is given, or it is none of the tasks that can be fine-tuned.
    """
    saved: dict[str, Any] = {}
    if path is not None:
        saved = read_checkpoint(path)
        name, settings = saved.get("task", "an unknown task"), saved.get("hyper_parameters", {})
    elif description is not None and "class_path" in description:
        name, settings = description["class_path"].rpartition(".")[2], description.get("init_args") or {}
    else:
        raise UserError("fine-tuning needs backbone_checkpoint, or backbone by class_path and init_args")
    if name not in BACKBONES:
        raise UserError(
            f"{path or 'backbone'} is of {name}: fine-tuning starts from one of {', '.join(BACKBONES)}"
        )
    kind = BACKBONES[name]
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    described = {"class_path": f"ssl_ebm.tasks.{name}", "init_args": settings}
    if path is not None and not fresh:
        return load_task(path, kind), described
    try:
        made = kind(**settings)
    except TypeError as error:
        raise UserError(f"backbone: {error}") from error
    if isinstance(made, MaskedText):
        made.tokenizer_json = saved.get("tokenizer")
    return made, described


def network_of(backbone: Backbone) -> nn.Module:
    """What makes the representation."""
    found = backbone.energy.predictor if isinstance(backbone, FramePrediction) else backbone.network
    assert found is not None
    return found


def trainable_layers(backbone: Backbone) -> Layers:
    """The layers of the representation, without what was never trained, such as fixed positions."""
    layers = representation_layers(network_of(backbone))
    return [[p for p in layer if p.requires_grad] for layer in layers]


def open_summary(backbone: Backbone) -> None:
    """Lets the features' summary learn, which least squares leaves as it was drawn."""
    summary = getattr(network_of(backbone), "summary", None)
    if summary is not None:
        summary.requires_grad_(True)


def width_of(backbone: Backbone) -> int:
    """D, features of the representation."""
    if isinstance(backbone, MaskedText):
        return backbone.network.width
    return int(
        backbone.network.features if isinstance(backbone, Inpainting) else backbone.hparams["features"]
    )
