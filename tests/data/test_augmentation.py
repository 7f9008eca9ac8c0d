"""Crops and mirroring: functions of the place, the same on workers and device; crops as torchvision's."""

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2.functional import resized_crop

from ssl_ebm.data.augmentation import Augmentation, augment, random_boxes, resized_crops
from ssl_ebm.data.image_items import ImageDataset, Pixels
from ssl_ebm.errors import UserError


def dataset(crop: float, flip: bool, where: Any) -> ImageDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16)).astype(np.uint8)
    return ImageDataset(Pixels(pixels), Augmentation(crop, flip, where, seed=3))


def test_crops_are_torchvisions() -> None:
    images = torch.rand(6, 3, 20, 28)
    uniform = np.random.default_rng(1).random((6, 22))
    boxes = random_boxes(uniform, 20, 28, 0.2, 28 / 20)
    found = resized_crops(images, torch.from_numpy(boxes))
    for image, box, one in zip(images, boxes.tolist(), found, strict=True):
        torch.testing.assert_close(
            one, resized_crop(image, *box, size=[20, 28], antialias=True), atol=2e-5, rtol=0
        )


def test_boxes_lie_inside_and_keep_their_share() -> None:
    boxes = random_boxes(np.random.default_rng(2).random((4000, 22)), 32, 32, 0.3)
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 32).all()
    assert (left + width <= 32).all()
    share = height * width / 32**2
    assert share.min() > 0.26  # whole pixels
    torch.manual_seed(0)
    theirs = [
        RandomResizedCrop.get_params(torch.empty(1, 32, 32), [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)
    ]
    _, _, h, w = np.array(theirs).T
    assert abs(share.mean() - (h * w).mean() / 32**2) < 0.02  # five standard errors
    assert (np.abs(np.log(width / height)) < np.log(4 / 3) + 0.08).all()


def test_an_item_depends_on_its_place_alone() -> None:
    data = dataset(0.3, True, "workers")
    together = [item["image"] for item in data.__getitems__([5, 17, 2])]
    alone = [data[place]["image"] for place in (5, 17, 2)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert not torch.equal(data[5]["image"], data[17]["image"])  # the same picture, an epoch later


def test_device_and_workers_give_the_same_batch() -> None:
    worker = torch.stack(
        [item["image"] for item in dataset(0.3, True, "workers").__getitems__(list(range(12)))]
    )
    items = dataset(0.3, True, "device").__getitems__(list(range(12)))
    batch = augment({name: torch.stack([item[name] for item in items]) for name in items[0]})
    assert set(batch) == {"image", "index"}
    torch.testing.assert_close(batch["image"], worker, atol=1 / 255, rtol=0)


def test_bad_settings_are_named() -> None:
    with pytest.raises(UserError, match="crop is 0"):
        Augmentation(0.0, False, "workers", 0)
