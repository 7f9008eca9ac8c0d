"""Files of single pictures: decoded, brought to one size, and read on demand where memory is too small.

What a picture looks like does not depend on its format: it is turned upright (EXIF), 16 bits become 8,
palettes become colours, and what is transparent shows a white ground.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ssl_ebm.data.augmentation import Augmentation
from ssl_ebm.data.broken_files import BrokenFiles
from ssl_ebm.data.file_lists import Files, Name
from ssl_ebm.data.shards.folder import StoredGroups, StoredLabels
from ssl_ebm.data.shards.stored import StoredFile
from ssl_ebm.errors import UserError, in_one_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ORIENTATION = 0x0112  # of EXIF
TURNS = {  # that bring a picture of each orientation upright; 1 is
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenPictureError(Exception):
    """A file that cannot be read as a picture; the message says which and why, in one line."""


def stop_at(broken: object, source: str) -> UserError:
    """What is raised for a broken file, given its `BrokenPictureError` or the message, where none may be."""
    return UserError(f"{broken} in {source}: remove the file, or copy it again")


def decode(path: Path | StoredFile | BinaryIO, name: str | Name, grayscale: bool) -> Image.Image:
    """The picture as it is meant to be seen, in mode "L" or "RGB"; of an animation, its first frame.

    Raises:
        BrokenPictureError: the file cannot be read, is cut off, or holds numbers whose range is unknown.
    """
    if isinstance(path, StoredFile):
        path = io.BytesIO(path.read_bytes())
    try:
        with _opened(path) as file:
            return _on_white(_eight_bits(upright(file))).convert("L" if grayscale else "RGB")
    except UnidentifiedImageError as error:
        raise BrokenPictureError(f"{name} cannot be read (it is no picture)") from error
    except MemoryError:
        raise
    except Exception as error:  # of another type for each way in which a file can be wrong
        raise BrokenPictureError(f"{name} cannot be read ({in_one_line(error)})") from error


def _opened(path: Path | BinaryIO) -> Image.Image:
    """A picture that is not decoded yet. The checksums of a PNG file have been looked at, which Pillow does
    not do as it decodes: a changed bit would be another picture.

    Raises:
        SyntaxError, and others: the file is not what was written.
    """
    file = Image.open(path)
    if file.format != "PNG":
        return file
    with file:
        file.verify()  # after which nothing can be read of this object
    return Image.open(path)


def upright(file: Image.Image) -> Image.Image:
    """Turned as its EXIF data says. Where these are damaged it stays as it is: its pixels may be whole."""
    try:
        orientation = file.getexif().get(ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # as in `decode`
        return file
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return file if turn is None else file.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16 bits a pixel scaled to 8; Pillow alone would cut them off at 255.

    Raises:
        ValueError: a picture of numbers whose range is unknown.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.float32) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are numbers of mode {image.mode}, whose range is unknown")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """Transparent pixels blended with white, as a page shows them; their hidden colour is often black."""
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)


def fit(picture: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resized to cover (H, W), keeping the aspect ratio, and the centre cut out: (C, H, W)."""
    fitted = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BILINEAR)
    return _channels_first(fitted)


def resized_crop(picture: Image.Image, box: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The box (top, left, height, width), resized to (H, W) with antialiasing: (C, H, W)."""
    top, left, height, width = box
    cut = picture.crop((left, top, left + width, top + height))
    return _channels_first(cut.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _channels_first(picture: Image.Image) -> NDArray[np.uint8]:
    return np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """The pictures of a split as files, decoded when they are asked for.

    A picture that cannot be read is replaced by the next one of the split that can, so a batch is still a
    function of the seed, its step and the files. That picture's own index and label come with it.

    Attributes:
        files: of the split.
        labels: (N,) int64, in memory or in shards, or None.
        size: (H, W) in pixels.
        grayscale: one channel instead of three.
        on_broken: "skip" and replace a broken file, with a warning for each file, or "stop".
        max_broken: largest share of the files, in (0, 1], that may be broken.
        groups: (N,) a number that the pictures of one group share, or None.
        found: which of them were found broken so far, by this process and by its workers.
    """

    files: Files
    labels: NDArray[np.int64] | StoredLabels | None
    size: tuple[int, int]
    grayscale: bool
    on_broken: Literal["skip", "stop"]
    max_broken: float = 1.0
    groups: NDArray[np.int64] | StoredGroups | None = None
    found: BrokenFiles = field(init=False)

    def __post_init__(self) -> None:
        found = BrokenFiles(len(self), self.files.name, self.max_broken, self.files.source)
        object.__setattr__(self, "found", found)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        return 1 if self.grayscale else 3, *self.size

    @property
    def broken(self) -> list[str]:
        """Names of the files that were found broken so far."""
        return self.found.names

    def name(self, index: int) -> str:
        """How messages call a file."""
        return self.files.name(index)

    def load(
        self, index: NDArray[np.int64], place: NDArray[np.int64], augmentation: Augmentation | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pictures (B, C, H, W), with `augmentation` cropped from their full resolution as drawn for their
        places (B,) in the stream, and the indices of those that were read (B,).

        Raises:
            UserError: a file is broken and on_broken is "stop", or more than max_broken allows, or all are.
        """
        images = np.empty((len(index), *self.shape), np.uint8)
        read = np.empty(len(index), np.int64)
        for i, wanted in enumerate(index):
            picture, read[i] = self._readable(int(wanted))
            if augmentation is None or augmentation.crop == 1:
                images[i] = fit(picture, self.size)
            else:
                aspect = self.size[1] / self.size[0]
                box = augmentation.boxes(place[i : i + 1], picture.height, picture.width, aspect)[0]
                images[i] = resized_crop(picture, box.tolist(), self.size)
        return images, read

    def _readable(self, wanted: int) -> tuple[Image.Image, int]:
        """The picture, or the next one that can be read, and which it is."""
        for index in chain(range(wanted, len(self)), range(wanted)):
            try:
                return decode(self.files.path(index), Name(self.files, index), self.grayscale), index
            except BrokenPictureError as broken:
                if self.on_broken == "stop":
                    raise stop_at(broken, self.files.source) from broken
                said = f"{self.files.source}: {broken}; the next picture takes its place"
                self.found.add(index, said)
        raise UserError(
            f"none of the {len(self)} pictures in {self.files.source} can be read: copy them again"
        )
