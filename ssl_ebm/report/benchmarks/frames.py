"""Suite "frames": next-frame prediction on its default data, 32 clips of 4 + 1 frames of 32x32 in a batch.

- Training steps of the command ``fit`` beside a bare PyTorch loop that does the same: what Lightning costs.
- A step of the latent EBM beside a step of least squares.
- The arithmetic of a step, and the share of the matrix-multiply rate that it reaches.
- Inference of z as the number of codes grows.
- The loaders beside the step that they feed.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from ssl_ebm.data import ClipData, MovingDigits, VideoFolder
from ssl_ebm.report.benchmarks.inference_cost import inference_rows
from ssl_ebm.report.benchmarks.loading_rates import loading_rows, write_clips
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.suites import Part
from ssl_ebm.report.benchmarks.timing import Effort, Rates, Work, has_bfloat16, matmul, matmul_flops
from ssl_ebm.report.benchmarks.training_loops import Turns, bare_twin, execute, longest_block, make_fit

SUITE = "frames"
FIT = "{}: training steps of fit"
BARE = "bare PyTorch loop"
STEP_OF_EBM = "latent_ebm: training step"
OVERHEAD = 0.05  # of a training step, the most that Lightning may add
STEP_RATIO = 1.8  # how many least-squares steps a step of the latent EBM may last

# Where the loaders' clips come from, and the step that takes them: the worlds and networks of the configs.
WORLDS: dict[str, Callable[..., ClipData]] = {
    "small digits": MovingDigits,
    "large digits": partial(
        MovingDigits, digits=2, size=64, digit_size=28, normal_speed=4, tangential_speed=4
    ),
}
VIDEO = {"mp4 files, cached": {"cache": True}, "mp4 files": {"cache": False}}
LARGE_NETWORK = {"width": 32, "levels": 3, "radius": 4}


def parts(effort: Effort) -> list[Part]:
    """What the suite measures, in order."""
    # Lightning's overhead is a few percent, as much as a block differs from the next: it takes many of them.
    long = Effort(3 * effort.repeats, effort.seconds, effort.device)
    turns = long.repeats * long.seconds
    training = [
        Part(f"{objective}, {_name(dtype)}", 3 + blocks * turns, partial(_training, long, objective, dtype))
        for dtype in (torch.float32, torch.bfloat16)
        if dtype == torch.float32 or has_bfloat16(effort.device)
        for objective, blocks in (("least_squares", 3), ("latent_ebm", 4))
    ]
    # Rates of loaders and of inference differ by more than a few percent: fewer blocks tell them apart.
    brief = Effort(max(1, effort.repeats // 2), effort.seconds / 2, effort.device)
    turns = brief.repeats * brief.seconds
    loading = [
        Part(f"loading, {source}", 4 + 5 * turns, partial(_loading, brief, source))
        for source in (*WORLDS, *VIDEO)
    ]
    return [*training, Part("inference", 8 + 16 * turns, partial(inference_rows, SUITE, brief)), *loading]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _training(
    effort: Effort, objective: str, dtype: torch.dtype, settings: Sequence[str] = ()
) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Path(folder) / name for name in ("least_squares", "latent_ebm")}
        run = make_fit(objective, runs[objective], dtype, effort.device, settings)
        longest = longest_block(effort.repeats, run.trainer.max_steps)
        bare = bare_twin(run, dtype, effort.device)
        peers = {"bare": Work(bare), "ceiling": matmul(dtype, effort.device)}
        if objective == "latent_ebm":
            other = make_fit("least_squares", runs["least_squares"], dtype, effort.device, settings)
            peers["least_squares"] = Work(bare_twin(other, dtype, effort.device))
        block = min(effort.block(peers["bare"]), longest)
        rates = execute(run, Turns(peers, block, effort))
        yield from _training_rows(objective, dtype, rates, bare.flops())


def _training_rows(objective: str, dtype: torch.dtype, rates: Rates, flops: int) -> Iterator[Row]:
    """Rows from the rates of steps, and of matrix products, per second."""
    ceiling = rates["ceiling"] * matmul_flops()
    name = _name(dtype)
    yield Row(
        SUITE,
        FIT.format(objective),
        name,
        rates["fit"],
        "steps/s",
        rates["bare"],
        BARE,
        rates.ratio("fit", "bare"),
        rates["fit"] * flops / ceiling,
    )
    if "least_squares" in rates:
        yield Row(
            SUITE,
            STEP_OF_EBM,
            name,
            rates["bare"],
            "steps/s",
            rates["least_squares"],
            "least-squares training step",
            rates.ratio("bare", "least_squares"),
            rates["bare"] * flops / ceiling,
        )
    yield Row(SUITE, f"{objective}: arithmetic of a step", name, flops / 1e9, "GFLOP")
    achieved = rates["bare"] * flops
    yield Row(
        SUITE,
        f"{objective}: arithmetic in training",
        name,
        achieved / 1e9,
        "GFLOP/s",
        ceiling / 1e9,
        "matrix multiply, 2048 a side",
        rates.ratio("bare", "ceiling").times(flops / matmul_flops()),
        achieved / ceiling,
    )


def _loading(effort: Effort, source: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        if source in VIDEO:
            write_clips(Path(folder))
        make = partial(VideoFolder, folder, **VIDEO[source]) if source in VIDEO else WORLDS[source]
        network = {} if source == "small digits" else LARGE_NETWORK
        yield from loading_rows(SUITE, source, make, effort, **network)


def summary(rows: Sequence[Row]) -> list[str]:
    """What is promised of this suite, and what was measured."""
    lines = []
    for row in rows:
        if row.ratio is None:
            continue
        # How long a step lasts, in steps of the peer.
        low, value, high = (1 / rate for rate in (row.ratio.high, row.ratio.value, row.ratio.low))
        if row.peer_name == BARE:
            lines.append(
                f"{row.case} ({row.dtype}): Lightning adds {value - 1:.1%} ({low - 1:.1%} to {high - 1:.1%}) "
                f"to the bare loop (promised: at most {OVERHEAD:.0%})"
            )
        if row.case == STEP_OF_EBM:
            lines.append(
                f"{row.case} ({row.dtype}): lasts {value:.2f} ({low:.2f} to {high:.2f}) least-squares steps "
                f"(promised: at most {STEP_RATIO})"
            )
    return lines
