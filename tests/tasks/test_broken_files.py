"""Broken files in a training by two processes, each of which meets some of them."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image
from several_processes import inpainting, join
from two_futures import trainer

from ssl_ebm.data import ImageFolder
from ssl_ebm.data.broken_files import BrokenFiles
from ssl_ebm.errors import UserError
from ssl_ebm.tasks.broken_files import FilesOfAll
from ssl_ebm.tasks.saving import LastCheckpoint
from ssl_ebm.tasks.signals import StopOnSignal

FILES, BROKEN = 10, (2, 5, 6)
MASK = {"class_path": "ssl_ebm.data.masks.RandomPatches", "init_args": {}}


def training(folder: Path, workers: int, max_broken: float) -> dict[str, Any]:
    """Of more than an epoch; what it ends with."""
    data = ImageFolder(
        str(folder / "pictures"), size=16, grayscale=True, in_memory=False, batch_size=1, workers=workers,
        max_broken=max_broken,
    )  # fmt: skip
    stop = StopOnSignal(LastCheckpoint(folder, 100))
    fitter = trainer(12, devices=2, strategy="ddp", callbacks=[stop], limit_val_batches=0)
    try:
        fitter.fit(inpainting("least_squares", MASK), datamodule=data)
    except UserError as error:
        return {"said": str(error), "step": fitter.global_step}
    return {"broken": data.broken, "described": data.describe()["broken"], "step": fitter.global_step}


def one_of_two(rank: int, port: int, folder: Path) -> None:
    join(rank, port, 2)
    torch.distributed.init_process_group("gloo")
    found = [training(folder, workers, share) for workers, share in ((1, 0.2), (0, 0.3))]
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_count_together(tmp_path: Path) -> None:
    """Three of ten files are broken, and each process trains on half of them in an epoch."""
    for split, count in (("train", FILES), ("val", 2), ("test", 2)):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for number in range(count):
            path = tmp_path / "pictures" / split / f"{number}.png"
            Image.new("L", (16, 16), 20 * number).save(path)
    names = [f"train/{number}.png" for number in BROKEN]
    for name in names:
        (tmp_path / "pictures" / name).write_bytes(b"no picture")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, tmp_path), nprocs=2)
    found, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert found == other
    too_many, enough = found
    assert too_many["said"].startswith(f"3 of 10 files in {tmp_path / 'pictures'} cannot be read")
    assert f"allows: {'; '.join(names)}: see" in too_many["said"]
    assert 1 < too_many["step"] < 12
    assert enough == {"broken": names, "described": names, "step": 12}


def test_what_a_worker_meets_meanwhile_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process stops by a file that the others have not been told of."""
    files, every = BrokenFiles(FILES, str, 0.2, "pictures"), FilesOfAll()
    files.met[[1, 2]] = True
    every._counts = [files]

    def all_reduce(*_: Any) -> None:
        files.met[5] = True

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    alone = cast(Any, SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu"))))
    every.share(alone)
    assert every.news() == 1
    with pytest.raises(UserError, match=r"3 of 10 files in pictures"):
        every.share(alone)


def test_the_last_count_comes_after_the_last_checkpoint(tmp_path: Path) -> None:
    stop = StopOnSignal(LastCheckpoint(tmp_path, 100))
    order: list[str] = []
    stop.checkpoint.save = lambda trainer: order.append("saved")  # type: ignore[method-assign]
    stop.files.end = lambda trainer: order.append("counted")  # type: ignore[method-assign]
    stop.on_train_end(cast(Any, SimpleNamespace(world_size=2)), cast(Any, None))
    assert order == ["saved", "counted"]
