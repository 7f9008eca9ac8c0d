"""What items are called: the files whose content they hold."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_ebm.data import FontDigits, ImageFolder, LabelledShare, VideoFolder
from ssl_ebm.data.loading import StreamData


def pictures(folder: Path, count: int = 40) -> Path:
    """Grey ones; n.png is as light as n says, and two of them are broken."""
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (3 * number,) * 3).save(path)
    for number in (5, 22):
        (folder / "ab"[number % 2] / f"{number}.png").write_bytes(b"broken")
    return folder


def clips(folder: Path, count: int = 12) -> Path:
    """Frame t of n.npz is as light as 10 n + t."""
    folder.mkdir(parents=True)
    for number in range(count):
        frames = np.arange(9, dtype=np.uint8) + 10 * number
        np.savez(folder / f"{number}.npz", video=np.tile(frames[None, :, None, None], (1, 1, 8, 8)))
    return folder


def shown(batch: dict[str, Any]) -> list[str]:
    """What the content of a batch says."""
    if "image" in batch:
        return [str(round(255 * one / 3)) for one in batch["image"].mean((1, 2, 3)).tolist()]
    tones = [round(255 * one) for one in batch["video"][:, 0].mean((1, 2, 3)).tolist()]
    return [f"{tone // 10}, frame {tone % 10}" for tone in tones]


def said(names: list[str] | None) -> list[str]:
    assert names is not None
    return [Path(name.replace(".npz[0]", "").replace(".npz", "")).name.removesuffix(".png") for name in names]


def sets(folder: Path, kind: str) -> StreamData:
    small = {"batch_size": 3, "seed": 1}
    if kind.startswith("pictures"):
        held = {"in_memory": "memory" in kind}
        data: StreamData = ImageFolder(str(pictures(folder)), size=8, **held, **small)
    else:
        data = VideoFolder(str(clips(folder / "clips")), size=8, context_frames=2, future_frames=1, **small)
    return LabelledShare(data, 0.5) if kind.endswith("share") else data


@pytest.mark.parametrize(
    "kind", ["pictures in memory", "pictures on disk", "pictures in memory, a share", "clips"]
)
@pytest.mark.filterwarnings("ignore:.*cannot be read")
def test_items_are_named_by_the_files_that_they_hold(tmp_path: Path, kind: str) -> None:
    """In the second epoch, too, whose items have indices of their own."""
    data = sets(tmp_path, kind)
    data.setup()
    for batch in data.test_dataloader():
        assert said(data.names_in_batch("test", batch)) == shown(batch)
    loader = data.train_dataloader()
    batches = [batch for _ in range(3) for batch in loader]
    assert len(batches) > len(loader)
    for number, batch in enumerate(islice(batches, 2 * len(loader))):
        assert said(data.names_in_batch("train", batch)) == shown(batch)
        if kind != "pictures on disk":  # where other pictures are shown in place of broken ones
            assert said(data.names_of_items(data.items_of_batch(number))) == shown(batch)


def test_items_of_no_files_have_no_names() -> None:
    data = FontDigits(size=12, train_images=20, val_images=10, test_images=10, batch_size=5)
    data.setup()
    assert data.names_of_items([0, 1]) is None
    assert data.names_in_batch("test", next(iter(data.test_dataloader()))) is None
