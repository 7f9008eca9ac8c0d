"""Images: the file formats, the splits, what is broken, and batches that depend on the seed alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import write_idx, write_idx_folder
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image, ImageOps

from ssl_ebm.data import IdxImages, ImageFolder
from ssl_ebm.data.picture_files import decode
from ssl_ebm.errors import UserError


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """12 training and 4 test images, 5 x 7; the first pixel tells the image, its label is that modulo 3."""
    images = {}
    for part, first, count in (("train", 0, 12), ("t10k", 100, 4)):
        images[part] = np.zeros((count, 5, 7), np.uint8)
        images[part][:, 0, 0] = first + np.arange(count)
    write_idx_folder(tmp_path, images)
    return tmp_path


def names(dataset: object) -> list[int]:
    """The number in the first pixel of each image."""
    return [round(255 * float(dataset[i]["image"][0, 0, 0])) for i in range(len(dataset))]  # type: ignore


def test_idx_files_make_three_splits(idx_folder: Path) -> None:
    data = IdxImages(str(idx_folder))
    data.setup()
    assert names(data.train_dataset) == list(range(10))
    assert names(data.val_dataset) == [10, 11]
    assert names(data.test_dataset) == [100, 101, 102, 103]
    item = data.train_dataset[4]
    assert item["image"].shape == (1, 5, 7)
    assert item["image"].dtype == torch.float32
    assert (int(item["label"]), int(item["index"])) == (1, 4)
    assert data.describe()["items"] == {"train": 10, "val": 2, "test": 4}


def test_images_and_labels_must_belong_together(idx_folder: Path) -> None:
    write_idx(idx_folder / "raw" / "train-labels-idx1-ubyte.gz", np.zeros(3, np.uint8))
    with pytest.raises(UserError, match="do not belong together"):
        IdxImages(str(idx_folder)).setup("fit")
    with pytest.raises(UserError, match="no file train-images"):
        IdxImages(str(idx_folder / "nowhere")).setup("fit")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_seed_whatever_the_workers(idx_folder: Path, workers: int) -> None:
    found, expected = (
        list(IdxImages(str(idx_folder), flip=True, batch_size=4, workers=w).train_dataloader())
        for w in (workers, 0)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["index"], theirs["index"])


def test_half_of_the_training_images_are_mirrored_anew_in_each_epoch(idx_folder: Path) -> None:
    data = IdxImages(str(idx_folder), flip=True)
    data.setup()
    index = list(range(1, 10)) * 100
    place = [i + 10 * epoch for epoch, i in enumerate(index)]
    items = data.train_dataset.__getitems__(place)
    mirrored = [bool(item["image"][0, 0, 0] == 0) for item in items]
    assert [int(item["index"]) for item in items] == index
    assert np.mean(mirrored) == pytest.approx(0.5, abs=4 * 0.5 / 30)
    one = next(item for item, turned in zip(items, mirrored, strict=True) if turned)
    assert round(255 * float(one["image"][0, 0, -1])) == int(one["index"])
    assert names(data.val_dataset) == [10, 11]


def test_a_folder_has_classes_and_splits_and_pictures_of_all_kinds(tmp_path: Path) -> None:
    """Every kind of file shows the same: left half dark, right half light."""
    grey = np.zeros((8, 16), np.uint8)
    grey[:, 8:] = 200
    for split in ("train", "val", "test"):
        for kind in ("a", "b"):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.fromarray(grey).save(tmp_path / split / kind / "grey.png")
    folder = tmp_path / "train" / "b"
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(np.stack([grey] * 3 + [np.full_like(grey, 255)], 2)).save(folder / "alpha.png")
    turned = Image.fromarray(grey.T.copy())
    exif = turned.getexif()
    exif[0x0112] = 5  # mirrored along the diagonal: shown upright again
    turned.save(folder / "turned.png", exif=exif)
    data = ImageFolder(str(tmp_path), size=(4, 8))
    data.setup()
    assert data.classes == ["a", "b"]
    assert len(data.train_dataset) == 5
    for item in data.train_dataset.__getitems__(range(5)):
        assert item["image"].shape == (3, 4, 8)
        torch.testing.assert_close(item["image"][:, :, 0], torch.zeros(3, 4))
        torch.testing.assert_close(item["image"][:, :, -1], torch.full((3, 4), 200 / 255))
    assert [int(item["label"]) for item in data.train_dataset.__getitems__(range(5))] == [0, 1, 1, 1, 1]


def test_sixteen_bits_become_eight_and_numbers_without_a_range_are_refused(tmp_path: Path) -> None:
    values = np.tile(np.array([0, 257, 30 * 257, 65535], np.uint16), (4, 1))
    for i in range(30):
        Image.fromarray(values).save(tmp_path / f"{i}.png")
    for split in ("train", "val", "test"):
        Image.fromarray(values.astype(np.float32)).save(tmp_path / f"{split}-numbers.tif")
    data = ImageFolder(str(tmp_path), size=4, grayscale=True)
    with pytest.warns(UserWarning, match=r"numbers.tif cannot be read \(its pixels are numbers of mode F"):
        data.setup()
    image = data.train_dataset[0]["image"]
    assert (255 * image[0, 0]).round().tolist() == [0, 1, 30, 255]


def test_a_file_that_is_named_as_a_split_is_none(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "test"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    data = ImageFolder(str(tmp_path), size=4)
    data.setup()
    assert data.describe()["items"] == {"train": 2, "val": 1, "test": 1}


def test_broken_pictures_are_named_and_left_out_or_stop(tmp_path: Path) -> None:
    for i in range(8):
        Image.new("RGB", (4, 4), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    data = ImageFolder(str(tmp_path), size=4)
    with pytest.warns(UserWarning, match=r"skipped 1 image.*broken.png"):
        data.setup()
    assert sum(data.describe()["items"].values()) == 8
    assert len(data.describe()["broken"]) == 1
    with pytest.raises(UserError, match=r"broken.png cannot be read .*: remove the file"):
        ImageFolder(str(tmp_path), size=4, on_broken="stop").setup()


@pytest.mark.parametrize("in_memory", [True, False])
def test_odd_pictures_are_shown_as_a_page_shows_them(tmp_path: Path, in_memory: bool) -> None:
    """A single pixel, transparency in RGBA and in a palette: blended with white."""
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (1, 1), (51, 102, 204)).save(tmp_path / split / "a.png")
        Image.new("RGBA", (6, 4), (0, 0, 0, 51)).save(tmp_path / split / "b.png")
        palette = Image.new("P", (6, 4), 1)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        palette.save(tmp_path / split / "c.png", transparency=1)
    data = ImageFolder(str(tmp_path), size=(4, 6), in_memory=in_memory)
    data.setup()
    shown = [
        (255 * item["image"][:, 1, 2]).round().tolist() for item in data.test_dataset.__getitems__([0, 1, 2])
    ]
    assert shown == [[51, 102, 204], [204, 204, 204], [255, 255, 255]]


def test_a_truncated_jpeg_is_replaced_and_counted_when_it_is_read_on_demand(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for i in range(4):
            Image.fromarray(np.roll(noise, i)).save(tmp_path / split / f"{i}.jpg")
    whole = (tmp_path / "train" / "1.jpg").read_bytes()
    (tmp_path / "train" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    data = ImageFolder(str(tmp_path), size=8, in_memory=False)
    data.setup()
    with pytest.warns(UserWarning, match=r"1.jpg cannot be read .*the next picture takes its place"):
        items = data.train_dataset.__getitems__([0, 1, 2, 3])
    assert [int(item["index"]) for item in items] == [0, 2, 2, 3]
    assert len(data.broken) == len(data.describe()["broken"]) == 1
    stopping = ImageFolder(str(tmp_path), size=8, in_memory=False, on_broken="stop")
    stopping.setup()
    with pytest.raises(UserError, match=r"1\.jpg cannot be read"):
        stopping.train_dataset[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_read_on_demand_depend_on_the_seed_alone(tmp_path: Path, workers: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    for i in range(10):
        Image.fromarray(np.roll(noise, i)).save(tmp_path / f"{i}.png")

    def batches(workers: int) -> list[torch.Tensor]:
        data = ImageFolder(
            str(tmp_path), 8, in_memory=False, crop=0.3, flip=True, batch_size=3, workers=workers
        )
        return [batch["image"] for batch in data.train_dataloader()]

    for ours, theirs in zip(batches(workers), batches(0), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"size": 0}, "size is 0"), ({"val_fraction": 1.5}, "val_frac"), ({"on_broken": "no"}, "on_broken")],
)  # fmt: skip
def test_settings_out_of_range(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ImageFolder("anywhere", **settings)  # type: ignore[arg-type]


def test_a_folder_without_pictures_and_one_too_large_for_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no images in"):
        ImageFolder(str(tmp_path)).setup()
    for i in range(4):
        Image.new("L", (4, 4)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr("ssl_ebm.data.loading.MEMORY_SHARE", 1e-12)
    with pytest.raises(UserError, match=r"GiB of this machine.*lower size"):
        ImageFolder(str(tmp_path)).setup()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_data_leave_the_picture_as_it_is(tmp_path: Path, suffix: str) -> None:
    """A number where a text belongs, as cameras write it: Pillow reads the picture, and cannot write it."""
    red = Image.new("RGB", (8, 4), (200, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    whole = exif.tobytes()
    at = whole.index(b"\x01\x0f\x00\x02")  # the entry's tag and type, most significant byte first
    for kind in range(13):  # some are as good as the text
        damaged = whole[: at + 2] + bytes([0, kind, 0, 0, 0, 1]) + whole[at + 8 :]
        red.save(tmp_path / f"a.{suffix}", exif=damaged)
        shown = decode(tmp_path / f"a.{suffix}", "a", grayscale=False)
        assert shown.size in ((4, 8), (8, 4))
        assert np.abs(np.asarray(shown, int) - (200, 0, 0)).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(orientation: int) -> None:
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    shown = decode(file, "a", grayscale=True)
    with Image.open(file) as again:
        assert np.array_equal(np.asarray(shown), np.asarray(ImageOps.exif_transpose(again)))


def test_every_process_names_the_pictures_that_it_finds_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each meets others: a warning of the first one alone would leave most of them unsaid."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for number in range(3):
            Image.new("RGB", (4, 4)).save(tmp_path / split / f"{number}.png")
    (tmp_path / "train" / "1.png").write_bytes(b"no picture")
    data = ImageFolder(str(tmp_path), size=4, in_memory=False)
    data.setup()
    with pytest.warns(UserWarning, match=r"train/1\.png cannot be read .* the next picture takes its place"):
        data.train_dataset.__getitems__([0, 1, 2])


def test_a_link_whose_target_is_gone_is_a_broken_picture(tmp_path: Path) -> None:
    for i in range(8):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "elsewhere" / "lost.png")
    with pytest.warns(UserWarning, match=r"skipped 1 image.*lost\.png"):
        ImageFolder(str(tmp_path), size=4).setup()
