"""The recipes whose needs are worked out: all configs that train, each read by the command's own parser, and
its arithmetic counted on its own network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_ebm.report.benchmarks.scaling.cluster import Demand
from ssl_ebm.report.benchmarks.scaling.items import Items, items_of
from ssl_ebm.report.benchmarks.steps import flops_of_passes
from ssl_ebm.report.benchmarks.training_loops import Steps, silent
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks.config_files import read_settings, read_text

TOTAL = 10**6  # steps of the training whose first ones are counted
CLASSES = 10  # of what is fine-tuned: assumed
LARGEST = {  # items of an optimizer step beyond which more are not known to help
    "Inpainting": (4096, "Steps of up to 4,096 images: He et al. (2022)."),
    "MaskedText": (8192, "Steps of up to 8,192 sequences: Liu et al., RoBERTa (2019)."),
    "FineTuning": (1024, "Steps of up to 1,024: He et al. (2022) for pictures, assumed for the rest."),
}
ANY = (2048, "Steps of up to 2,048: assumed, nothing is published.")
ON_GPUS = re.compile(r"--processes (\d+)")  # how a config's head says what it is written for
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """A config, and what it asks for.

    Attributes:
        name: its path below ``configs``, without .yaml.
        objective: what it minimises.
        items: that it trains on.
        demand: of a cluster.
        sources: of what no config says.
    """

    name: str
    objective: str
    items: Items
    demand: Demand
    sources: tuple[str, ...]

    @property
    def group(self) -> str:
        """The folder of its task."""
        return self.name.rpartition("/")[0]


class Counted(Steps):
    """A training that logs nothing, on data of some classes."""

    log_every_n_steps = TOTAL
    datamodule = SimpleNamespace(classes=[str(number) for number in range(CLASSES)])


@dataclass(frozen=True)
class Arithmetic:
    """FLOP of training steps: of each item, and of each batch however many items it has.

    Attributes:
        item, fixed: until there is a loss, and of its backward pass.
    """

    item: tuple[float, float]
    fixed: tuple[float, float]

    def backward(self, items: int) -> float:
        """Share of a batch that is the backward pass."""
        forward, backward = (one * items + all_ for one, all_ in zip(self.item, self.fixed, strict=True))
        return backward / (forward + backward)


def find_configs() -> Path | None:
    """The folder of recipes: of the clone that this package lies in, or below the current folder."""
    for place in (Path(__file__).resolve().parents[4], Path()):
        if (place / "configs").is_dir():
            return place / "configs"
    return None


def trainable(configs: Path) -> list[str]:
    """Names of the configs that train, sorted: others are fragments, which describe no model."""
    names = (str(path.relative_to(configs).with_suffix("")) for path in configs.rglob("*.yaml"))
    return sorted(name for name in names if "model" in (read_settings(configs / f"{name}.yaml") or {}))


def read_recipe(configs: Path, name: str) -> Recipe:
    """Builds what a config describes, and counts.

    Raises:
        UserError: as the command ``fit``, or as `items_of`.
    """
    path = configs / f"{name}.yaml"
    with silent():
        run = Run("fit", ["--config", str(path), "--trainer.accelerator", "cpu", "--trainer.devices", "1"])
    task, data = run.model, run.datamodule
    items = items_of(data, task)
    held = {
        one.data_ptr(): one.numel() * one.itemsize for one in task.state_dict().values()
    }  # once if shared
    found = arithmetic_of(task, items.key, items.shape)
    said = ON_GPUS.search(read_text(path))
    step = data.batch_size * run.trainer.accumulate_grad_batches * (int(said[1]) if said else 1)
    largest, source = LARGEST.get(type(task).__name__, ANY)
    demand = Demand(
        parameters=sum(weight.numel() for weight in task.parameters() if weight.requires_grad),
        flops=sum(found.item),
        batch=data.batch_size,
        step=step,
        largest=max(largest, step),
        stored=0.0 if items.kept else items.stored,
        items=items.epoch,
        core=items.core,
        fixed=sum(found.fixed),
        backward=found.backward(data.batch_size),
        held=sum(held.values()),
    )
    return Recipe(name, task.objective_name, items, demand, (items.sources, source))


def arithmetic_of(task: LightningModule, key: str, shape: tuple[int, ...]) -> Arithmetic:
    """Counts the training steps of a task: all that it does for a loss (candidates of a latent, steps of a
    sampler), and the backward pass.

    The count is of matrix products and convolutions, a multiplication and an addition being two; a mean over
    the first eight steps where those of frame prediction differ.

    Args:
        key: of a batch, under which the items are.
        shape: of an item.
    """
    torch.manual_seed(0)
    counted = Counted(TOTAL)
    task.trainer = cast(Trainer, counted)
    task.setup("fit")
    task.train()
    labelled = getattr(task, "sees_labels", False)  # and looks at them, so that they must have values

    def passes(items: int) -> tuple[int, int]:
        batch = batch_of(key, (items, *shape), labelled)
        return flops_of_passes(lambda: cast(Tensor, task.training_step(batch, 0)))

    with nullcontext() if labelled else shapes_alone(task):
        one, two = passes(1), passes(2)
        each = [one]
        for counted.global_step in range(1, 2 * task.hparams.get("self_fed", 0)):
            each.append(passes(1))
    fixed = [2.0 * a - b for a, b in zip(one, two, strict=True)]
    means = [sum(some) / len(each) for some in zip(*each, strict=True)]
    forward, backward = (mean - some for mean, some in zip(means, fixed, strict=True))
    return Arithmetic((forward, backward), (fixed[0], fixed[1]))


@contextmanager
def shapes_alone(task: LightningModule) -> Iterator[None]:
    """Operators give tensors of the right shape and compute nothing; afterwards the task has no weights."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in task.modules():
            held: dict[str, Any]
            for held in (module._parameters, module._buffers):
                held |= {name: mode.from_tensor(one) for name, one in held.items() if one is not None}
        yield


def batch_of(key: str, shape: tuple[int, ...], labelled: bool) -> Batch:
    """A batch of noise."""
    batch = {key: torch.randint(8, 1000, shape) if key == "tokens" else torch.rand(shape)}
    return batch | {"label": torch.randint(CLASSES, shape[:1])} if labelled else batch
