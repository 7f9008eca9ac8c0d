"""The exchangeable parts of a frame-prediction model, made from its settings."""

import math
from collections.abc import Mapping
from typing import Any

from ssl_ebm.energy import (
    Amortised,
    AmortisedRefined,
    Enumeration,
    FiniteLatent,
    GradientDescent,
    Inference,
    Latent,
    PredictiveEnergy,
    check_beta,
)
from ssl_ebm.errors import UserError
from ssl_ebm.networks import (
    BasisEncoder,
    TransportDecoder,
    TransportPredictor,
    shifts,
)
from ssl_ebm.tasks.latent_parts import make_latent


def make_energy(settings: Mapping[str, Any]) -> PredictiveEnergy:
    """E(x, y, z), with its networks and its latent."""
    space = make_latent(settings)
    shared = {name: settings[name] for name in ("features", "radius", "layers", "paints")}
    own = ("channels", "width", "levels", "blocks", "cell", "cover", "detail")
    anchors = settings["paint_anchors"]
    return PredictiveEnergy(
        TransportDecoder(space.dim, paint_anchors=anchors, **shared),
        space,
        TransportPredictor(
            frames=settings["context_frames"],
            faint_paints=anchors,
            **shared,
            **{name: settings[name] for name in own},
        ),
    )


def make_inference(settings: Mapping[str, Any], space: Latent) -> Inference:
    """How z is found in `space`.

    Raises:
        UserError: the inference does not go with the latent.
    """
    kind = settings["inference"]
    if settings["objective"] == "least_squares":
        return Enumeration()  # of its one value
    if kind is None:
        kind = "enumeration" if isinstance(space, FiniteLatent) else "amortised_refined"
    if (kind == "enumeration") != isinstance(space, FiniteLatent):
        raise UserError(
            f"inference is {kind} and the latent is {settings['latent']}: enumeration goes with one_hot "
            "and quantised, the others with gaussian and ball"
        )
    steps, lr = settings["inference_steps"], settings["inference_lr"]
    if kind == "enumeration":
        return Enumeration()
    if kind == "gradient":
        return GradientDescent(steps, lr, "adam")
    basis = settings["layers"] * shifts(settings["radius"]) + settings["paints"]  # pictures of the decoder
    encoder = BasisEncoder(basis, settings["features"], space.dim)
    return Amortised(encoder) if kind == "amortised" else AmortisedRefined(encoder, steps, lr, "adam")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises UserError for a setting that is out of range, naming it."""
    check_beta(settings["beta"])
    least = {
        "channels": 1, "context_frames": 2, "codes": 1, "latent_dim": 1, "inference_steps": 1, "width": 8,
        "levels": 1, "blocks": 1, "cell": 1, "radius": 1, "layers": 1, "paints": 0, "features": 1,
        "warmup_steps": 0, "self_fed": 0, "latent_noise": 0, "prior_weight": 0, "weight_decay": 0,
        "anneal": 0, "detail": 0,
    }  # fmt: skip
    for name, low in least.items():
        if not settings[name] >= low:
            raise UserError(f"{name} is {settings[name]}: use at least {low}")
    for name in ("lr", "inference_lr", "initial_temperature", "sharpness", "rollout_sharpness"):
        if not 0 < settings[name] < math.inf:
            raise UserError(f"{name} is {settings[name]}: use a number above 0")
    if settings["width"] % 8:
        raise UserError(f"width is {settings['width']}: use a multiple of 8 (the normalisation has 8 groups)")
    if not 0 < settings["cover"] < 1:
        raise UserError(f"cover is {settings['cover']}: use a share above 0 and below 1")
    if settings["paint_anchors"] and not settings["paints"]:
        raise UserError("paint_anchors is on and paints is 0: use at least 1 paint")
    if settings["anneal"] > 1:
        raise UserError(f"anneal is {settings['anneal']}: use a share of the training, 0 to 1")
