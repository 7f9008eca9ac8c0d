"""Shares of labels: stratified, nested, seeded; clips whole; what is too few is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import write_idx_folder
from lightning.pytorch.utilities.model_helpers import is_overridden
from PIL import Image
from small_backbones import PATCHES
from torch.utils.data import DataLoader, Dataset
from two_futures import trainer

from ssl_ebm.data import (
    FontDigits,
    IdxImages,
    ImageFolder,
    LabelledShare,
    MovingDigits,
    StreamData,
    VideoFolder,
)
from ssl_ebm.data.labelled_share import choose_labels, labels_of
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import FineTuning

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, -1], [200, 1000, 60, 40]))
NAMES = ["a", "b", "c"]


def test_a_share_is_that_of_every_class() -> None:
    kept = choose_labels(LABELS, NAMES, 0.1, None, 0)
    assert np.bincount(LABELS[kept]).tolist() == [20, 100, 6]
    assert (np.diff(kept) > 0).all()
    everything = choose_labels(LABELS, NAMES, 1.0, None, 0)
    assert everything.tolist() == np.flatnonzero(LABELS >= 0).tolist()
    assert np.bincount(LABELS[choose_labels(LABELS, NAMES, 1.0, 7, 0)]).tolist() == [7, 7, 7]


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 5))
def test_a_smaller_share_is_inside_of_a_larger(a: float, b: float, seed: int) -> None:
    small, large = (set(choose_labels(LABELS, NAMES, share, None, seed)) for share in sorted((a, b)))
    assert small <= large


def test_another_seed_has_other_labels() -> None:
    first, again, other = (choose_labels(LABELS, NAMES, 0.1, None, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    common = len(set(first) & set(other)) / len(first)
    assert common < 0.25  # 0.1 by chance


def test_too_few_labels_are_named() -> None:
    with pytest.raises(UserError, match=r"0\.005 of the 60 training labels of class 'c' is none"):
        choose_labels(LABELS, NAMES, 0.005, None, 0)
    with pytest.raises(UserError, match="'c' has 60 training labels, too few for 61"):
        choose_labels(LABELS, NAMES, 1.0, 61, 0)
    with pytest.raises(UserError, match="no training item is of class 'd'"):
        choose_labels(LABELS, [*NAMES, "d"], 1.0, None, 0)


def test_items_are_the_same_in_every_epoch() -> None:
    data = LabelledShare(FontDigits(size=12, train_images=300, batch_size=8), 0.1)
    data.setup("fit")
    assert data.counts == {str(digit): 3 for digit in range(10)}
    loader = data.train_dataloader()
    seen = [batch["index"] for _ in range(3) for batch in loader]
    assert set(torch.cat(seen).tolist()) == set(data.train_dataset.places.tolist())
    assert len(data.val_dataset) == 1000
    assert data.describe()["items"]["train"] == 30
    assert data.describe()["data"]["name"] == "FontDigits"


def test_crops_differ_between_epochs() -> None:
    data = LabelledShare(FontDigits(size=12, train_images=300, crop=0.3), 0.1)
    data.setup("fit")
    first, later, again = (data.train_dataset[index] for index in (4, 34, 4))
    assert first["index"] == later["index"]
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], later["image"])


def test_plain_items_are_the_same_ones_without_augmentation() -> None:
    augmented = LabelledShare(FontDigits(size=12, train_images=300, crop=0.3, flip=True), 0.1)
    bare = LabelledShare(FontDigits(size=12, train_images=300), 0.1)
    for data in (augmented, bare):
        data.setup("fit")
    plain = augmented.train_dataset.plain()
    assert len(plain) == len(bare.train_dataset)
    for index in (4, 34):
        found, wanted = plain[index], bare.train_dataset[index]
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    endless = LabelledShare(MovingDigits(size=16, digit_size=8, train_clips=100), per_class=2)
    endless.setup("fit")
    assert torch.equal(endless.train_dataset.plain()[23]["video"], endless.train_dataset[3]["video"])


def test_worlds_that_never_end_keep_their_first_items() -> None:
    data = LabelledShare(MovingDigits(size=16, digit_size=8, train_clips=100), per_class=2)
    data.setup("fit")
    chosen = data.train_dataset
    assert len(chosen) == 20
    assert torch.equal(chosen[3]["video"], chosen[23]["video"])
    assert labels_of(data.data.train_dataset)[0].tolist() == [
        int(data.data.train_dataset[i]["label"]) for i in range(100)
    ]


def test_clips_are_chosen_whole(tmp_path: Path) -> None:
    for name in ("walk", "run", "jump"):
        for split, count in (("train", 10), ("val", 2), ("test", 2)):
            for number in range(count):
                folder = tmp_path / split / name
                folder.mkdir(parents=True, exist_ok=True)
                frames = np.full((6 + number, 8, 8, 3), 10 * number, np.uint8)
                np.savez(folder / f"{number}.npz", video=frames[None])
    data = LabelledShare(VideoFolder(str(tmp_path), size=8, context_frames=2, batch_size=4), 0.3)
    data.setup("fit")
    items = [data.train_dataset[index] for index in range(len(data.train_dataset))]
    clips = {int(item["clip"]) for item in items}
    assert len(clips) == 9
    assert sum(data.counts.values()) == 9
    windows = data.data.train_dataset.items_of_clips()
    assert len(items) == int(windows[sorted(clips)].sum())
    assert int(windows.max()) > 1


def test_pictures_without_classes_or_of_one_class_are_named(tmp_path: Path) -> None:
    for name in ("plain", "one/cats"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    with pytest.raises(UserError, match="ImageFolder has no labels"):
        LabelledShare(ImageFolder(str(tmp_path / "plain"), size=8)).setup("fit")
    with pytest.raises(UserError, match="all labels are 'cats'"):
        LabelledShare(ImageFolder(str(tmp_path / "one"), size=8)).setup("fit")


def test_the_picture_that_takes_all_labels_away_is_named(tmp_path: Path) -> None:
    for name in ("cover", *(f"{name}/{number}" for name in ("cats", "dogs") for number in range(6))):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (16, 16)).save(path)
    said = r"cover\.png lies in no folder of a class, and so no file has one: move it into one, or away"
    data = ImageFolder(str(tmp_path), size=16, grayscale=True, batch_size=2)
    backbone = {"class_path": "ssl_ebm.tasks.Inpainting", "init_args": {"network": PATCHES, "codes": 5}}
    with pytest.raises(UserError, match=f"ImageFolder has no labels: {said}"):
        LabelledShare(data).setup("fit")
    with pytest.raises(UserError, match=f"the data has no classes: {said}"):
        trainer(1).fit(FineTuning(backbone=backbone), datamodule=data)
    known = FineTuning(backbone=backbone, classes=["cats", "dogs"])
    with pytest.raises(UserError, match=f"the data has no labels: {said}"):
        trainer(1).fit(known, datamodule=data)
    (tmp_path / "images.csv").write_text("path,label\ncover.png,dogs\n")  # labels it as well
    share = LabelledShare(ImageFolder(str(tmp_path), size=8))
    assert share.data.without_class() is None


def test_fewer_items_than_classes_are_named(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 8), np.uint8)
    pixels[:, 0, 0] = [0, 0, 0, 0, 2, 1]  # labels: pixel modulo 3; class 1 is in no training item
    write_idx_folder(tmp_path, {"train": pixels, "t10k": pixels})
    with pytest.raises(UserError, match="class '1'"):
        LabelledShare(IdxImages(str(tmp_path))).setup("fit")


def test_settings_out_of_range_are_named() -> None:
    for settings, said in (
        ({"share": 0.0}, "share of labels is 0"),
        ({"share": 1.5}, "at most 1"),
        ({"share": 0.5, "per_class": 3}, "one of the two"),
        ({"per_class": 0}, "at least 1"),
    ):
        with pytest.raises(UserError, match=said):
            LabelledShare(FontDigits(), **settings)  # type: ignore[arg-type]


def test_items_without_a_label_are_left_out_of_evaluation() -> None:
    inner = FontDigits(size=12, train_images=100, val_images=30, test_images=30)
    inner.setup()
    inner.val_dataset.images.labels[:10] = -1
    inner.test_dataset.images.labels[:] = -1  # nothing is known: still there to be predicted
    inner.train_dataset.images.labels[:50] = -1
    data = LabelledShare(inner)
    data.setup()
    assert len(data.train_dataset) == 50
    assert len(data.val_dataset) == 20
    assert len(data.test_dataset) == 30
    labels = [batch["label"] for batch in DataLoader(data.val_dataset, batch_size=7)]
    assert int(torch.cat(labels).min()) >= 0


class _Halved(FontDigits):
    """Pictures that are darkened on their way to the device."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, "image": batch["image"] / 2}


