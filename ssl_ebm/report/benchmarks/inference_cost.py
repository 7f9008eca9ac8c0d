"""What it costs to rate K codes of the latent, beside K decoder passes and K passes of the whole network."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssl_ebm.energy import FiniteLatent
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.timing import Effort, Work, matmul, matmul_flops
from ssl_ebm.tasks.frame_prediction import FramePrediction

CODES = (1, 8, 32, 128, 512)
CLIPS = 32  # in a batch


def inference_rows(
    suite: str, effort: Effort, codes: Sequence[int] = CODES, clips: int = CLIPS, side: int = 32
) -> Iterator[Row]:
    """Rates, in clips per second, of finding z* by enumeration: all K energies of every clip.

    Peers: the context once and K decoder passes one after the other; K passes of the whole network (of which
    one is measured: they are all alike); the same with the smallest K.

    Args:
        codes: the K to measure, ascending.
        side: of the frames, pixels.
    """
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(clips, 5, 1, side, side, generator=generator).to(effort.device)
    x, y = video[:, :4], video[:, 4]
    works = {"ceiling": matmul(torch.float32, effort.device)}
    flops = {}
    for count in codes:
        model = FramePrediction(codes=count).to(effort.device).eval()
        works[f"all {count}"] = _repeated(partial(model.energies_by_code, x, y))
        works[f"each of {count}"] = _repeated(partial(energies_one_by_one, model, x, y))
        works[f"one of {count}"] = _repeated(partial(energies_of_first_code, model, x, y))
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model.energies_by_code(x, y)
        flops[count] = int(counter.get_total_flops())
    rates = effort.rates(works)  # batches per second
    ceiling = rates["ceiling"] * matmul_flops()
    for count in codes:
        ours = rates[f"all {count}"]
        row = partial(
            Row,
            suite=suite,
            case=f"infer z, {count} code{'' if count == 1 else 's'}",
            dtype="float32",
            ours=ours * clips,
            unit="clips/s",
            ceiling_share=ours * flops[count] / ceiling,
        )
        if count == codes[0]:
            yield row()
            continue
        everything, one = f"all {count}", f"one of {count}"
        yield row(
            peer=rates[f"each of {count}"] * clips,
            peer_name=f"{count} decodes, one by one",
            ratio=rates.ratio(everything, f"each of {count}"),
        )
        yield row(
            peer=rates[one] * clips / count,
            peer_name=f"{count} full forward passes",
            ratio=rates.ratio(everything, one).times(count),
        )
        yield row(
            peer=rates[f"all {codes[0]}"] * clips,
            peer_name=f"the same, codes: {codes[0]}",
            ratio=rates.ratio(everything, f"all {codes[0]}"),
        )


def energies_one_by_one(model: FramePrediction, x: Tensor, y: Tensor) -> Tensor:
    """E(x, y, k) for every code: (B, K), from one context and K decoder passes."""
    h = model.energy.context(x)
    return torch.cat([model.energy.energy(y, h, z) for z in _codes(model, len(x))], 1)


def energies_of_first_code(model: FramePrediction, x: Tensor, y: Tensor) -> Tensor:
    """E(x, y, 0): (B, 1), from one pass of the whole network."""
    return model.energy(x, y, _codes(model, len(x))[0])


def _codes(model: FramePrediction, clips: int) -> list[Tensor]:
    """Every value of z, for all clips: K times (B, 1, D)."""
    assert isinstance(model.latent, FiniteLatent)
    return [z.expand(clips, 1, -1) for z in model.latent.enumerate()]


def _repeated(once: Callable[[], object]) -> Work:
    @torch.inference_mode()
    def run(units: int) -> None:
        for _ in range(units):
            once()

    return Work(run)
