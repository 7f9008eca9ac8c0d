"""Futures of one clip: a context from a file, and what a trained model says may come after it."""

import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ssl_ebm.data.clips import load_clip
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.pictures import CONTEXT, PREDICTED, Picture, frame_grid, write_gif
from ssl_ebm.files import whole
from ssl_ebm.tasks.checkpoints import load_task, read_checkpoint
from ssl_ebm.tasks.frame_prediction import FramePrediction

SUFFIXES = (".gif", ".webp")
FRAMES_PER_SECOND = 5.0  # of the animation


def sample_futures(
    checkpoint: str | Path,
    clip: str | Path,
    out: str | Path,
    samples: int = 16,
    horizon: int = 10,
    start: int = 0,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> Path:
    """Writes an animation of ``samples`` futures of a clip, each rolled out on its own from the same context.

    Every cell shows the context (grey border), then one future (orange border). z is drawn from p(z | x) at
    each step: nothing after the context is read from the clip.

    Args:
        checkpoint: of ``FramePrediction``.
        clip: a video file, or ``FILE.npz[ROW]``, a row of a file of arrays.
        out: where the animation goes; its suffix, .gif or .webp, is its format.
        samples: futures to draw.
        horizon: frames to predict.
        start: first frame of the context, at the frame rate of the training data.
        size: (height, width) in pixels to which frames are resized and cut, or one number for both; None: the
            size of the training data.
        seed: of the draws.

    Returns:
        The path of the animation.

    Raises:
        UserError: a number, file or checkpoint that the user must mend; a clip that is too short.
    """
    out = Path(out)
    for name, value, least in (("samples", samples, 1), ("horizon", horizon, 1), ("start", start, 0)):
        if value < least:
            raise UserError(f"{name} is {value}: use at least {least}")
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write {out}: use a name that ends in {' or '.join(SUFFIXES)}")
    model = load_task(checkpoint, FramePrediction)
    trained_on = read_checkpoint(checkpoint).get("data", {})
    frame_rate = trained_on.get("frame_rate")
    if frame_rate is not None and not (isinstance(frame_rate, int | float) and 0 < frame_rate < math.inf):
        raise UserError(
            f"{checkpoint} says that its clips have {frame_rate!r} frames per second: give another"
        )
    context = load_clip(
        clip,
        size=size or _frame_size(trained_on, checkpoint),
        frame_rate=frame_rate,
        grayscale=model.hparams["channels"] == 1,
        start=start,
        frames=model.context_frames,
    )  # (T, C, H, W)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        futures = model.sample(context[None], samples, horizon, generator)[0]  # (S, horizon, C, H, W)
    pictures = _animation(context, futures)
    if out.suffix.lower() == ".gif":
        return write_gif(pictures, out, FRAMES_PER_SECOND)
    return _write_webp(pictures, out)


def _write_webp(pictures: list[Picture], path: Path) -> Path:
    """Without loss: the usual compression would blur what is to be judged for sharpness."""
    first, *others = [Image.fromarray(picture) for picture in pictures]
    duration = round(1000 / FRAMES_PER_SECOND)
    with whole(path) as partial:
        first.save(partial, save_all=True, append_images=others, duration=duration, loop=0, lossless=True)
    return path


def _frame_size(trained_on: dict[str, Any], checkpoint: str | Path) -> tuple[int, int] | None:
    shape = trained_on.get("frame_shape")  # (C, H, W)
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)):
        raise UserError(f"{checkpoint} says that its frames have the shape {shape!r}: give --size")
    return shape[1], shape[2]


def _animation(context: Tensor, futures: Tensor) -> list[Picture]:
    """One picture per time step: a grid, as square as can be, of cells that share the context."""
    columns = math.ceil(math.sqrt(len(futures)))

    def grid(cells: list[Tensor], border: tuple[int, int, int]) -> Picture:
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
        return frame_grid(rows, borders=[border] * columns)

    seen = [grid([frame] * len(futures), CONTEXT) for frame in context]
    return seen + [grid(list(futures[:, t]), PREDICTED) for t in range(futures.shape[1])]
