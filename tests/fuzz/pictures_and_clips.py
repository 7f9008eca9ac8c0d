"""Damaged pictures and clips."""

from __future__ import annotations

import gzip
import random
import shutil

import numpy as np
from fuzz.mutations import damaged
from fuzz.outcomes import (
    Place,
    WrongError,
    check_frames,
    check_not_black,
    check_written,
    checkpoint_of,
    run,
)

from ssl_ebm.data import IdxImages, ImageFolder, VideoFolder, load_clip
from ssl_ebm.data.picture_files import BrokenPictureError, decode
from ssl_ebm.errors import UserError


def picture(place: Place, rng: random.Random) -> None:
    """A picture that was cut off is refused, or is whole; no other is black."""
    source = rng.choice(sorted(path for path in (place.bases / "pictures").iterdir() if path.is_file()))
    path = place.here / source.name
    content, cut = damaged(source.read_bytes(), rng)
    path.write_bytes(content)
    grayscale = rng.random() < 0.3
    try:
        found = np.asarray(decode(path, path.name, grayscale))
    except BrokenPictureError as broken:
        raise UserError(str(broken)) from broken
    truth = np.asarray(decode(source, source.name, grayscale))
    if cut and not np.array_equal(found, truth):
        raise WrongError(f"cut off at {len(content)}, and read as another picture")
    if source.suffix == ".png" and not np.array_equal(found, truth):
        raise WrongError("another picture, in spite of its checksums")
    if not found.any():
        raise WrongError("all of it is 0, without an error")


def picture_folder(place: Place, rng: random.Random) -> None:
    """A damaged picture among others is named and left out."""
    folder = place.here / "pictures"
    folder.mkdir()
    source = place.bases / "pictures" / "colour.png"
    for number in range(8):
        shutil.copy(source, folder / f"{number}.png")
    (folder / "4.png").write_bytes(damaged(source.read_bytes(), rng)[0])
    on_demand = rng.random() < 0.5
    data = ImageFolder(str(folder), size=16, in_memory=not on_demand, on_broken=rng.choice(("skip", "stop")))
    for split in ("train", "val", "test"):
        data.setup()
        dataset = getattr(data, f"{split}_dataset")
        for index in range(len(dataset)):
            check_not_black(dataset[index]["image"])


def idx_file(place: Place, rng: random.Random) -> None:
    """What is read of files of MNIST's format is what stands there; of gzipped ones, what was written."""
    shutil.copytree(place.bases / "pictures" / "idx", place.here / "idx")
    written = {path: gzip.decompress(path.read_bytes()) for path in (place.here / "idx" / "raw").iterdir()}
    path = rng.choice(sorted(written))
    if rng.random() < 0.5:
        path.write_bytes(damaged(path.read_bytes(), rng)[0])
    else:
        content = damaged(written.pop(path), rng)[0]
        path.unlink()
        path = path.with_suffix("")
        path.write_bytes(content)
        written[path] = content
    data = IdxImages(str(place.here / "idx"))
    data.setup()
    check_idx_items(data, {one.name.removesuffix(".gz"): content for one, content in written.items()})


def check_idx_items(data: IdxImages, written: dict[str, bytes]) -> None:
    """Compares all items with the bytes of the files, whose headers are magic number, sizes, 4 bytes each."""
    for part, splits in (("train", ("train", "val")), ("t10k", ("test",))):
        pixels, labels = (written[f"{part}-{one}-ubyte"] for one in ("images-idx3", "labels-idx1"))
        count, height, width = (int.from_bytes(pixels[at : at + 4], "big") for at in (4, 8, 12))
        items = [
            dataset[index]
            for dataset in (getattr(data, f"{split}_dataset") for split in splits)
            for index in range(len(dataset))
        ]
        if len(items) != count:
            raise WrongError(f"{len(items)} items of {count} in {part}")
        for number, item in enumerate(items):
            image = (255 * item["image"]).round().byte().numpy().tobytes()
            if image != pixels[16 + number * height * width :][: height * width]:
                raise WrongError(f"image {number} of {part} is another one than in the file")
            if int(item["label"]) != labels[8 + number]:
                raise WrongError(f"label {number} of {part} is another one than in the file")


def hole(place: Place, rng: random.Random) -> None:
    """`inpaint` of a damaged picture, or with a damaged mask."""
    source = place.bases / "pictures" / "hole.png"
    path = place.here / "hole.png"
    path.write_bytes(damaged(source.read_bytes(), rng)[0])
    inputs = rng.choice((["--input", str(path)], ["--input", str(source), "--mask", str(path)]))
    run(
        "inpaint",
        "--ckpt",
        str(checkpoint_of(place, "pictures")),
        *inputs,
        "--out",
        str(place.here / "out.png"),
    )
    check_written(place.here / "out.png")


def clip(place: Place, rng: random.Random) -> None:
    """No frame of a damaged clip is black."""
    source = rng.choice(sorted((place.bases / "clips").glob("clip.*")))
    path = place.here / source.name
    path.write_bytes(damaged(source.read_bytes(), rng)[0])
    rate = rng.choice((None, 5.0, 30.0))
    found = load_clip(path, rng.choice((None, 16)), rate, frames=rng.choice((None, 4)))
    check_frames(found)


def clip_folder(place: Place, rng: random.Random) -> None:
    """A damaged clip, or file of arrays, among others."""
    folder = place.here / "clips"
    folder.mkdir()
    sources = sorted(path for path in (place.bases / "clips").iterdir())
    for source in sources[:3]:
        shutil.copy(source, folder)
    source = rng.choice(sources)
    (folder / f"broken{source.suffix}").write_bytes(damaged(source.read_bytes(), rng)[0])
    data = VideoFolder(str(folder), size=16, cache=rng.random() < 0.5, on_broken=rng.choice(("skip", "stop")))
    data.setup()
    for split in ("train", "val", "test"):
        dataset = getattr(data, f"{split}_dataset")
        for index in range(min(len(dataset), 6)):
            check_frames(dataset[index]["video"])


def futures(place: Place, rng: random.Random) -> None:
    """`sample` of a damaged clip."""
    source = rng.choice(sorted((place.bases / "clips").glob("clip.*")))
    path = place.here / source.name
    path.write_bytes(damaged(source.read_bytes(), rng)[0])
    more = ["--samples", "2", "--horizon", "2", "--out", str(place.here / "out.gif")]
    run("sample", "--ckpt", str(checkpoint_of(place, "frames")), "--input", str(path), *more)
    check_written(place.here / "out.gif")
