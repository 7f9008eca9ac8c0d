"""Predicting a frame by moving the pixels of the last one, with a latent that says how.

The last frame is cut into `layers` whose motion is uncertain and a rest. The hole behind the layers is
filled, and the rest moves by a flow that the context decides, block by block. Each layer moves as a whole by
a distribution over displacements that the latent decides, and a few painted pictures are added with weights
of the latent's choice:

    y_hat(z) = rest + sum_m sum_s kappa[m, s](h, z) (shift_s(layer_m) - shift_s(mask_m) rest)
                    + sum_p c[p](h, z) paint_p

Everything large in this formula (`basis`) depends on the context alone, and z enters through the few weights
kappa and c, so a candidate z costs one row of a matrix product, and K of them are enumerated for little more
than one. A latent that says nothing leaves kappa as the average over the futures: a blur.

Sources: motion as a distribution over displacements, masks per moving thing: Finn, Goodfellow, Levine,
"Unsupervised learning for physical interaction through video prediction" (2016); block matching as input:
Sun, Yang, Liu, Kautz, "PWC-Net" (2018), there called cost volume.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_ebm.energy.stages import Staged
from ssl_ebm.networks.convolutions import UNet, coordinates
from ssl_ebm.networks.motion import block_matching, part_motions, shifted, shifts
from ssl_ebm.networks.refinement import Refinement

ANCHOR_LOGIT = 6.0  # a kernel of 49 displacements that starts with 0.89 of its weight on one of them

MATCH_SHARPNESS = 18.0  # logits per squared intensity, summed over a block
MATCH_RANGE = 10.0  # how far below the best match a displacement can fall, logits


class Context(NamedTuple):
    """h = Pred(x): all that the decoder and the prior need to know of x.

    Attributes:
        rest: (B, C, H, W), the next frame without the layers, in [0, 1].
        basis: (B, N, C H W), what the latent combines: N = layers * shifts + paints.
        features: (B, F), what is known of the layers and the scene; the representation of x.
        inertia: (B, layers, shifts), logits of the displacement that continues each layer's motion.
        masks: (B, layers, H, W) in [0, 1], summing to at most 1 over the layers.
        sharpness: factor on the logits of masks and displacements.
    """

    rest: Tensor
    basis: Tensor
    features: Tensor
    inertia: Tensor
    masks: Tensor
    sharpness: float = 1.0


def _numbers_as_vectors(module: nn.Module, content: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Weights of older checkpoints that had no dimension: `fully_shard` takes none of these."""
    for name in ("flow_inertia", "rest_inertia"):
        if (key := prefix + name) in content:
            content[key] = content[key].reshape(1)


