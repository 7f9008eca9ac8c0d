"""The sets of video that torchvision knows, laid out on disk as torchvision lays them out.

torchvision 0.29 decodes video with torchcodec alone, and decodes a whole set to count its frames before it
gives the first one. So only its layouts and lists of splits are kept here; PyAV decodes.
"""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_ebm.data import fingerprints
from ssl_ebm.data.clips import FILES, ArrayClip, Clip, find_clips
from ssl_ebm.data.listings import Listing
from ssl_ebm.data.video import VideoData
from ssl_ebm.errors import UserError


class TorchvisionVideo(VideoData):
    """MovingMNIST, UCF101, HMDB51 or Kinetics, read from disk; nothing is downloaded.

    What must be there:
        MovingMNIST: root/MovingMNIST/mnist_test_seq.npy, uint8 (20, N, 64, 64). Its N clips are shared out
            at random (torchvision's own splits cut every clip in two).
        UCF101: root/CLASS/*.avi and annotations/{train,test}list0F.txt, F the fold. Validation clips are
            taken from the training list; clips cut from one recording (v_CLASS_gNN_cNN) stay together.
        HMDB51: root/CLASS/*.avi and annotations/CLASS_test_splitF.txt. Validation clips are taken from the
            training list; clips cut from one video (SOURCE_CLASS_..._N.avi), of any class, stay together.
        Kinetics: root/{train,val,test}/CLASS/*.{avi,mp4}; a missing val or test is taken from train.

    Args:
        name: the set.
        root: folder of the set.
        annotations: folder with the lists of splits, for UCF101 and HMDB51.
        fold: which of their three official splits.
        **settings: those of VideoData. MovingMNIST has no frame rate and is best read with grayscale.
    """

    def __init__(
        self,
        name: Literal["MovingMNIST", "UCF101", "HMDB51", "Kinetics"],
        root: str,
        annotations: str | None = None,
        fold: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if name not in ("MovingMNIST", "UCF101", "HMDB51", "Kinetics"):
            raise UserError(f"name is {name!r}: use MovingMNIST, UCF101, HMDB51 or Kinetics")
        if fold not in (1, 2, 3):
            raise UserError(f"fold is {fold}: {name} has the folds 1, 2 and 3")
        if name in ("UCF101", "HMDB51") and annotations is None:
            raise UserError(f"{name} needs the folder of its official lists of splits: set annotations")
        self.name = name
        self.root = Path(root)
        self.annotations = Path(annotations or root)
        self.fold = fold

    @property
    def source(self) -> str:
        return f"{self.name} in {self.root}"

    def find(self) -> list[Listing]:
        if self.name == "MovingMNIST":
            video = self._moving_mnist()
            found = [Listing(self._file, f"clip {n}", f"clip {n}", row=n) for n in range(video.shape[1])]
        elif self.name == "Kinetics":
            found = find_clips(self.root)
            for listing in found:
                if listing.split is None or listing.label is None:
                    raise UserError(
                        f"{listing.path} is not in {self.root}/{{train,val,test}}/CLASS/: move it there"
                    )
        else:
            tags = self._ucf101() if self.name == "UCF101" else self._hmdb51()
            found = []
            for listing in find_clips(self.root):
                file = PurePosixPath(listing.name)
                split = tags.get(file.name)
                if split is not None:
                    label = file.parts[0]
                    group = self._recording(file.stem, label)
                    found.append(replace(listing, split=split, group=group, label=label))
            if not found:
                raise UserError(
                    f"no clip in {self.root} is named by the lists in {self.annotations}: check both"
                )
        return found

    def fingerprint(self) -> fingerprints.Fingerprint:
        if self.name == "MovingMNIST":
            return fingerprints.of_paths([self._file])
        lists = [path for pattern in self._lists() for path in sorted(self.annotations.glob(pattern))]
        return fingerprints.of_folder(self.root, FILES, lists)

    def open(self, listing: Listing) -> Clip:
        if self.name != "MovingMNIST":
            return super().open(listing)
        pixels = self._moving_mnist()[:, listing.row]
        plain = self.form.grayscale and self.form.size == pixels.shape[1:]
        return ArrayClip(listing.name, pixels[..., None] if plain else pixels, None if plain else self.form)

    @property
    def _file(self) -> Path:
        return self.root / "MovingMNIST" / "mnist_test_seq.npy"

    def _moving_mnist(self) -> NDArray[np.uint8]:
        """(T, N, H, W), mapped into memory."""
        try:
            video = np.load(self._file, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{self._file} cannot be read: put mnist_test_seq.npy there "
                "(http://www.cs.toronto.edu/~nitish/unsupervised_video/)"
            ) from error
        if video.ndim != 4 or video.dtype != np.uint8:
            raise UserError(
                f"{self._file} is not an array of uint8 (frames, clips, height, width): copy it again"
            )
        return video

    def _lists(self) -> list[str]:
        """Patterns of the files that say the splits."""
        if self.name == "Kinetics":
            return []
        if self.name == "HMDB51":
            return [f"*_test_split{self.fold}.txt"]
        return [f"{split}list{self.fold:02d}.txt" for split in ("train", "test")]

    def _ucf101(self) -> dict[str, str]:
        """Split of each file: trainlist01.txt has lines CLASS/NAME NUMBER, testlist01.txt CLASS/NAME."""
        return {
            line.split()[0].rpartition("/")[2]: split
            for split, pattern in zip(("train", "test"), self._lists(), strict=True)
            for line in self._lines(pattern)
        }

    def _recording(self, name: str, label: str) -> str:
        """What a clip of UCF101 or HMDB51 was cut from, by its file's name."""
        if self.name == "UCF101":
            return re.sub(r"_c\d+$", "", name)
        return name.rpartition(f"_{label}_")[0] or re.sub(r"_\d+$", "", name)

    def _hmdb51(self) -> dict[str, str]:
        """Split of each file, by CLASS_test_split1.txt (lines NAME and 1: train, 2: test, 0: neither)."""
        pairs = [line.split() for line in self._lines(*self._lists())]
        if short := [pair[0] for pair in pairs if len(pair) < 2]:
            raise UserError(
                f"the lists in {self.annotations} have no number after {short[0]}: copy the official ones"
            )
        return {pair[0]: {"1": "train", "2": "test"}[pair[1]] for pair in pairs if pair[1] in ("1", "2")}

    def _lines(self, pattern: str) -> list[str]:
        paths = sorted(self.annotations.glob(pattern))
        if not paths:
            raise UserError(
                f"no {pattern} in {self.annotations}: put the official lists of splits of {self.name} there"
            )
        return [line for path in paths for line in path.read_text().splitlines() if line.strip()]

    def settings(self) -> dict[str, Any]:
        return {"set": self.name, "fold": self.fold, **super().settings()}
