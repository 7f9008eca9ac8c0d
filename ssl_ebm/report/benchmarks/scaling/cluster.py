"""What a training needs of a cluster, by plain arithmetic from stated assumptions: nothing here is measured.

Data parallel training with a copy of the network on each of N GPUs, as the strategy ``ddp`` does it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

GRADIENT_BYTES = 4  # float32, also under mixed precision: DistributedDataParallel without a hook
WEIGHT_BYTES = 4
ADAM_BYTES = 8  # two float32 averages of each weight
BACKWARD = 2 / 3  # of a step's arithmetic: two products for each of the forward pass
MOST_GPUS = 2**16  # beyond which nothing is worked out


@dataclass(frozen=True)
class Cluster:
    """Assumptions; change them for your machines.

    Attributes:
        peak: FLOP/s of a GPU in dense bfloat16. NVIDIA H100 SXM, data sheet: 989e12.
        utilisation: share of the peak that a step reaches. Llama 3 reached 0.38 to 0.43 on up to 16,384 H100
            (Grattafiori et al. 2024, table 4); for small networks it is optimistic.
        gpus_per_node: of a DGX H100.
        node_link: bytes/s that a GPU sends within its node. NVLink of an H100, data sheet: 900 GB/s, both
            directions together.
        network_link: bytes/s that a GPU sends out of its node. One 400 Gb/s InfiniBand port a GPU (DGX H100).
        hop: seconds from one GPU to the next, whatever is sent. Assumed.
        disk: bytes/s to which a checkpoint is written. Assumed: one NVMe disk.
        cores: of processors, for each GPU. A DGX H100 has 112 for its eight.
        efficiency: least share of the time that computes, below which a recipe has stopped scaling. A choice.
    """

    peak: float = 989e12
    utilisation: float = 0.4
    gpus_per_node: int = 8
    node_link: float = 450e9
    network_link: float = 50e9
    hop: float = 5e-6
    disk: float = 2e9
    cores: float = 14
    efficiency: float = 0.9


@dataclass(frozen=True)
class Demand:
    """What a recipe asks for.

    Attributes:
        parameters: that are trained.
        flops: of a training step, forward and backward, for one item.
        batch: items that a GPU takes at a time.
        step: items of an optimizer step on few GPUs (gradients are accumulated up to it).
        largest: items of an optimizer step beyond which more are not known to help.
        stored: bytes of an item, as it is stored.
        items: of an epoch.
        core: items/s that one processor core loads.
        fixed: FLOP of a training step for each batch, however many items it has.
        backward: share of the FLOP that is the backward pass in which gradients are summed.
        held: bytes of all that a checkpoint holds but the optimizer's; None: the parameters.
    """

    parameters: int
    flops: float
    batch: int
    step: int
    largest: int
    stored: float
    items: int
    core: float
    fixed: float = 0.0
    backward: float = BACKWARD
    held: int | None = None


@dataclass(frozen=True)
class Needs:
    """What N GPUs would need. Bytes and seconds, for each optimizer step unless it says otherwise.

    Attributes:
        gpus: N.
        step_items: of an optimizer step, on all GPUs.
        gpu_items: of these on each; below 1 there is no work for all.
        sent: bytes that each GPU sends for the gradient.
        flops: of each GPU.
        compute: seconds of the arithmetic.
        reduce: seconds of the all-reduce.
        exposed: seconds of it that no backward pass hides.
        rate: items/s of all.
        storage: bytes/s that are read.
        cores: processor cores that load, for each GPU.
        steps_per_epoch: optimizer steps.
        checkpoint: bytes.
        checkpoint_seconds: to write one.
    """

    gpus: int
    step_items: int
    gpu_items: float
    sent: float
    flops: float
    compute: float
    reduce: float
    exposed: float
    rate: float
    storage: float
    cores: float
    steps_per_epoch: float
    checkpoint: int
    checkpoint_seconds: float

    @property
    def efficiency(self) -> float:
        """Share of a step that computes."""
        return self.compute / (self.compute + self.exposed)


def ring_bytes(gpus: int, size: float) -> float:
    """Bytes that each of N GPUs sends to sum a vector of so many bytes over a ring: 2 (N - 1) / N size.

    Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009).
    """
    return 2 * (gpus - 1) / gpus * size


def ring_seconds(cluster: Cluster, gpus: int, size: float) -> float:
    """Time of that: 2 (N - 1) hops, and the bytes over the slowest link.

    Beyond a node, as many rings as it has GPUs share the vector, each leaving it through a port of its own.
    """
    link = cluster.node_link
    if gpus > cluster.gpus_per_node:
        link = min(link, cluster.gpus_per_node * cluster.network_link)
    return 2 * (gpus - 1) * cluster.hop + ring_bytes(gpus, size) / link


def needs(demand: Demand, gpus: int, cluster: Cluster | None = None) -> Needs:
    """What so many GPUs need for a recipe.

    The items of an optimizer step are those of the recipe while they fill the GPUs, then N batches, at most
    `largest`. Gradients are summed once in an optimizer step, during the backward pass of its last batch.
    """
    cluster = cluster or Cluster()
    step_items = min(max(demand.step, gpus * demand.batch), demand.largest)
    gpu_items = step_items / gpus
    rate = cluster.peak * cluster.utilisation
    flops = gpu_items * demand.flops + math.ceil(gpu_items / demand.batch) * demand.fixed
    compute = flops / rate
    gradient = GRADIENT_BYTES * demand.parameters
    reduce = ring_seconds(cluster, gpus, gradient)
    last = min(gpu_items, demand.batch) * demand.flops + demand.fixed  # FLOP of the last batch
    exposed = max(0.0, reduce - demand.backward * last / rate)
    rate_of_all = step_items / (compute + exposed)
    held = WEIGHT_BYTES * demand.parameters if demand.held is None else demand.held
    checkpoint = held + ADAM_BYTES * demand.parameters
    return Needs(
        gpus=gpus,
        step_items=step_items,
        gpu_items=gpu_items,
        sent=ring_bytes(gpus, gradient),
        flops=flops,
        compute=compute,
        reduce=reduce,
        exposed=exposed,
        rate=rate_of_all,
        storage=rate_of_all * demand.stored,
        cores=rate_of_all / gpus / demand.core,
        steps_per_epoch=demand.items / step_items,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint / cluster.disk,
    )


def loaded_share(found: Needs, cluster: Cluster | None = None) -> float:
    """Share of the items that the GPUs could take which their processors can load."""
    return min(1.0, (cluster or Cluster()).cores / found.cores)


def limit(demand: Demand, cluster: Cluster | None = None) -> tuple[int, str]:
    """The most GPUs, a power of two, with which a recipe still scales; and what stops it."""
    cluster = cluster or Cluster()
    gpus = 1
    while gpus < MOST_GPUS:
        more = needs(demand, 2 * gpus, cluster)
        if more.gpu_items < 1:
            return gpus, f"a step has {more.step_items:,} items, fewer than {2 * gpus:,} GPUs"
        if more.efficiency < cluster.efficiency:
            items = min(more.gpu_items, demand.batch)
            return gpus, (
                f"the all-reduce, {more.reduce * 1e3:.2g} ms, is longer than the backward pass of {items:g} "
                f"items: {more.efficiency:.0%} of a step computes"
            )
        gpus *= 2
    return gpus, "nothing up to there"
