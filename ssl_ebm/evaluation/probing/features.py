"""Features of chosen items, of a frozen task or raw, shared out over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import Subset

from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.labelled_text import LabelledDocuments
from ssl_ebm.data.loading import READ_TIMEOUT, OrderedLoader, StreamData, collate_of, found_in
from ssl_ebm.data.read_watch import read_limit
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.probing.frozen import Frozen
from ssl_ebm.evaluation.probing.results import Samples, check_labels, of_one_length
from ssl_ebm.evaluation.records import first_clips
from ssl_ebm.tasks.masked_text import MaskedText

MOST_VALUES = 2**31  # that are held in memory at once
NO_ITEMS = "probe: there are no items to probe"


class RawInputs:
    """What a task is given, as features: what a representation has to beat.

    Pixels of pictures and clips in one row, averaged over blocks until at most `most` are left; of text the
    number n of times that each token occurs, as log(1 + n).

    Args:
        task: whose inputs are taken.
        most: features.
    """

    def __init__(self, task: LightningModule, most: int = 4096) -> None:
        self.task: Any = task
        self.most = most

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, D)."""
        inputs = self.task.inputs(batch)
        if not inputs.is_floating_point():
            inputs = inputs.flatten(1)  # of documents in windows
            reader = getattr(self.task, "backbone", self.task)  # of what is fine-tuned
            counts = torch.zeros(len(inputs), int(reader.network.vocabulary))
            counts.scatter_add_(1, inputs.cpu(), torch.ones(inputs.shape))
            counts[:, ~reader.ordinary.cpu()] = 0
            return counts.log1p()
        while inputs[0].numel() > self.most and min(inputs.shape[-2:]) > 1:
            flat = torch.nn.functional.avg_pool2d(inputs.flatten(0, -4) if inputs.ndim > 4 else inputs, 2)
            inputs = flat.unflatten(0, inputs.shape[: inputs.ndim - 3])
        return inputs.flatten(1)


def ready(data: Any, task: Any) -> StreamData:
    """The DataModule of a probe, with its splits made; text takes the tokenizer of the task.

    Raises:
        UserError: it is no DataModule of this package.
    """
    if not isinstance(data, StreamData):
        raise UserError(f"{type(data).__name__} is no ssl_ebm.data.StreamData: make it one")
    documents: Any = data
    while isinstance(documents, LabelledShare):
        documents = documents.data
    if isinstance(documents, LabelledDocuments):
        backbone = getattr(task, "backbone", task)
        if not isinstance(backbone, MaskedText):
            raise UserError("labelled documents are probed with a model of text: give a checkpoint of one")
        documents.use_tokenizer(backbone.tokenizer_json, backbone.network.length)
        documents.check_splits(backbone.trained_on)
    data.setup()
    return data


def check_targets(
    data: StreamData, targets: Sequence[str], task: Any, splits: Sequence[str] = ("train", "val")
) -> None:
    """Looks for the targets at the first item of each split, so that a training need not end to find out.

    Raises:
        UserError: no items, no such entry, a label that stands for no class.
    """
    for split in splits:
        dataset = getattr(data, f"{split}_dataset")
        plain = dataset.plain() if hasattr(dataset, "plain") else dataset
        if not len(plain):
            raise UserError(NO_ITEMS)
        with isolated(task):
            check_labels(_target(collate_of(plain)(load_items(plain, [0])), targets, task))


def chosen_items(dataset: Any, count: int | None, seed: int) -> list[int]:
    """Up to so many items of a set, drawn without replacement; in their order. None: all."""
    if count is None or count >= len(dataset):
        return list(range(len(dataset)))
    return sorted(np.random.default_rng(seed).choice(len(dataset), count, replace=False).tolist())


