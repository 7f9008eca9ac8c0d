"""Items, exact futures and impossible frames of the moving digits."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_ebm.data import MovingDigits, MovingDigitsDataset
from ssl_ebm.data.glyphs import font_glyphs, mnist_glyphs
from ssl_ebm.errors import UserError

SMALL: dict[str, Any] = {"glyphs_per_digit": 4, "train_clips": 200, "val_clips": 50, "test_clips": 400}
LARGE = SMALL | {
    "digits": 2,
    "size": 64,
    "digit_size": 20,
    "normal_speed": 4,
    "tangential_speed": 4,
    "test_clips": 120,
}


def unseen(settings: dict[str, Any]) -> MovingDigitsDataset:
    data = MovingDigits(**settings)
    data.setup("test")
    return data.test_dataset


@pytest.mark.parametrize("settings", [SMALL, LARGE], ids=["small", "large"])
def test_true_future_is_among_the_futures_and_flag_tells_how_many(settings: dict[str, Any]) -> None:
    dataset = unseen(settings)
    several = 0
    for index in range(len(dataset)):
        item, futures = dataset[index], dataset.futures(index)
        assert futures.probability.sum().item() == pytest.approx(1.0)
        assert len(torch.unique(futures.frames.flatten(1), dim=0)) == len(futures.frames)
        truth = item["video"][dataset.context_frames]
        assert (futures.frames == truth).flatten(1).all(dim=1).sum() == 1
        assert item["uncertain"].item() == (len(futures.frames) > 1)
        several += len(futures.frames) > 1
    assert 0.1 < several / len(dataset) < 0.3


def test_future_frames_follow_their_probabilities() -> None:
    """Over all uncertain items: how often the k-th most probable future is the true one, against its
    probability.

    (1[k is true] - p_k) has mean 0 and variance p_k (1 - p_k) if the probabilities are exact.
    """
    dataset = unseen(SMALL | {"test_clips": 6000})
    position = torch.stack([item["position"] for item in dataset.__getitems__(range(6000))])
    uncertain = [i for i, item in enumerate(dataset.__getitems__(range(6000))) if item["uncertain"]]
    assert len(position) == 6000
    score = variance = 0.0
    for index in uncertain:
        futures = dataset.futures(index)
        heavy = futures.probability > futures.probability.min() * 1.5  # merged by clamping
        true = (futures.frames == dataset[index]["video"][4]).flatten(1).all(dim=1)
        mass = futures.probability[heavy].sum().item()
        score += true[heavy].sum().item() - mass
        variance += mass * (1 - mass)
    assert variance > 20  # enough merged futures to tell
    assert abs(score) < 4 * variance**0.5


def test_two_touching_digits_have_the_product_of_their_futures() -> None:
    dataset = unseen(LARGE | {"test_clips": 3000})
    wall = dataset.world.on_wall
    for index, item in enumerate(dataset.__getitems__(range(3000))):
        now = item["position"][3].numpy().astype(int)
        if wall(now).any(axis=-1).all():
            ways = [len(dataset.world.next_positions(place, np.zeros(2, int))[0]) for place in now]
            assert len(dataset.futures(index).frames) == ways[0] * ways[1]
            assert ways[0] * ways[1] > 36
            return
    pytest.fail("no clip with both digits at a wall")


def test_video_shows_the_digit_where_position_says() -> None:
    """The frame, cut at the stated position, is the glyph; nothing lies outside it."""
    dataset = unseen(SMALL)
    for item in dataset.__getitems__(range(50)):
        crops = []
        for frame, place in zip(item["video"][:, 0], item["position"][:, 0].int().tolist(), strict=True):
            crop = frame[place[0] : place[0] + 14, place[1] : place[1] + 14]
            assert crop.count_nonzero() == frame.count_nonzero()
            crops.append(crop)
        same = [g for g, image in enumerate(dataset.glyphs.images) if (crops[0].numpy() == image).all()]
        assert len(same) == 1
        assert dataset.glyphs.labels[same[0]] == item["label"]
        assert all((crop == crops[0]).all() for crop in crops)


def test_impossible_frame_goes_through_the_wall() -> None:
    """It is one of the nine to fifteen mirrored frames, drawn here by hand, and none of the possible ones."""
    dataset = unseen(SMALL)
    checked = 0
    for index in range(len(dataset)):
        item, impossible = dataset[index], dataset.impossible(index)
        assert (impossible is None) == (not item["uncertain"])
        if impossible is None:
            continue
        assert not (dataset.futures(index).frames == impossible).flatten(1).all(dim=1).any()
        row, column = item["position"][3, 0].int().tolist()
        glyph = item["video"][3, 0, row : row + 14, column : column + 14]
        mirrored = [
            [-1, -2, -3] if c == 0 else [19, 20, 21] if c == 18 else range(max(c - 2, 0), min(c + 2, 18) + 1)
            for c in (row, column)
        ]
        drawn = []
        for y in mirrored[0]:
            for x in mirrored[1]:
                canvas = torch.zeros(64, 64)
                canvas[16 + y : 30 + y, 16 + x : 30 + x] = glyph
                drawn.append(canvas[16:48, 16:48])
        assert any((frame == impossible[0]).all() for frame in drawn)
        checked += 1
    assert checked > 30


def test_items_do_not_depend_on_the_batch() -> None:
    dataset = unseen(LARGE)
    batch = dataset.__getitems__([7, 3, 11])
    for index, item in zip([7, 3, 11], batch, strict=True):
        alone = dataset[index]
        assert all((alone[name] == item[name]).all() for name in alone)
    again = unseen(LARGE)[11]
    assert (again["video"] == batch[2]["video"]).all()


def test_later_epochs_bring_fresh_clips_and_longer_clips_begin_alike() -> None:
    data = MovingDigits(**SMALL, eval_future_frames=6)
    data.setup()
    first, second = data.train_dataset[5], data.train_dataset[5 + len(data.train_dataset)]
    assert (first["position"] != second["position"]).any()
    long, short = data.test_dataset[5]["video"], unseen(SMALL)[5]["video"]
    assert len(long) == 10
    assert (long[:5] == short).all()


def test_splits_and_seeds_share_neither_clips_nor_shapes() -> None:
    banks = [font_glyphs(14, 4, seed, split).images for seed in (0, 1) for split in ("train", "val", "test")]
    shapes = {image.tobytes() for bank in banks for image in bank}
    assert len(shapes) == 6 * 40
    data = MovingDigits(**SMALL)
    data.setup()
    clips = {
        item["video"].numpy().tobytes()
        for dataset in (data.train_dataset, data.val_dataset, data.test_dataset)
        for item in dataset.__getitems__(range(50))
    }
    assert len(clips) == 150


def test_glyphs_fill_their_square_and_can_be_told_apart() -> None:
    """The ink reaches all four sides of its square, so a wall is seen to be touched; digits can be told."""
    bank = font_glyphs(20, 20, 0, "train")
    other = font_glyphs(20, 20, 0, "test")
    for image in bank.images:
        for side in (image[0], image[-1], image[:, 0], image[:, -1]):
            assert side.max() > 0
        assert image.max() > 0.9
    distance = ((other.images[:, None] - bank.images[None]) ** 2).sum(axis=(2, 3))
    nearest = bank.labels[distance.argmin(axis=1)]
    assert (nearest == other.labels).mean() > 0.97


def write_idx(path: Path, array: np.ndarray) -> None:
    raw = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Twelve training and four test images: image i has a filled block of 20 x 20 with intensity 100 + i."""
    for part, count, end in (("train", 12, ".gz"), ("t10k", 4, "")):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 4:24, 4:24] = 100 + np.arange(count)[:, None, None] + (50 if part == "t10k" else 0)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{end}", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{end}", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def test_mnist_files_are_read_cropped_and_split(mnist: Path) -> None:
    banks = {split: mnist_glyphs(str(mnist), split, 10, 100, 0) for split in ("train", "val", "test")}
    for split, expected in (("train", range(10)), ("val", (10, 11)), ("test", range(50, 54))):
        tones = (banks[split].images.max(axis=(1, 2)) * 255).round().astype(int) - 100
        assert tones.tolist() == list(expected)
        assert (banks[split].images.min(axis=(1, 2)) > 0.39).all()  # the block fills the square
    assert banks["val"].labels.tolist() == [0, 1]


