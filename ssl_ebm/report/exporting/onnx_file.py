"""The representation of a task as an ONNX graph, checked against PyTorch on the way."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.export import Dim

from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.files import whole
from ssl_ebm.tasks.encoder import Encoder
from ssl_ebm.tasks.exported import metadata_of

NEEDED = ("onnx", "onnxscript")  # by torch's exporter
INSTALL = "pip install onnx onnxscript onnxruntime"
TOLERANCE = 1e-4  # of a feature, in units of the largest one, or of 1
LARGEST = 2**31 - 2**24  # bytes of weights: one file of ONNX is a message of less than 2 GiB


def write_onnx(task: LightningModule, content: Mapping[str, Any], path: Path) -> None:
    """Writes inputs (B, *shape) -> features (B, D), for any B, and for text of any length that it reads.

    The input is named "image", "video", "tokens" or "point", the output "features". Pictures and frames have
    the size of the training. Metadata as `ssl_ebm.tasks.exported` lists them, so that the tokenizer of a
    model of text goes with it.

    Where onnxruntime is installed the file is checked before it takes its place: two numbers of items, two
    lengths of text. The largest difference from PyTorch's features is printed.

    Args:
        content: of the checkpoint.

    Raises:
        UserError: a package that is missing, a task without a representation or of unknown sizes, a network
            that ONNX cannot say, or features that are not those of PyTorch; then no file is left behind.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f"to write ONNX, {' and '.join(missing)} must be installed: {INSTALL}")
    encoder = Encoder(task, content.get("data")).eval()
    inputs = encoder.inputs
    if None in inputs.shape:
        raise UserError(f"the checkpoint does not say what size it was trained on: {inputs.describe()}")
    if sum(one.nbytes for one in encoder.state_dict().values()) > LARGEST:
        raise UserError("the weights are more than the 2 GiB of one file of ONNX: use --format safetensors")
    program = _graph(encoder)
    program.model.metadata_props.update(metadata_of(content))
    with whole(path) as partial:
        program.save(partial)
        if importlib.util.find_spec("onnxruntime") is None:
            print(f"onnxruntime is not installed, so {path} was not checked: {INSTALL}")
        else:
            largest = _difference(encoder, partial)
            print(f"features of onnxruntime differ from PyTorch's by at most {largest:.1e}")


def _graph(encoder: Encoder) -> Any:
    """The encoder as torch's exporter writes it, from plain operators (see `ssl_ebm.networks.onednn`)."""
    inputs = encoder.inputs
    sizes: dict[int, Any] = {0: Dim("batch")}
    if inputs.vocabulary is not None:
        sizes[1] = Dim("length", max=inputs.shape[0])
    example = inputs.example(2, torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about itself
            return torch.onnx.export(
                encoder, (example,), dynamo=True, dynamic_shapes=(sizes,), verbose=False,
                input_names=[inputs.name], output_names=["features"],
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"ONNX cannot say this {type(encoder.task).__name__}: {reason}") from error


def _difference(encoder: Encoder, path: Path) -> float:
    """The largest one of onnxruntime's features from PyTorch's.

    Raises:
        UserError: it is more than rounding, or onnxruntime does not run the file.
    """
    import onnxruntime

    largest = 0.0
    for given in _checks(encoder):
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            [found] = session.run(None, {encoder.inputs.name: given.numpy()})
        except Exception as error:  # a type of its own for each way in which a graph can be wrong
            raise UserError(f"onnxruntime cannot run the graph: {in_one_line(error)}") from error
        with torch.no_grad():
            expected = encoder(given).numpy()
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):  # also what is no number
            raise UserError(
                f"onnxruntime and PyTorch differ by {difference:.1e} in features of {tuple(given.shape)}: no "
                "file was written; use --format safetensors"
            )
        largest = max(largest, difference)
    return largest


def _checks(encoder: Encoder) -> list[Tensor]:
    """Inputs of two numbers of items; of text also of two lengths, with documents that end early."""
    generator = torch.Generator().manual_seed(1)
    made = [encoder.inputs.example(count, generator) for count in (1, 3)]
    if encoder.inputs.vocabulary is not None:
        made[1] = made[1][:, : max(1, made[1].shape[1] // 2)]
        made[1][1:, -1] = encoder.inputs.padding
    return made
