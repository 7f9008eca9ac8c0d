"""The transport network, against its formula in loops, and with weights set by hand."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_ebm.networks import Context, TransportDecoder, TransportPredictor, displacements, shifted, shifts

Array = NDArray[np.float64]
CELL, RADIUS, FEATURES = 4, 2, 16
STAY, RIGHT = shifts(RADIUS) // 2, displacements(RADIUS).tolist().index([0, 2])


class Fixed(nn.Module):
    """Returns what it was told to, whatever it sees."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Any) -> Tensor:
        return self.value


def predictor(channels: int = 1, layers: int = 1, paints: int = 1, levels: int = 1) -> TransportPredictor:
    torch.manual_seed(0)
    network = TransportPredictor(channels, 2, 8, levels, 1, CELL, RADIUS, layers, paints, FEATURES)
    return network.double().eval()


def decoder(latent_dim: int, layers: int = 1, paints: int = 1) -> TransportDecoder:
    torch.manual_seed(1)
    return TransportDecoder(latent_dim, FEATURES, RADIUS, layers, paints).double().eval()


def shows(network: TransportPredictor, planes: Tensor, flow: Tensor | None = None) -> None:
    """Makes the network see these planes (B, fill + mask logits + paints, H, W) and flow logits."""
    network.pixels = Fixed(F.pixel_unshuffle(planes, CELL))  # type: ignore[assignment]
    if flow is None:  # the rest stays where it is
        blocks = (planes.shape[-2] // CELL, planes.shape[-1] // CELL)
        flow = torch.zeros(len(planes), shifts(RADIUS), *blocks, dtype=planes.dtype)
        flow[:, STAY] = 1000.0
    network.flow = Fixed(flow)  # type: ignore[assignment]
    nn.init.zeros_(network.flow_inertia)


def moves(network: TransportDecoder, choices: list[list[int]]) -> None:
    """Gives code k the kernel that is all on displacement choices[k][m] for layer m, and no paint."""
    last = network.weights[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    nn.init.zeros_(network.anchors.weight)
    with torch.no_grad():
        for code, chosen in enumerate(choices):
            for layer, s in enumerate(chosen):
                network.anchors.weight[layer * shifts(RADIUS) + s, code] = 1000.0


def video(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(pictures: Tensor, down: int, right: int) -> Tensor:
    """(..., H, W) moved, with zeros where nothing comes from."""
    height, width = pictures.shape[-2:]
    room = F.pad(pictures, (RADIUS,) * 4)
    return room[..., RADIUS - down : RADIUS - down + height, RADIUS - right : RADIUS - right + width]


# --- weights set by hand ---


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 16), (3, 8, 20)])
def test_one_layer_that_holds_all_moves_the_last_frame(channels: int, height: int, width: int) -> None:
    x = video(2, 2, channels, height, width)
    network, decode = predictor(channels, paints=0), decoder(shifts(RADIUS), paints=0)
    planes = torch.full((2, channels + 2, height, width), -1000.0, dtype=torch.float64)  # black behind
    planes[:, channels] = 1000.0  # all of the frame is in the layer
    shows(network, planes)
    moves(decode, [[s] for s in range(shifts(RADIUS))])
    codes = torch.eye(shifts(RADIUS), dtype=torch.float64).expand(2, -1, -1)
    frames = decode(network(x), codes)  # (B, S, C, H, W)
    for s, (down, right) in enumerate(displacements(RADIUS).tolist()):
        torch.testing.assert_close(frames[:, s], moved(x[:, -1], down, right), rtol=0, atol=1e-12)


