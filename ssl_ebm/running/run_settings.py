"""Settings of a run that Lightning's command line does not have."""

from __future__ import annotations

import os
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.cli import LightningArgumentParser

from ssl_ebm.data.loading import READ_TIMEOUT
from ssl_ebm.evaluation.loggers import WandbMode
from ssl_ebm.tasks.divergence import MAX_LOSS
from ssl_ebm.tasks.naming import FLAGS


def add_settings(parser: LightningArgumentParser) -> None:
    """Folder, checkpoints, logging, tolerance of faults, and what to save memory or time by."""
    parser.add_argument(
        "--run_dir",
        type=str | None,
        default=None,
        help="Folder of checkpoints, settings and logs (default: runs/NAME, NAME.yaml the first config).",
    )
    parser.add_argument(
        "--start_from",
        type=str | None,
        default=None,
        help="Checkpoint of the same task whose weights (and tokenizer) fit begins with, at step 0.",
    )
    parser.add_argument(
        "--checkpoint_every",
        type=PositiveInt,
        default=500,
        help="Optimizer steps between two checkpoints.",
    )
    parser.add_argument(
        "--wandb",
        type=WandbMode,
        default="off",
        help="fit logs to Weights & Biases too: not at all, to local files, or to its server.",
    )
    parser.add_argument(
        "--max_loss",
        type=PositiveFloat,
        default=MAX_LOSS,
        help="A training loss farther from 0 than this has exploded, and stops training (inf: none has).",
    )
    parser.add_argument(
        "--skip_steps",
        type=NonNegativeInt,
        default=0,
        help="Steps that may be left out for a gradient that is not finite or an exploding loss.",
    )
    parser.add_argument(
        "--lr_reference_batch",
        type=PositiveInt | None,
        default=None,
        help="Items in the optimizer step that model.lr is for: scaled to the step that is taken.",
    )
    parser.add_argument(
        "--read_timeout",
        type=PositiveFloat,
        default=READ_TIMEOUT,
        help="Seconds that a batch of StreamData may take to load, before training stops.",
    )
    parser.add_argument(
        "--activation_checkpointing",
        type=bool,
        default=False,
        help="Stages of networks compute activations again for the gradient, to save memory.",
    )
    parser.add_argument(
        "--compile",
        type=str | None,
        default=None,
        help="Compile the stages of networks by this backend of torch.compile, such as inductor.",
    )
    parser.add_argument(
        *FLAGS,
        action="store_true",
        help="Let config files name classes of any package; counts on the command line alone.",
    )


def launched_settings(config: Any) -> dict[str, Any]:
    """Devices, nodes and strategy as torchrun or srun says: one YAML serves any number of processes."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
    elif SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        local = int(os.environ["SLURM_NTASKS"]) // nodes
    else:
        return {}
    strategy = "ddp" if config["strategy"] == "auto" else config["strategy"]
    return {"devices": local, "num_nodes": nodes, "strategy": strategy}