def test_the_hooks_of_the_inner_data_are_passed_on() -> None:
    """Those that there are: Lightning takes the task's for those that there are not."""
    share = LabelledShare(_Halved(size=12))
    hooks = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
    assert [is_overridden(hook, share) for hook in hooks] == [True, False, True]
    batch = {"image": torch.ones(2, 1, 12, 12)}
    assert torch.equal(share.on_before_batch_transfer(batch, 0)["image"], batch["image"] / 2)


class _Endless(Dataset[dict[str, torch.Tensor]]):
    """100 new items in each epoch, of two classes."""

    fresh_items = True

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        label = int(np.random.default_rng(index).integers(2))
        return {"image": torch.zeros(1, 4, 4), "label": torch.tensor(label), "index": torch.tensor(index)}


class _Own(StreamData):
    classes = ("a", "b")

    def make_dataset(self, split: str) -> _Endless:
        return _Endless()

    def settings(self) -> dict[str, Any]:
        return {}


def test_fresh_items_of_ones_own_have_no_labels_beyond_the_share() -> None:
    share = LabelledShare(_Own(5, 0, 0), 0.1)
    share.setup("fit")
    loader = share.train_dataloader()
    seen = {index for _ in range(5) for batch in loader for index in batch["index"].tolist()}
    assert len(seen) == sum(share.counts.values()) == 10
    assert seen == set(share.train_dataset.places.tolist())
