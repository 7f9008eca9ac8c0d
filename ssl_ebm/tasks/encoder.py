"""A trained task as a network of its own: data in, features out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ssl_ebm import tasks
from ssl_ebm.data.loading import check_least
from ssl_ebm.data.special_tokens import SpecialTokens
from ssl_ebm.data.tokenizing import encode, read_tokenizer
from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.tasks.checkpoints import read_checkpoint, rebuild
from ssl_ebm.tasks.exported import SUFFIX, read_safetensors
from ssl_ebm.tasks.features import Features, Pooling
from ssl_ebm.tasks.inputs import Inputs


class Encoder(nn.Module):
    """What a task represents: inputs (B, *shape) -> features (B, D).

    Its result is the task's `representation`, or what its layers give, and its parameters are the task's, all
    of them trainable; those that only training needs (decoders, priors) get no gradient.

    Args:
        task: of `ssl_ebm.tasks`, in the mode that it is to run in.
        data: description of what it was trained on, which may say how large its inputs are.
        layer, pooling: what is taken, as `ssl_ebm.tasks.features.Features` takes it; None: `representation`.

    Attributes:
        task: the whole task.
        inputs: what it takes.
        features: D.

    Raises:
        UserError: a task without a representation, data that are not described as ssl_ebm does it, a layer
            that is not there or cannot be pooled so; on a call: inputs of another kind or size.
    """

    def __init__(
        self,
        task: Any,
        data: dict[str, Any] | None = None,
        layer: str | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.task = task
        self._features = Features(task, layer, pooling)
        try:
            self.inputs: Inputs = task.takes(data or {})
            example = self.inputs.example(1, torch.Generator().manual_seed(0))
        except UserError:
            raise
        except Exception as error:  # a description can be wrong in every way
            raise UserError(f"the data are not described as ssl_ebm does it: {in_one_line(error)}") from error
        try:
            with torch.no_grad():
                self.features = self._features(example).shape[-1]
        except RuntimeError as error:  # of torch: shapes that do not fit
            kind = f"this {type(task).__name__} does not represent {self.inputs.describe()}"
            raise UserError(f"{kind}: {in_one_line(error)}") from error

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (B, D), or (B, T, D) where nothing is pooled, with their graph unless `torch.no_grad` is
        around it."""
        self.inputs.check(inputs)
        return self._features(inputs)

    def tokenize(self, texts: str | Sequence[str], windows: int = 1) -> Tensor:
        """What `forward` takes, of texts: (B, T) int64, T of the longest one.

        [CLS] the text's first tokens [SEP], then [PAD]; what is longer than the network reads is cut off, and
        "[MASK]" is text like any other: as `LabelledDocuments` does it.

        Args:
            windows: that a text is read in, at most; of several the result is (B, W, T), W the most that one
                of the texts has.

        Raises:
            UserError: a task that has no tokenizer, or one that cannot encode them; less than one window.
        """
        check_least(windows=(windows, 1))
        tokenizer = getattr(self.task, "tokenizer_json", None)
        if tokenizer is None:
            raise UserError(f"this {type(self.task).__name__} has no tokenizer: it was not trained on text")
        given = [texts] if isinstance(texts, str) else list(texts)
        length, reader = self.task.network.length, read_tokenizer(tokenizer)
        special = SpecialTokens.of(reader)
        parts = [special.in_windows(ids.tolist(), length, windows) for ids in encode(reader, given)]
        most = max(map(len, parts), default=1)
        filled = chain.from_iterable([*part, *[[]] * (most - len(part))] for part in parts)
        rows = [torch.tensor(row, dtype=torch.int64) for row in filled]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=special.pad)
        return padded if windows == 1 else padded.unflatten(0, (len(parts), most))


def load_encoder(path: str | Path, layer: str | None = None, pooling: Pooling = "mean") -> Encoder:
    """The encoder of a checkpoint, or of a file that ``ssl-ebm export --format safetensors`` wrote.

    On the CPU and in evaluation mode. Only classes of `ssl_ebm.tasks` are made, from plain settings: no code
    of the file is run.

    Args:
        path: ends in .ckpt or .safetensors.
        layer, pooling: what its features are, as `ssl-ebm probe --layer ... --pooling ...` measures them:
            "encoder.norm", "blocks.2+blocks.3", "network.blocks.*.mlp.act"; "mean", "first", "grid", "none"
            (`ssl_ebm.tasks.features.Features`). None: the task's `representation`.

    Raises:
        UserError: no such file, one that is damaged, of another program or of an unknown task, or of a task
            without a representation; a layer that is not there or cannot be pooled so.
    """
    return encoder_of(read(path), path, layer, pooling)


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint or of an exported file; errors as `load_encoder`."""
    return read_safetensors(path) if Path(path).suffix == SUFFIX else read_checkpoint(path)


def encoder_of(
    content: dict[str, Any], path: str | Path, layer: str | None = None, pooling: Pooling = "mean"
) -> Encoder:
    """The encoder of what `read` gives; errors as `load_encoder`."""
    task = task_of(content, path)
    try:
        return Encoder(task, content.get("data"), layer, pooling).eval()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def task_of(content: dict[str, Any], path: str | Path) -> LightningModule:
    """The task of what `read` gives, in evaluation mode.

    Raises:
        UserError: none of `ssl_ebm.tasks`, or as `rebuild`.
    """
    name = str(content.get("task"))
    known = {one: found for one in tasks.__all__ if isinstance(found := getattr(tasks, one), type)}
    if name not in known:
        of = f"of the task {name!r}" if "task" in content else "not written by ssl-ebm fit"
        raise UserError(f"{path} is {of}: give a file of {', '.join(known)}")
    return rebuild(content, path, known[name])
