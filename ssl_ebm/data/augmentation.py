"""Random crops and mirroring of training images: drawn for an item's place, applied to whole batches."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ssl_ebm.data.randomness import integers, uniforms
from ssl_ebm.errors import UserError

DISTORTION = 3 / 4, 4 / 3  # least and greatest; both and the number of attempts are RandomResizedCrop's
ATTEMPTS = 10
BOX, MIRRORED = "crop_box", "mirrored"  # columns of a batch whose images are yet to be augmented


@dataclass(frozen=True)
class Augmentation:
    """What is done to the training images, as a pure function of (seed, split, place).

    Attributes:
        crop: least share of the area that a crop keeps, in (0, 1]; 1 takes no crops.
        flip: mirror left to right with probability one half.
        where: "workers", or "device" where the DataModule does it after the transfer.
        seed, split: name the random numbers.

    Raises:
        UserError: a setting out of its range.
    """

    crop: float
    flip: bool
    where: Literal["workers", "device"]
    seed: int
    split: str = "train"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UserError(f"crop is {self.crop}: use a share of the area above 0, at most 1 (no crops)")
        if self.where not in ("workers", "device"):
            raise UserError(f"augment_on is {self.where!r}: use workers or device")

    def boxes(
        self, place: NDArray[np.int64], height: ArrayLike, width: ArrayLike, aspect: float
    ) -> NDArray[np.int64]:
        """The crops (N, 4) of the items at these places (N,), as in `random_boxes`."""
        uniform = uniforms(self.seed, f"{self.split}/crop", place, 2 * ATTEMPTS + 2)
        return random_boxes(uniform, height, width, self.crop, aspect)

    def mirrored(self, place: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which items (N,) are shown mirrored."""
        return uniforms(self.seed, f"{self.split}/flip", place, 1)[:, 0] < 0.5


def random_boxes(
    uniform: NDArray[np.float64], height: ArrayLike, width: ArrayLike, least: float, aspect: float = 1.0
) -> NDArray[np.int64]:
    """Crops as torchvision's RandomResizedCrop draws them (Szegedy et al., "Going deeper with convolutions",
    CVPR 2015, section 6).

    The share of the area is uniform in [least, 1], the logarithm of width / (height * aspect) uniform between
    those of 3/4 and 4/3, the place uniform. Of ten attempts the first one that fits inside counts; where none
    does, it is the largest central box of such a form.

    Args:
        uniform: (N, 22) numbers in [0, 1).
        height, width: of the images in pixels, numbers or (N,).
        least: share of the area, in (0, 1].
        aspect: width / height of the size that the crops are brought to. (torchvision leaves it at 1, and so
            stretches every crop that is brought to another form.)

    Returns:
        (N, 4): top, left, height and width in whole pixels.
    """
    H, W = (np.broadcast_to(np.asarray(side), len(uniform))[:, None] for side in (height, width))
    low, high = np.log(DISTORTION)
    area = (least + (1 - least) * uniform[:, :ATTEMPTS]) * (H * W)  # (N, ATTEMPTS)
    ratio = aspect * np.exp(low + (high - low) * uniform[:, ATTEMPTS : 2 * ATTEMPTS])
    h, w = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (h > 0) & (h <= H) & (w > 0) & (w <= W)
    first, found = fits.argmax(1)[:, None], fits.any(1)[:, None]
    narrowest, widest = (aspect * bound for bound in DISTORTION)
    central_h = np.where(H * narrowest > W, np.rint(W / narrowest), H).clip(1)
    central_w = np.where(H * widest < W, np.rint(H * widest), W).clip(1)
    h = np.where(found, np.take_along_axis(h, first, 1), central_h).astype(np.int64)
    w = np.where(found, np.take_along_axis(w, first, 1), central_w).astype(np.int64)
    top = np.where(found, integers(uniform[:, -2:-1], 0, H - h), (H - h) // 2)
    left = np.where(found, integers(uniform[:, -1:], 0, W - w), (W - w) // 2)
    return np.concatenate([top, left, h, w], 1)


def resized_crops(images: Tensor, boxes: Tensor) -> Tensor:
    """Each image's box, brought to the size of the whole image by bilinear interpolation.

    A box is never larger than its image, so nothing is shrunk, and torchvision's `resized_crop` gives the
    same with antialiasing and without.

    Args:
        images: (N, C, H, W) float, in [0, 1].
        boxes: (N, 4): top, left, height and width in pixels, within the image.

    Returns:
        (N, C, H, W), in [0, 1].
    """
    H, W = images.shape[-2:]
    dtype = torch.promote_types(images.dtype, torch.float32)  # half precision cannot name places
    top, left, height, width = boxes.to(dtype).T[..., None]  # (N, 1) each

    def places(start: Tensor, length: Tensor, side: int) -> Tensor:
        """(N, side): where to read, -1 and 1 being the image's borders; the box's edge pixels go on."""
        centre = torch.arange(side, device=images.device, dtype=dtype) + 0.5
        inside = (centre * length / side - 0.5).clamp(min=0).minimum(length - 1)
        return (2 * (start + inside) + 1) / side - 1

    x, y = places(left, width, W)[:, None, :], places(top, height, H)[:, :, None]
    grid = torch.stack([x.expand(-1, H, W), y.expand(-1, H, W)], dim=-1)
    return F.grid_sample(images.to(dtype), grid, align_corners=False).clamp_(0, 1).to(images.dtype)


def augment(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Crop and mirror a batch's "image" (N, C, H, W) as its columns "crop_box" (N, 4) and "mirrored" (N,)
    say, where it has them; they are left out of the result."""
    images = batch["image"]
    if BOX in batch:
        images = resized_crops(images, batch[BOX])
    if MIRRORED in batch:
        images = torch.where(batch[MIRRORED][:, None, None, None], images.flip(-1), images)
    made = copy.copy(batch)  # of the same class
    made["image"] = images
    for name in (BOX, MIRRORED):
        made.pop(name, None)
    return made