def extract(
    frozen: Frozen | RawInputs,
    dataset: Any,
    items: Sequence[int],
    targets: Sequence[str] = ("label",),
    batch_size: int = 256,
    workers: int = 0,
) -> Samples:
    """Features and targets of items, as they are: without augmentation, in evaluation mode.

    Of several processes each takes every Nth item, and all get everything, in the order of `items`. Tokens
    that stand for no input are not `seen`, and 0; all items have as many as the one with the most.

    Args:
        batch_size: items that pass at once; of documents in windows so many windows.
        targets: entries of a batch; numbers of each item are put side by side. Of entries with a value for
            each frame of a clip, the one of the last frame that the task sees; of "velocity", which leads
            from a frame to the next, the one that led to that frame: what is still to come may be drawn by
            lot, and no feature could know it.

    Raises:
        UserError: no such entry; more features than fit into memory.
    """
    plain = dataset.plain() if hasattr(dataset, "plain") else dataset
    rank, processes = _place()
    mine = list(items)[rank::processes]
    at_once = max(1, batch_size // (found_in(plain, "sequences_per_item") or 1))
    loader = OrderedLoader(
        Subset(plain, mine), batch_size=at_once, num_workers=workers, generator=generator_for(0),
        collate_fn=collate_of(plain), timeout=(read_limit() or READ_TIMEOUT) if workers else 0,
    )  # fmt: skip
    found: dict[str, list[Tensor]] = {name: [] for name in ("features", "target", "clip", "group", "seen")}
    with isolated(frozen.task):
        for batch in loader if mine else ():
            features = frozen(batch).cpu()
            if features[0].numel() * len(items) > MOST_VALUES:
                shape = tuple(features.shape[1:])
                raise UserError(f"features of {shape} for {len(items)} items are too many: pool them")
            if isinstance(frozen, Frozen) and features.ndim == 3:
                seen = frozen.seen(batch, features)
                if seen is not None:
                    features = features.where(seen[..., None], 0)
                    found["seen"].append(seen)
            found["features"].append(features)
            found["target"].append(_target(batch, targets, frozen.task))
            for name in ("clip", "group"):
                if name in batch:
                    found[name].append(batch[name])
    mine_of = {name: torch.cat(of_one_length(parts)) if parts else None for name, parts in found.items()}
    whole = mine_of if processes == 1 else _gathered(mine_of, processes)
    if whole["features"] is None or whole["target"] is None:
        raise UserError(NO_ITEMS)
    return Samples(whole["features"], whole["target"], _groups(whole["clip"], whole["group"]), whole["seen"])


def _groups(clip: Tensor | None, group: Tensor | None) -> Tensor | None:
    """What items come in: the recordings of their clips, where there are several, or else the clips; of
    pictures their groups."""
    if group is None or len(group.unique()) == 1:
        return clip
    if clip is None:
        return group
    return torch.from_numpy(first_clips(clip.numpy(), group.numpy()))


def _target(batch: Mapping[str, Tensor], names: Sequence[str], task: Any) -> Tensor:
    for name in names:
        if name not in batch:
            have = ", ".join(batch)
            hint = ": put pictures, or clips, into a folder for each class" if name == "label" else ""
            raise UserError(f"probe: these items have no {name}, only {have}{hint}")
    if len(names) == 1 and not batch[names[0]].is_floating_point() and batch[names[0]].ndim == 1:
        return batch[names[0]]
    return torch.cat([_last_seen(batch, name, task).flatten(1).float() for name in names], 1)


def _last_seen(batch: Mapping[str, Tensor], name: str, task: Any) -> Tensor:
    values, video = batch[name], batch.get("video")
    if video is None or values.ndim < 2 or values.shape[1] != video.shape[1]:
        return values
    last = task.inputs(batch).shape[1] - 1
    return values[:, last - 1 if name == "velocity" else last]


def target_names(item: Mapping[str, Tensor], names: Sequence[str], task: Any) -> list[str]:
    """A name for each number that `extract` makes of these targets of an item."""
    batch = {name: value[None] for name, value in item.items()}
    sizes = {name: _last_seen(batch, name, task).numel() for name in names if name in batch}
    return [f"{name}_{k}" if size > 1 else name for name, size in sizes.items() for k in range(size)]


def _place() -> tuple[int, int]:
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _gathered(mine: dict[str, Tensor | None], processes: int) -> dict[str, Tensor | None]:
    """The parts of all processes, put back in order: item i is with process i mod N."""
    parts: list[Any] = [None] * processes
    torch.distributed.all_gather_object(parts, mine)
    whole: dict[str, Tensor | None] = {}
    for name in mine:
        tensors = of_one_length([part[name] for part in parts if part[name] is not None])
        if not tensors:
            whole[name] = None
            continue
        made = tensors[0].new_empty(sum(map(len, tensors)), *tensors[0].shape[1:])
        for rank, tensor in enumerate(tensors):
            made[rank::processes] = tensor
        whole[name] = made
    return whole
