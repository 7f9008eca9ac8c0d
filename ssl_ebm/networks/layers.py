"""Which parameters a representation is made of, from the input to the features: what fine-tuning asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks.completion import ConvolutionalCompletion
from ssl_ebm.networks.convolutions import UNet
from ssl_ebm.networks.patch_completion import PatchCompletion
from ssl_ebm.networks.text import TextEncoder
from ssl_ebm.networks.transport import TransportPredictor

Part = nn.Module | nn.Parameter | None
Layers = list[list[nn.Parameter]]


def representation_layers(network: nn.Module) -> Layers:
    """Parameters that the representation depends on, in L + 2 layers: the embedding, L blocks, the end.

    - PatchCompletion (timm's VisionTransformer): patches, first token and positions; its blocks; the last
      normalisation.
    - TextEncoder: tokens and positions (and the normalisation there, in BERT's order); its blocks; the last
      normalisation (in the other order).
    - ConvolutionalCompletion: the stem; each level of the U-Net on the way down; the summary.
    - TransportPredictor: the stem; each level on the way down and up again; what draws the masks (and their
      refinement), because the features are pooled under the masks; the summary.

    What only predictions need (decoders, priors, scores of the vocabulary) is in none of them. A network of
    the user's own says so itself, by a method `representation_layers` that returns modules in this order.

    Raises:
        UserError: another network.
    """
    return [list(_parameters(layer)) for layer in _parts(network)]


def _parts(network: Any) -> Sequence[Sequence[Part]]:
    if isinstance(network, PatchCompletion):
        vit: Any = network.encoder
        start = [vit.patch_embed, vit.cls_token, vit.pos_embed, vit.norm_pre]
        return [start, *([block] for block in vit.blocks), [vit.norm]]
    if isinstance(network, TextEncoder):
        post = network.norm_order == "post"
        start = [network.tokens, network.learnt, network.norm if post else None]
        return [start, *([block] for block in network.blocks), [None if post else network.norm]]
    if isinstance(network, ConvolutionalCompletion):
        return [[network.net.stem], *_way_down(network.net), [network.summary]]
    if isinstance(network, TransportPredictor):
        net, masks = network.unet, [network.pixels, network.refinement]
        return [[net.stem], *_way_down(net), *_way_up(net), masks, [network.summary]]
    if hasattr(network, "representation_layers"):
        own: Sequence[Sequence[Part]] = network.representation_layers()
        return own
    raise UserError(
        f"{type(network).__name__} does not say what makes its representation: give it a method "
        "representation_layers() that returns [[module, ...], ...], from the input on"
    )


def _way_down(net: UNet) -> Sequence[Sequence[Part]]:
    return [[net.down_stages[0]], *zip(net.downs, net.down_stages[1:], strict=True)]


def _way_up(net: UNet) -> Sequence[Sequence[Part]]:
    return [*zip(net.ups, net.up_stages, strict=True)][::-1]


def _parameters(parts: Sequence[Part]) -> Iterator[nn.Parameter]:
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.parameters()
        elif part is not None:
            yield part