def test_two_layers_move_apart_in_front_of_what_was_behind() -> None:
    """A thing on the left goes right, one on the right goes up, and grey shows where they were."""
    x = torch.full((1, 2, 1, 16, 16), 0.5, dtype=torch.float64)
    x[..., 4:8, 2:6] = video(4, 4)
    x[..., 9:13, 10:14] = video(4, 4, seed=1)
    planes = torch.zeros(1, 4, 16, 16, dtype=torch.float64)  # fill 0.5; logits of two layers and the rest
    planes[:, 3] = 100.0
    planes[:, 1, 4:8, 2:6] = planes[:, 2, 9:13, 10:14] = 200.0
    network, decode = predictor(layers=2, paints=0), decoder(1, layers=2, paints=0)
    shows(network, planes)
    up = displacements(RADIUS).tolist().index([-2, 0])
    moves(decode, [[RIGHT, up]])
    expected = torch.full((16, 16), 0.5, dtype=torch.float64)
    expected[4:8, 4:8] = x[0, -1, 0, 4:8, 2:6]
    expected[7:11, 10:14] = x[0, -1, 0, 9:13, 10:14]
    frame = decode(network(x), torch.ones(1, 1, 1, dtype=torch.float64))[0, 0, 0]
    torch.testing.assert_close(frame, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("motion", [(1, -2), (0, 0), (-2, 1)])
def test_the_rest_goes_on_as_it_moved(motion: tuple[int, int]) -> None:
    """A camera that pans: without layers, the flow from block matching extrapolates the scene."""
    scene = video(1, 3, 40, 44)
    down, right = motion
    x = torch.stack(
        [scene[..., 8 - t * down : 32 - t * down, 8 - t * right : 36 - t * right] for t in (0, 1)], 1
    )
    y = scene[..., 8 - 2 * down : 32 - 2 * down, 8 - 2 * right : 36 - 2 * right]
    network = predictor(3, paints=0)
    planes = torch.full((1, 5, 24, 28), -1000.0, dtype=torch.float64)
    planes[:, 4] = 1000.0  # all of the frame is rest
    shows(network, planes, torch.zeros(1, shifts(RADIUS), 6, 7, dtype=torch.float64))
    nn.init.constant_(network.flow_inertia, 20.0)
    rest = network(x).rest
    # away from the edges, over which the scene comes in
    torch.testing.assert_close(rest[..., 8:-8, 8:-8], y[..., 8:-8, 8:-8], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(24, 28), (22, 25)])
def test_no_black_comes_in_where_a_bright_scene_moves(height: int, width: int) -> None:
    """A plane of one colour looks the same wherever the camera goes, to its edges."""
    x = torch.full((1, 2, 3, height, width), 0.7, dtype=torch.float64)
    network = predictor(3, paints=0)
    planes = torch.full((1, 5, 24, 28), -1000.0, dtype=torch.float64)
    planes[:, 4] = 1000.0  # all of the frame is rest
    flow = torch.rand(1, shifts(RADIUS), 6, 7, dtype=torch.float64)
    shows(network, planes, 1000 * flow)
    torch.testing.assert_close(network(x).rest, x[:, -1], rtol=0, atol=1e-12)


def test_inertia_prefers_the_motion_of_what_the_layer_holds() -> None:
    x = torch.zeros(1, 2, 1, 16, 16, dtype=torch.float64)
    patch = 0.5 + 0.5 * video(6, 6)
    x[0, 0, 0, 5:11, 3:9] = patch
    x[0, 1, 0, 6:12, 5:11] = patch  # one down, two to the right
    network = predictor(paints=0)
    planes = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    planes[:, 2] = 100.0
    planes[:, 1, 6:12, 5:11] = 200.0
    shows(network, planes)
    assert displacements(RADIUS)[network(x).inertia[0, 0].argmax()].tolist() == [1, 2]


# --- the formula ---


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def at(picture: Array, i: int, j: int) -> float:
    """A pixel, or zero outside."""
    inside = 0 <= i < picture.shape[0] and 0 <= j < picture.shape[1]
    return picture[i, j] if inside else 0.0


def nearest(picture: Array, i: int, j: int) -> float:
    """A pixel, or the one that is nearest to a place outside."""
    return picture[min(max(i, 0), picture.shape[0] - 1), min(max(j, 0), picture.shape[1] - 1)]


