"""Parts of a model whose activations may be computed again, and that torch.compile takes one by one."""

from __future__ import annotations

from collections.abc import Sequence


class Staged:
    """A module that says which of its methods are stages.

    A stage is a function of its arguments and of the module's weights alone. So its arguments can be all that
    is kept for the gradient, from which the rest is computed again, and it can be compiled by itself:
    `ssl_ebm.tasks.blocks` does both. No stage calls another. A module of your own has this class before
    `nn.Module` among its bases.

    Attributes:
        stages: names of the methods.
    """

    stages: Sequence[str] = ("forward",)
