"""How fast the loaders make clips, beside how fast a training step takes them."""

from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader

from ssl_ebm.data import ClipData
from ssl_ebm.data.loading import StreamData
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.timing import Effort, Work
from ssl_ebm.report.benchmarks.training_loops import BareLoop, endless
from ssl_ebm.tasks.frame_prediction import FramePrediction

WORKERS = (0, 1)
CLIPS, FRAMES, HEIGHT, WIDTH, RATE = 12, 60, 120, 160, 25  # of the generated folder
CODECS = ("libx264", "mpeg4")  # the first that this FFmpeg can write


class Loading:
    """Takes batches from a loader with fresh workers in every block; none is alive outside of it.

    Workers prepare batches ahead of time: `open` takes those, so that a block times their making.

    Args:
        make: a DataModule, given `workers`.
        workers: processes of the loader.
    """

    def __init__(self, make: Callable[..., StreamData], workers: int) -> None:
        self.data = make(workers=workers)
        self.batches: Iterator[Any] = iter(())
        self._loader: Any = None

    def open(self) -> None:
        self._loader = self.data.train_dataloader()
        self.batches = endless(self._loader)
        waiting = self._loader.prefetch_factor or 0
        self.take(self._loader.num_workers * waiting + 1)

    def take(self, count: int) -> Any:
        """The last of so many batches."""
        for _ in range(count):
            batch = next(self.batches)
        return batch

    def close(self) -> None:
        CombinedLoader(self._loader).reset()  # Lightning's way to end the workers of a loader

    @property
    def work(self) -> Work:
        return Work(self.take, self.open, self.close)


def loading_rows(
    suite: str, source: str, make: Callable[..., ClipData], effort: Effort, **model: Any
) -> Iterator[Row]:
    """Clips per second of the loader with each number of workers; the peer is the least-squares step.

    The step works on one batch that is in memory, so that it waits for nothing. It is the faster of the two
    objectives: a loader that keeps up with it keeps up with both.

    Args:
        source: what is loaded, for the case.
        make: a DataModule, given `workers`.
        **model: settings of the network.
    """
    loading = {workers: Loading(make, workers) for workers in WORKERS}
    context = make(workers=0).context_frames
    loading[0].open()
    batch = {name: value.to(effort.device) for name, value in loading[0].take(1).items()}
    loading[0].close()
    clips, _, channels = batch["video"].shape[:3]
    network = FramePrediction(objective="least_squares", channels=channels, context_frames=context, **model)
    step = BareLoop(network.to(effort.device), repeat(batch))
    works = {f"workers {workers}": one.work for workers, one in loading.items()}
    rates = effort.rates({"step": Work(step), **works})
    for workers in WORKERS:
        yield Row(
            suite,
            f"load {source}, {workers} worker{'' if workers == 1 else 's'}",
            "float32",
            rates[f"workers {workers}"] * clips,
            "clips/s",
            rates["step"] * clips,
            "least-squares training step",
            rates.ratio(f"workers {workers}", "step"),
        )


def write_clips(
    folder: Path, clips: int = CLIPS, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH
) -> Path:
    """A folder of mp4 files: clouds that drift, each with a velocity of its own, so that motion is coded.
    Sides are multiples of 20 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(clips):
        rng = np.random.default_rng(number)
        down, right = rng.integers(1, 4, 2) * rng.choice((-1, 1), 2)  # pixels per frame
        clouds = _clouds(rng, height, width)
        with av.open(str(folder / f"{number:02}.mp4"), "w") as container:
            codec = next(name for name in CODECS if name in av.codecs_available)
            stream: Any = container.add_stream(codec, rate=RATE)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for time in range(frames):
                picture = np.roll(clouds, (down * time, right * time), (0, 1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8, smooth and without a seam at the edges."""
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, height // 20, width // 20)))
    padded = torch.nn.functional.pad(coarse, (1, 1, 1, 1), mode="circular")
    fine = torch.nn.functional.interpolate(padded, scale_factor=20, mode="bilinear")[0, :, 20:-20, 20:-20]
    return np.ascontiguousarray(fine.permute(1, 2, 0).to(torch.uint8).numpy())
