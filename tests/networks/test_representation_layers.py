"""Which layers a representation has, against what a gradient reaches."""

import pytest
from small_backbones import MAKERS, batch_for, make
from torch import nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks.layers import representation_layers

BLOCKS = {"patches": 3, "convolutional": 3, "frames": 4, "frames in detail": 4, "text": 3, "bert": 3}


@pytest.mark.parametrize("name", MAKERS)
def test_layers_hold_exactly_what_the_representation_depends_on(name: str) -> None:
    task = make(name)
    network = task.energy.predictor if name.startswith("frames") else task.network
    layers = representation_layers(network)
    task.representation(task.inputs(batch_for(name))).square().sum().backward()
    reached = {n for n, p in task.named_parameters() if p.grad is not None}
    names = {id(p): n for n, p in task.named_parameters()}
    listed = [names[id(p)] for layer in layers for p in layer if p.requires_grad]
    assert sorted(listed) == sorted(reached)  # also: none twice
    assert len(layers) == BLOCKS[name] + 2
    assert all(layers[1:-1])


@pytest.mark.parametrize("name", MAKERS)
def test_layers_stand_in_the_order_of_the_computation(name: str) -> None:
    """A later layer's weights change nothing that an earlier one puts out: seen by the order of calls."""
    task = make(name)
    network = task.energy.predictor if name.startswith("frames") else task.network
    place = {id(p): k for k, layer in enumerate(representation_layers(network)) for p in layer}
    called: list[int] = []

    def note(module: nn.Module, *_: object) -> None:
        called.extend(place[id(p)] for p in module.parameters(recurse=False) if id(p) in place)

    for module in network.modules():
        module.register_forward_hook(note)
    task.representation(task.inputs(batch_for(name)))
    assert called == sorted(called)
    assert called


def test_another_network_is_named() -> None:
    with pytest.raises(UserError, match="Linear does not say what makes its representation"):
        representation_layers(nn.Linear(2, 2))
