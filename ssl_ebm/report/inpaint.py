"""``ssl-ebm inpaint``: fills the hole of a picture from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_ebm.data.picture_files import BrokenPictureError, decode, upright
from ssl_ebm.errors import UserError
from ssl_ebm.files import whole
from ssl_ebm.networks.completion import occlude
from ssl_ebm.tasks.checkpoints import load_task, read_checkpoint
from ssl_ebm.tasks.inpainting import Inpainting

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def inpaint(
    checkpoint: str | Path,
    picture: str | Path,
    out: str | Path,
    mask: str | Path | None = None,
    samples: int = 1,
    size: int | None = None,
    seed: int = 0,
) -> list[Path]:
    """Writes the picture with its hole filled in, at the picture's own size.

    The hole is completed at the resolution of the training pictures (the shorter side, or the size that a
    masked autoencoder was made for), enlarged, and set into the picture; nothing else of it changes.

    Args:
        checkpoint: of `Inpainting`.
        picture: the file; 16 bits, palettes and grey are taken as they are meant.
        out: where it goes. Several samples are written beside each other, as out-1, out-2, ...
        mask: a picture of the same size, white where pixels are to be filled in. None: what is transparent in
            `picture`.
        samples: completions, each with a z of its own from p(z | x). Least squares has but one.
        size: shorter side at which the hole is completed, pixels; None: as in training.
        seed: of the draws.

    Returns:
        The files.

    Raises:
        UserError: a file, size or number that the user must mend; a mask of another size, or of nothing or
            everything.
    """
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write {out}: use a name that ends in {', '.join(SUFFIXES)}")
    if samples < 1 or (size is not None and size < 1):
        raise UserError(f"samples is {samples} and size {size}: use at least 1")
    task = load_task(checkpoint, Inpainting)
    if samples > 1 and task.prior is None:
        raise UserError(f"{checkpoint} is of least squares, which has one completion: leave samples at 1")
    image, hole = read_picture(picture, mask, grayscale=task.network.channels == 1)
    small, hidden = _resized(image, hole, _work_size(task, checkpoint, image, size))
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(seed)
        drawn = task.sample(occlude(small[None], hidden[None]), samples, generator)[0]  # (S, C, h, w)
    large = interpolate(drawn, image.shape[1:], mode="bicubic", antialias=False).clamp(0, 1)
    finished = torch.where(hole, large, image)
    names = [out] if samples == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(samples)]
    for path, one in zip(names, finished, strict=True):
        _write(one, path)
    return names


def read_picture(picture: str | Path, mask: str | Path | None, grayscale: bool) -> tuple[Tensor, Tensor]:
    """The picture (C, H, W) in [0, 1] and its hole (1, H, W) bool; errors as in `inpaint`."""
    path = Path(picture)
    try:
        shown = decode(path, str(path), grayscale)
        if mask is not None:
            drawn = decode(Path(mask), str(mask), True)
            if drawn.size != shown.size:
                raise UserError(
                    f"{mask} is {drawn.size[0]}x{drawn.size[1]} pixels and {path} {shown.size[0]}x"
                    f"{shown.size[1]}: give a mask of the picture's size"
                )
            hidden = np.asarray(drawn) > 127
        else:
            with Image.open(path) as file:
                if not file.has_transparency_data:
                    raise UserError(f"{path} has nothing transparent to fill in: give --mask")
                hidden = np.asarray(upright(file).convert("RGBA"))[..., 3] < 128
    except BrokenPictureError as broken:
        raise UserError(f"{broken}: give a picture") from broken
    if hidden.all() or not hidden.any():
        what = "everything" if hidden.all() else "nothing"
        raise UserError(f"the mask of {path} hides {what}: paint white what is to be filled in")
    pixels = np.array(shown, np.float32) / 255
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1), torch.from_numpy(hidden)[None]


def _work_size(task: Inpainting, checkpoint: str | Path, image: Tensor, size: int | None) -> tuple[int, int]:
    """(H, W) at which the hole is completed."""
    autoencoder: Any = getattr(task.network, "autoencoder", None)
    if autoencoder is not None:
        if size is not None and (size, size) != autoencoder.size:
            raise UserError(f"this masked autoencoder takes {autoencoder.size} pixels: leave --size out")
        found: tuple[int, int] = autoencoder.size
        return found
    height, width = image.shape[1:]
    shorter = size or min(_trained_size(checkpoint))
    scale = shorter / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _trained_size(checkpoint: str | Path) -> list[int]:
    """[H, W] of the pictures that a model was trained on."""
    data = read_checkpoint(checkpoint).get("data", {})
    data = data.get("data", data)  # of the data inside of `LabelledShare`
    shape = data.get("image_shape")
    size = data.get("size", shape[1:] if isinstance(shape, list) else None)
    if size is None:
        raise UserError(f"{checkpoint} does not say how large its pictures are: give --size")
    if not isinstance(size, list) or not size or not all(type(side) is int and side > 0 for side in size):
        raise UserError(f"{checkpoint} says that its pictures have the size {size!r}: give --size")
    return size


def _resized(image: Tensor, hole: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Averages of the visible pixels; hidden is whatever a hidden pixel falls into."""
    shown = (~hole).float()
    parts = [interpolate(one[None], size, mode="area")[0] for one in (image * shown, shown)]
    hidden = parts[1] < 1 - 1e-6
    if bool(hidden.all()):
        raise UserError(f"at {size[0]}x{size[1]} pixels the hole is everything: give a larger --size")
    return parts[0] / parts[1].clamp_min(1e-6), hidden


def _write(image: Tensor, path: Path) -> None:
    levels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    with whole(path) as partial:
        Image.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels).save(partial)