class TransportPredictor(Staged, nn.Module):
    """x -> Context: (B, T, C, H, W) with H and W of any size.

    Args:
        channels: C.
        frames: T, at least 2.
        width: channels of the finest features, a multiple of 8.
        levels: halvings of the feature map; the coarsest sees the scene.
        blocks: residual blocks at each level.
        cell: side of the blocks that a feature stands for and that move together in the rest, pixels.
        radius: largest displacement, pixels per frame.
        layers: things that may move in an uncertain way at the same time.
        paints: painted pictures that the latent may add.
        features: size of the feature vector.
        cover: share of every pixel that the layers hold before training, above 0 and below 1.
        detail: channels of the network that draws masks pixel by pixel; 0: they follow from the blocks alone.
        faint_paints: start with paints a tenth as strong, for a decoder with `paint_anchors`.
    """

    stages = ("_move_blocks", "_layer_basis")

    def __init__(
        self,
        channels: int,
        frames: int,
        width: int,
        levels: int,
        blocks: int,
        cell: int,
        radius: int,
        layers: int,
        paints: int,
        features: int,
        cover: float = 0.5,
        detail: int = 0,
        faint_paints: bool = False,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.radius = radius
        self.layers = layers
        self.paints = paints
        kernel = shifts(radius)
        self.unet = UNet(channels * frames * cell**2 + kernel + 2, width, levels, blocks)
        self.flow = nn.Conv2d(width, kernel, 1)
        self.flow_inertia = nn.Parameter(torch.ones(1))
        self.pixels = nn.Conv2d(width, (channels + layers + 1 + channels * paints) * cell**2, 1)
        self.splits = [channels, layers + 1, channels * paints]
        self._start_simply(channels, cover)
        if faint_paints:
            self._start_faintly(channels)
        self.refinement = Refinement(channels, frames, layers + 1, detail, cell) if detail else None
        self.rest_inertia = nn.Parameter(torch.ones(1)) if detail else None
        self.summary = nn.Sequential(
            nn.LayerNorm(layers * (width + kernel) + 2 * width),
            nn.Linear(layers * (width + kernel) + 2 * width, features),
            nn.SiLU(),
            nn.Linear(features, features),
        )
        self.layer_inertia = nn.Linear(features, layers)
        self.register_load_state_dict_pre_hook(_numbers_as_vectors)

    @torch.no_grad()
    def _start_simply(self, channels: int, cover: float) -> None:
        """At first the rest goes on as it moved, or stays where nothing shows a motion."""
        assert self.flow.bias is not None
        assert self.pixels.bias is not None
        rest = channels + self.layers  # its logit comes after those of the layers
        self.pixels.bias.view(-1, self.cell**2)[rest] = math.log(self.layers * (1 - cover) / cover)
        nn.init.zeros_(self.flow.weight)
        self.flow.bias.zero_()[shifts(self.radius) // 2] = 2.0

    @torch.no_grad()
    def _start_faintly(self, channels: int) -> None:
        assert self.pixels.bias is not None
        first = (channels + self.layers + 1) * self.cell**2
        self.pixels.weight[first:] *= 0.1
        self.pixels.bias[first:] *= 0.1

    def forward(self, x: Tensor, sharpness: float = 1.0) -> Context:
        """h = Pred(x).

        A displacement is a distribution, and moving by it averages. Above 1, `sharpness` makes masks and
        displacements more decided; towards infinity each block and layer moves by its likeliest displacement.
        """
        height, width = x.shape[-2:]
        ragged = (-width % self.cell, -height % self.cell)  # frames are filled up to whole cells, then cut
        if any(ragged):
            filled = F.pad(x.flatten(1, 2), (0, ragged[0], 0, ragged[1]), "replicate")
            x = filled.unflatten(1, x.shape[1:3])
        last, before = x[:, -1], x[:, -2]
        cost = block_matching(before, last, self.radius, self.cell)  # (B, shifts, h, w)
        # A block at the edge of what moves shows little of it: its neighbours are asked too.
        nearby = F.avg_pool2d(cost, 3, 1, 1, count_include_pad=False)
        match = (MATCH_SHARPNESS * (nearby.amin(1, keepdim=True) - nearby)).clamp_min(-MATCH_RANGE)
        blocks = F.pixel_unshuffle(x.flatten(1, 2), self.cell)  # (B, T C cell^2, h, w)
        fine, coarse = self.unet(torch.cat([2 * blocks, match.exp(), coordinates(blocks)], 1))

        fill, mask_logits, paint = F.pixel_shuffle(self.pixels(fine), self.cell).split(self.splits, 1)
        flow = self.flow(fine) + self.flow_inertia * match  # (B, shifts, h, w)
        if self.refinement is not None:
            fill, mask_logits, motions = self.refinement(x, cost, fill, mask_logits)
            # Where things overlap, a block's own match misleads.
            flow = flow + self.rest_inertia * motions[:, -1, :, None, None]
        masks = (sharpness * mask_logits).softmax(1)[:, : self.layers]  # (B, M, H, W)
        covered = masks.sum(1, keepdim=True)
        rest = (1 - covered) * last + covered * fill.sigmoid()
        rest = self._move_blocks(rest, (sharpness * flow).softmax(1))
        basis = torch.cat(
            [self._layer_basis(last, masks, rest), paint.tanh().unflatten(1, (-1, last.shape[1]))], 1
        )

        weight = F.avg_pool2d(masks, self.cell)  # (B, M, h, w)
        share = weight / (weight.sum((2, 3), keepdim=True) + 1e-3)
        seen = torch.einsum("bmhw,bdhw->bmd", share, fine)
        motion = part_motions(weight, cost)  # (B, M, shifts)
        features = self.summary(torch.cat([seen.flatten(1), motion.flatten(1), coarse.amax((2, 3))], 1))
        inertia = 8 * self.layer_inertia(features).sigmoid()[:, :, None] * motion
        return Context(
            rest[..., :height, :width],
            basis[..., :height, :width].flatten(2),
            features,
            inertia,
            masks[..., :height, :width],
            sharpness,
        )

    def _move_blocks(self, frame: Tensor, flow: Tensor) -> Tensor:
        """Every block moved by its own distribution over displacements: (B, C, H, W), (B, shifts, h, w); the
        frame is continued by its outermost pixels."""
        copies = shifted(frame, self.radius, continued=True)  # (B, C, shifts, H, W)
        height, width = flow.shape[-2:]
        cells = copies.view(*copies.shape[:3], height, self.cell, width, self.cell)
        return (cells * flow[:, None, :, :, None, :, None]).sum(2).flatten(4, 5).flatten(2, 3)

    def _layer_basis(self, last: Tensor, masks: Tensor, rest: Tensor) -> Tensor:
        """(B, layers * shifts, C, H, W): what changes when layer m arrives with displacement s."""
        colours = last.shape[1]
        sheets = torch.cat([masks[:, :, None] * last[:, None], masks[:, :, None]], 2)  # (B, M, C + 1, H, W)
        moved = shifted(sheets.flatten(1, 2), self.radius).unflatten(1, (self.layers, colours + 1))
        layer, mask = moved.split([colours, 1], 2)  # (B, M, C, shifts, H, W), (B, M, 1, shifts, H, W)
        return (layer - mask * rest[:, None, :, None]).transpose(2, 3).flatten(1, 2)


class TransportDecoder(nn.Module):
    """Dec(h, z): weights of the basis from the features and z, then one matrix product.

    Args:
        latent_dim: D, size of z.
        features: size of the context's feature vector.
        radius, layers, paints: those of the predictor.
        paint_anchors: start every direction of z with a weight of 1 or -1 on a paint of its own. Where no
            displacement explains what is uncertain, codes can still come apart along the paints.
    """

    def __init__(
        self,
        latent_dim: int,
        features: int,
        radius: int,
        layers: int,
        paints: int,
        paint_anchors: bool = False,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.splits = [layers * shifts(radius), paints]
        self.latent = nn.Linear(latent_dim, features, bias=False)
        self.anchors = nn.Linear(latent_dim, layers * shifts(radius), bias=False)
        self._spread_anchors()
        self.paint_anchors = nn.Linear(latent_dim, paints, bias=False) if paint_anchors else None
        if self.paint_anchors is not None:
            self._spread_over_paints(self.paint_anchors)
        self.weights = nn.Sequential(
            nn.SiLU(), nn.Linear(features, features), nn.SiLU(), nn.Linear(features, sum(self.splits))
        )

    @torch.no_grad()
    def _spread_anchors(self) -> None:
        """Starts every direction of z at a displacement of its own, as detectors start from anchor boxes.

        Codes that all start alike need most of a training to be told apart.
        """
        shift_count, latent_dim = self.splits[0] // self.layers, self.latent.in_features
        start = torch.zeros(latent_dim, self.layers, shift_count)
        if latent_dim > 1:
            nearest = torch.linspace(0, shift_count - 1, latent_dim).round().long()
            start[torch.arange(latent_dim), :, nearest] = ANCHOR_LOGIT
        self.anchors.weight.copy_(start.flatten(1).T)

    @staticmethod
    @torch.no_grad()
    def _spread_over_paints(anchors: nn.Linear) -> None:
        """Directions 2p and 2p + 1 of z start as the two signs of paint p, over and over."""
        nn.init.zeros_(anchors.weight)
        direction = torch.arange(anchors.in_features)
        anchors.weight[direction // 2 % anchors.out_features, direction] = 1.0 - 2.0 * (direction % 2)

    def forward(self, h: Context, z: Tensor) -> Tensor:
        """z (B, S, D) -> frames (B, S, C, H, W)."""
        logits, paint = self.weights(h.features[:, None] + self.latent(z)).split(self.splits, -1)
        if self.paint_anchors is not None:
            paint = paint + self.paint_anchors(z)
        logits = (logits + self.anchors(z)).unflatten(-1, (self.layers, -1)) + h.inertia[:, None]
        kernel = (h.sharpness * logits).softmax(-1)  # (B, S, M, shifts)
        change = torch.cat([kernel.flatten(2), paint], -1) @ h.basis  # (B, S, C H W)
        return h.rest[:, None] + change.unflatten(-1, h.rest.shape[1:])