def test_digits_can_come_from_files_on_disk(mnist: Path) -> None:
    data = MovingDigits(**SMALL, mnist=str(mnist))
    data.setup("test")
    tones = {round(item["video"].max().item() * 255) for item in data.test_dataset.__getitems__(range(200))}
    assert tones == {150, 151, 152, 153}


def test_handwritten_set_on_disk(shared_data: Path) -> None:
    folder = str(shared_data / "images" / "FashionMNIST")
    bank = mnist_glyphs(folder, "val", 20, 300, 0)
    assert bank.images.shape == (300, 20, 20)
    assert np.bincount(bank.labels, minlength=10).min() > 10


def test_missing_or_broken_mnist_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train-images-idx3-ubyte"):
        MovingDigits(mnist=str(tmp_path)).setup("fit")
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        MovingDigits(mnist=str(tmp_path)).setup("test")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"context_frames": 1}, "context_frames"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": -1}, "workers"),
        ({"test_clips": 0}, "test_clips"),
        ({"digit_size": 40}, "digit_size"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word) as error:
        MovingDigits(**settings)
    assert "\n" not in str(error.value)


def test_describe_tells_sizes_seed_and_units() -> None:
    data = MovingDigits(**SMALL, seed=3)
    data.setup()
    described = data.describe()
    assert described["items"] == {"train": 200, "val": 50, "test": 400}
    assert described["seed"] == 3
    assert described["frame_shape"] == list(data.train_dataset[0]["video"].shape[1:])
    assert described["speed_unit"] == "pixels per frame"


def test_uncertain_share_selects_by_the_context_alone() -> None:
    """More training clips end at a wall, and what follows a wall keeps its distribution."""
    data = MovingDigits(train_uncertain_share=0.75, train_clips=3000)
    data.setup("fit")
    items = data.train_dataset.__getitems__(range(3000))
    uncertain = [item for item in items if item["uncertain"]]
    natural = np.mean([bool(item["uncertain"]) for item in data.val_dataset.__getitems__(range(512))])
    assert len(uncertain) / 3000 == pytest.approx(0.75 + 0.25 * natural, abs=0.03)
    # Velocities away from the left wall, not in a corner: 15 equally likely ones.
    at_left = [i for i in uncertain if i["position"][3, 0, 1] == 0 and 0 < i["position"][3, 0, 0] < 18]
    seen = np.array([tuple(i["velocity"][3, 0].tolist()) for i in at_left])
    values, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(values) == 15
    expected = len(at_left) / 15
    assert ((counts - expected) ** 2 / expected).sum() < 36.1  # chi-square, 14 degrees of freedom: p = 0.001