def slow_rest(last: Array, fill: Array, masks: Array, flow: Array) -> Array:
    """The filled frame (C, H, W), each block moved by its own distribution (shifts, h, w)."""
    covered = masks.sum(0)
    whole = (1 - covered) * last + covered * sigmoid(fill)
    rest = np.zeros_like(last)
    for c, i, j in np.ndindex(*last.shape):
        weights = softmax(flow[:, i // CELL, j // CELL])
        for s, (down, right) in enumerate(displacements(RADIUS).tolist()):
            rest[c, i, j] += weights[s] * nearest(whole[c], i - down, j - right)
    return rest


def slow_frame(rest: Array, last: Array, masks: Array, paints: Array, kappa: Array, c: Array) -> Array:
    """y_hat = rest + sum_m sum_s kappa (shift_s(layer_m) - shift_s(mask_m) rest) + sum_p c_p paint_p."""
    frame = rest + np.einsum("p,pchw->chw", c, paints)
    for m, s in np.ndindex(*kappa.shape):
        down, right = displacements(RADIUS)[s].tolist()
        for channel, i, j in np.ndindex(*rest.shape):
            layer = masks[m] * last[channel]
            arrives = at(layer, i - down, j - right)
            hides = at(masks[m], i - down, j - right) * rest[channel, i, j]
            frame[channel, i, j] += kappa[m, s] * (arrives - hides)
    return frame


def slow_weights(network: TransportDecoder, h: Context, z: Array, layers: int) -> tuple[Array, Array]:
    """kappa (layers, shifts) and c (paints,) of one item and one z."""
    first, second = network.weights[1], network.weights[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    seen = h.features[0].numpy() + network.latent.weight.detach().numpy() @ z
    hidden = first.weight.detach().numpy() @ (seen * sigmoid(seen)) + first.bias.detach().numpy()
    out = second.weight.detach().numpy() @ (hidden * sigmoid(hidden)) + second.bias.detach().numpy()
    logits = out[: layers * shifts(RADIUS)] + network.anchors.weight.detach().numpy() @ z
    kappa = softmax(logits.reshape(layers, -1) + h.inertia[0].numpy())
    return kappa, out[layers * shifts(RADIUS) :]


@pytest.mark.parametrize(("channels", "layers", "paints"), [(1, 1, 2), (3, 2, 1), (1, 2, 0)])
@torch.no_grad()
def test_equals_the_formula_in_loops(channels: int, layers: int, paints: int) -> None:
    x = video(1, 2, channels, 8, 12)
    network, decode = predictor(channels, layers, paints), decoder(3, layers, paints)
    planes = 4 * video(1, channels + layers + 1 + channels * paints, 8, 12, seed=1) - 2
    flow = 6 * video(1, shifts(RADIUS), 2, 3, seed=2)
    shows(network, planes, flow)
    h = network(x)

    last, shown = x[0, -1].numpy(), planes[0].numpy()
    masks = softmax(shown[channels : channels + layers + 1].transpose(1, 2, 0)).transpose(2, 0, 1)[:layers]
    np.testing.assert_allclose(h.masks[0].numpy(), masks, atol=1e-12)
    rest = slow_rest(last, shown[:channels], masks, flow[0].numpy())
    np.testing.assert_allclose(h.rest[0].numpy(), rest, atol=1e-12)

    painted = np.tanh(shown[channels + layers + 1 :]).reshape(paints, channels, 8, 12)
    z = video(2, 3, seed=3)
    frames = decode(h, z[None])
    for candidate in range(2):
        kappa, c = slow_weights(decode, h, z[candidate].numpy(), layers)
        expected = slow_frame(rest, last, masks, painted, kappa, c)
        np.testing.assert_allclose(frames[0, candidate].numpy(), expected, atol=1e-12)


# --- candidates and sizes ---


@torch.no_grad()
def test_candidates_do_not_see_each_other() -> None:
    network, decode = predictor(3), decoder(3)
    h = network(video(2, 2, 3, 8, 12))
    z = video(2, 5, 3, seed=1)
    together = decode(h, z)
    for s in range(5):
        torch.testing.assert_close(together[:, s : s + 1], decode(h, z[:, s : s + 1]), rtol=0, atol=1e-12)


@torch.no_grad()
def test_items_of_a_batch_do_not_see_each_other() -> None:
    network, decode = predictor(), decoder(3)
    x, z = video(3, 2, 1, 8, 12), video(3, 2, 3, seed=1)
    together = decode(network(x), z)
    for item in range(3):
        alone = decode(network(x[item : item + 1]), z[item : item + 1])
        torch.testing.assert_close(together[item : item + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(13, 18), (5, 3), (16, 21)])
@pytest.mark.parametrize("levels", [1, 2])
@torch.no_grad()
def test_ragged_frames_are_those_of_whole_cells_cut(height: int, width: int, levels: int) -> None:
    network, decode = predictor(3, layers=2, levels=levels), decoder(3, layers=2)
    x, z = video(1, 2, 3, height, width), video(1, 2, 3, seed=1)
    filled = F.pad(x[0], (0, -width % CELL, 0, -height % CELL), "replicate")[None]
    whole = decode(network(filled), z)[..., :height, :width]
    torch.testing.assert_close(decode(network(x), z), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_anchors_start_codes_at_displacements_of_their_own() -> None:
    """As many codes as displacements: code s starts as displacement s, and nine codes are spread."""
    weight = decoder(shifts(RADIUS)).anchors.weight
    assert weight.argmax(0).tolist() == list(range(shifts(RADIUS)))
    kernel = weight.softmax(0).diagonal()
    assert kernel.min() > 0.9
    starts = decoder(9).anchors.weight.argmax(0).tolist()
    assert starts == [0, 3, 6, 9, 12, 15, 18, 21, 24]


@torch.no_grad()
def test_paint_anchors_start_pairs_of_codes_as_a_paint_and_its_negative() -> None:
    """Codes 2p and 2p + 1 add paint p and take it away: 5 codes, 2 paints."""
    network = TransportDecoder(5, FEATURES, RADIUS, 1, 2, paint_anchors=True).double().eval()
    moves(network, [[STAY]] * 5)
    rest, paints = video(1, 1, 6, 6), video(1, 2, 36, seed=1)
    basis = torch.cat([torch.zeros(1, shifts(RADIUS), 36, dtype=torch.float64), paints], 1)
    inertia = torch.zeros(1, 1, shifts(RADIUS), dtype=torch.float64)
    features = torch.zeros(1, FEATURES, dtype=torch.float64)
    frames = network(Context(rest, basis, features, inertia, rest), torch.eye(5, dtype=torch.float64)[None])
    first, second = (paint.view(1, 6, 6) for paint in paints[0])
    for found, change in zip(frames[0] - rest, (first, -first, second, -second, first), strict=True):
        torch.testing.assert_close(found, change)


@torch.no_grad()
def test_faint_paints_are_a_tenth_as_strong() -> None:
    networks = []
    for faint in (False, True):
        torch.manual_seed(0)
        networks.append(TransportPredictor(1, 2, 8, 1, 1, CELL, RADIUS, 1, 2, FEATURES, faint_paints=faint))
    x = video(2, 2, 1, 16, 16).float()
    plain, faint_ = (network(x).basis[:, -2:].atanh() for network in networks)
    torch.testing.assert_close(faint_, plain / 10)
    torch.testing.assert_close(networks[0](x).rest, networks[1](x).rest)


@torch.no_grad()
def test_a_sharp_flow_moves_every_block_by_one_displacement() -> None:
    """In the limit the rest is, block by block, one shifted copy of the last frame; and 1 changes nothing."""
    torch.manual_seed(0)
    cell, radius = 4, 2
    predictor = TransportPredictor(1, 2, 8, 1, 1, cell, radius, 1, 1, 16, cover=1e-6)
    predictor.flow.weight.normal_()
    x = torch.rand(3, 2, 1, 16, 20)
    sharp, soft = predictor(x, 1e4), predictor(x)
    assert torch.equal(soft.rest, predictor(x, 1.0).rest)
    copies = shifted(x[:, -1], radius, continued=True)[:, 0]  # (B, shifts, H, W)

    def nearest(rest: torch.Tensor) -> torch.Tensor:
        """Largest difference of each block from the copy it is nearest to: (B, blocks)."""
        difference = (copies - rest).abs().unfold(2, cell, cell).unfold(3, cell, cell)
        return difference.amax((4, 5)).amin(1)

    assert nearest(sharp.rest).max() < 1e-4
    assert nearest(soft.rest).max() > 0.05
