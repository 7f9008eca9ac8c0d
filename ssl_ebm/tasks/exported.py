"""All weights of a task in one .safetensors file, with what rebuilds the task from it.

The metadata of the file, all of it text:

    task         name of the class in ssl_ebm.tasks
    settings     its arguments, as JSON
    data         what it was trained on (the DataModule's `describe`), as JSON
    steps        optimizer steps; null where that is not known
    tokenizer    of a model of text, as the JSON of the `tokenizers` library
    ssl_ebm      version of this package
    sha256       of the entries above and of the weights, so that a damaged file is told from a whole one

Weights have their names in the task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssl_ebm import __version__
from ssl_ebm.errors import UserError
from ssl_ebm.files import whole

SUFFIX = ".safetensors"


def settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The task's arguments, without what Lightning adds to them."""
    return {name: value for name, value in content.get("hyper_parameters", {}).items() if name[0] != "_"}


def metadata_of(content: Mapping[str, Any]) -> dict[str, str]:
    """What rebuilds a task, from the content of its checkpoint; without the weights.

    Raises:
        UserError: a setting or a description that JSON cannot hold.
    """
    try:
        found = {
            "task": content["task"],
            "settings": json.dumps(settings_of(content)),
            "data": json.dumps(content.get("data", {})),
            "steps": json.dumps(content.get("global_step")),
            "ssl_ebm": __version__,
        }
    except (TypeError, ValueError) as error:
        raise UserError(f"settings of {content['task']} cannot be written as JSON: {error}") from error
    tokenizer = content.get("tokenizer")
    return found if tokenizer is None else {**found, "tokenizer": tokenizer}


def write_safetensors(content: Mapping[str, Any], path: Path) -> None:
    """Writes the content of a checkpoint of a task of this package.

    Raises:
        UserError: as `metadata_of`; the path cannot be written.
    """
    # Copies: the file takes no two names for one tensor.
    weights = {name: tensor.clone().contiguous() for name, tensor in content["state_dict"].items()}
    entries = metadata_of(content)
    entries |= {"format": "pt", "sha256": _digest(entries, weights)}
    save_weights(weights, path, entries)


def save_weights(weights: dict[str, Tensor], path: Path, entries: dict[str, str]) -> None:
    """A .safetensors file that others may read: the library's own `save_file` leaves it to its owner alone.

    Raises:
        UserError: the path cannot be written.
    """
    with whole(path) as partial:
        partial.write_bytes(save(weights, entries))


def read_safetensors(path: str | Path) -> dict[str, Any]:
    """The content of a file of `write_safetensors`, as `read_checkpoint` gives that of a checkpoint.

    Raises:
        UserError: no such file, one of another program, or one that was cut off or changed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file at {path}: give one that ssl-ebm export has written")
    try:
        with safe_open(path, "pt") as file:
            entries = dict(file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dictionary
    except (SafetensorError, OSError, MemoryError) as error:
        raise UserError(f"{path} is no whole .safetensors file: {error}") from error
    if not {"task", "settings", "data", "steps", "sha256"} <= entries.keys():
        raise UserError(f"{path} is of another program: give a file that ssl-ebm export has written")
    signed = {name: text for name, text in entries.items() if name not in ("format", "sha256")}
    if _digest(signed, weights) != entries["sha256"]:
        raise UserError(f"{path} was changed after it was written: export it again")
    try:
        settings, data, steps = (json.loads(entries[name]) for name in ("settings", "data", "steps"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: its metadata is no JSON: {error}") from error
    if not isinstance(settings, dict) or not isinstance(data, dict):
        raise UserError(f"{path} is damaged: its settings or its data are no JSON object")
    content: dict[str, Any] = {"task": entries["task"], "hyper_parameters": settings, "data": data}
    content |= {"tokenizer": entries.get("tokenizer"), "global_step": steps, "state_dict": weights}
    return content


def _digest(entries: Mapping[str, str], weights: Mapping[str, Tensor]) -> str:
    found = sha256(json.dumps(dict(entries), sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # a buffer
    return found.hexdigest()
