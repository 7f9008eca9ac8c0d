"""What a task makes of its inputs: its representation, or what its layers give, pooled."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ssl_ebm.errors import UserError
from ssl_ebm.networks.text import pooled, pooled_windows
from ssl_ebm.tasks.masked_text import MaskedText

Pooling = Literal["mean", "first", "grid", "none"]
GRID = 4  # rows and columns of a grid
SHOWN = 12  # layers that a message names


class Features:
    """A task as a function from inputs, as its `representation` takes them, to features.

    Args:
        task: has `representation`.
        layer: name of a module in the task, or its end, such as encoder.blocks.3, whose output is taken;
            "blocks.2+blocks.3" puts the features of several side by side (the best of BERT's features without
            fine-tuning: Devlin et al., 2019, table 7), and so does "blocks.*", where the star is any one part
            of a name; null: what `representation` returns.
        pooling: what is made of a layer's tokens (B, T, D): their mean (of text without padding), the first
            (of text in windows the mean of their first ones), or none (they stay). Maps (B, C, H, W) count as
            tokens, one for each place; of them, and of the patches of a vision transformer, "grid" keeps
            where things are: means over 4 x 4 parts of the map, (B, 16 C). For a layer alone.

    Raises:
        UserError: a layer that is not there or given twice, a pooling without a layer.
    """

    def __init__(self, task: LightningModule, layer: str | None = None, pooling: Pooling = "mean") -> None:
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}: use one of {', '.join(get_args(Pooling))}")
        if pooling == "grid" and layer is None:
            raise UserError("pooling is grid, which is for the maps of a layer: give one, too")
        self.task: Any = task
        self.layer, self.pooling = layer, pooling
        names = [] if layer is None else layer.split("+")
        found = [pair for name in names for pair in _layers(task, name)]
        if len({id(module) for _, module in found}) < len(found):
            raise UserError(f"layers {layer} name one layer twice: give each once")
        self._modules = dict(found)

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, D), or (B, T, D) where nothing is pooled; those of a layer in float32.

        Raises:
            UserError: a layer that gives nothing that could be pooled so.
        """
        if not self._modules:
            whole: Tensor = self.task.representation(inputs)
            return whole[:, None] if self.pooling == "none" else whole
        seen: dict[str, Any] = {}
        handles = [
            module.register_forward_hook(lambda _m, _x, output, name=name: seen.update({name: output}))
            for name, module in self._modules.items()
        ]
        try:
            self.task.representation(inputs)
        finally:
            for handle in handles:
                handle.remove()
        features = [self._features(name, seen.get(name), inputs) for name in self._modules]
        if len({one.shape[:-1] for one in features}) > 1:
            raise UserError(f"layers {self.layer} do not have as many tokens each: pool them, or take one")
        return torch.cat(features, -1)

    def seen(self, inputs: Tensor, tokens: Tensor) -> Tensor | None:
        """Which of the tokens (B, T, D) of inputs stand for some, (B, T) bool: of text, those that are no
        padding; None: all.
        """
        reader = getattr(self.task, "backbone", self.task)  # of what is fine-tuned
        if isinstance(reader, MaskedText) and tokens.shape[1] == inputs[0].numel():
            return inputs.flatten(1) != reader.special.pad
        return None

    def _features(self, name: str, output: Any, inputs: Tensor) -> Tensor:
        """(B, D), or (B, T, D), of what a layer gave."""
        if not isinstance(output, Tensor):
            raise UserError(f"layer {name} gives no tensor when items pass: choose another one")
        if self.pooling == "grid":
            return adaptive_avg_pool2d(self._map(name, output.float(), len(inputs)), GRID).flatten(1)
        return self._pooled(_tokens(name, output.float(), len(inputs)), inputs)

    def _map(self, name: str, output: Tensor, count: int) -> Tensor:
        """(B, C, H, W)."""
        if output.ndim == 4 and len(output) == count:
            return output
        for encoder in self.task.modules():
            if isinstance(encoder, VisionTransformer) and output.ndim == 3:
                rows, columns = encoder.patch_embed.grid_size
                if output.shape[1] in (rows * columns, encoder.num_prefix_tokens + rows * columns):
                    return output[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
        shape = tuple(output.shape)
        raise UserError(f"layer {name} gives {shape} for {count} items, no map: use pooling mean")

    def _pooled(self, tokens: Tensor, inputs: Tensor) -> Tensor:
        if self.pooling == "none":
            return tokens
        seen = self.seen(inputs, tokens)
        if seen is not None and inputs.ndim == 3:
            tokens, seen = (one.unflatten(1, inputs.shape[1:]) for one in (tokens, seen))
            return pooled_windows(tokens, seen, "first" if self.pooling == "first" else "mean")
        if self.pooling == "first":
            return tokens[:, 0]
        return tokens.mean(1) if seen is None else pooled(tokens, seen)


def _tokens(name: str, output: Tensor, count: int) -> Tensor:
    """(B, T, D)."""
    if output.ndim < 2 or len(output) % count:
        raise UserError(f"layer {name} gives {tuple(output.shape)} for {count} items: choose another")
    if output.ndim > 3:
        output = output.flatten(2).transpose(1, 2)
    several = output.unflatten(0, (count, -1))  # frames of a clip pass one by one
    return several.flatten(1, -2) if several.ndim > 3 else several


def _layers(task: LightningModule, name: str) -> list[tuple[str, nn.Module]]:
    """The only module of this name, or whose name ends so; with a star in it: all of them."""
    modules = {key: module for key, module in task.named_modules() if key}
    ending = re.compile(r"(.+\.)?" + re.escape(name).replace(r"\*", r"[^.]+"))
    found = [name] if name in modules else [key for key in modules if ending.fullmatch(key)]
    if len(found) == 1 or (found and "*" in name):
        return [(key, modules[key]) for key in found]
    if found:
        raise UserError(f"{len(found)} layers end in {name!r}: use one of {', '.join(found[:SHOWN])}")
    blocks = [key for key in modules if key.rsplit(".", 1)[-1].isdigit()] or list(modules)
    raise UserError(f"there is no layer {name!r}: use one of {', '.join(blocks[:SHOWN])}, ...")
