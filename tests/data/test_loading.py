"""The same batches for any number of workers and processes, and after a resumption."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import TensorDataset
from torch.utils.data.distributed import DistributedSampler

from ssl_ebm.data import MovingDigits, loading, sampling
from ssl_ebm.data.sampling import HELD, OrderedSampler, StreamSampler
from ssl_ebm.errors import UserError

SETTINGS: dict[str, Any] = {
    "glyphs_per_digit": 2,
    "train_clips": 28,
    "val_clips": 10,
    "test_clips": 10,
    "batch_size": 4,
}


def signature(batch: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(batch[name].numpy().tobytes() for name in sorted(batch))).hexdigest()


@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_do_not_depend_on_the_workers(split: str) -> None:
    seen = []
    for workers in (0, 1, 2):
        data = MovingDigits(**SETTINGS, workers=workers)
        loader = getattr(data, f"{split}_dataloader")()
        seen.append([[signature(batch) for batch in loader] for _ in range(2)])
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == len(seen[0][1]) == (7 if split == "train" else 3)
    assert (seen[0][0] == seen[0][1]) == (split == "val")  # training clips are new in each epoch


@pytest.mark.parametrize("held", [100, 0])
@pytest.mark.parametrize("items", [100, 96, 7])
def test_each_epoch_of_the_stream_is_a_permutation(
    items: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "HELD", held)
    dataset = TensorDataset(torch.arange(items))
    streams = []
    for seed in (0, 1):
        stream = list(islice(StreamSampler(dataset, 12, seed), 3 * items))
        for epoch in range(3):
            assert sorted(stream[epoch * items : (epoch + 1) * items]) == list(
                range(epoch * items, (epoch + 1) * items)
            )
            streams.append(tuple(i % items for i in stream[epoch * items : (epoch + 1) * items]))
    assert len(set(streams)) == 6  # every epoch and every seed has its own order


@pytest.mark.parametrize("items", [100, 96, 7, HELD + 1])
@pytest.mark.parametrize("processes", [2, 3, 4])
@pytest.mark.parametrize("start", [0, 5, 17])
def test_a_global_batch_does_not_depend_on_the_processes(items: int, processes: int, start: int) -> None:
    dataset, batch, steps = TensorDataset(torch.arange(items)), 12, 20
    order = list(islice(StreamSampler(dataset, batch, 3), (start + steps) * batch))[start * batch :]
    each = batch // processes
    shares = []
    for rank in range(processes):
        sampler = StreamSampler(dataset, each, 3, processes, rank)
        assert len(sampler) // each == max(items // batch, 1)
        sampler.start = start
        shares.append(list(islice(sampler, steps * each)))
    for step in range(steps):
        union = [index for share in shares for index in share[step * each : (step + 1) * each]]
        assert sorted(union) == sorted(order[step * batch : (step + 1) * batch])


def test_evaluation_sees_every_item_on_any_number_of_processes() -> None:
    shares = []
    for rank in range(4):
        data = MovingDigits(**SETTINGS)
        data.trainer = SimpleNamespace(world_size=4, global_rank=rank)  # type: ignore[assignment]
        shares.append([i for batch in data.test_dataloader() for i in batch["clip"].tolist()])
    assert {len(share) for share in shares} == {3}  # processes must make equally many steps
    assert {index for share in shares for index in share} == set(range(10))


@pytest.mark.parametrize("items", [1, 5, 12])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_evaluation_has_the_order_of_pytorch(items: int, processes: int) -> None:
    dataset = TensorDataset(torch.arange(items))
    for rank in range(processes):
        ours = OrderedSampler(dataset, processes, rank)
        theirs = DistributedSampler(dataset, processes, rank, shuffle=False)
        assert list(ours) == list(theirs)
        assert len(ours) == len(theirs)


@pytest.mark.parametrize("items", [5, 100, HELD + 1])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_spread_order_is_one_whatever_the_processes(items: int, processes: int) -> None:
    dataset = TensorDataset(torch.arange(items))
    order = list(OrderedSampler(dataset, spread=True))
    assert sorted(order) == list(range(items))
    assert order != sorted(order)
    for rank in range(processes):
        own = list(OrderedSampler(dataset, processes, rank, spread=True))
        assert own == [order[place % items] for place in range(rank, len(own) * processes, processes)]


def test_the_first_batches_of_a_validation_are_of_the_whole_split() -> None:
    """Of the means of 40 of 1000 items, the middle nine tenths (pi: 500 +- 1.64 * 289 / sqrt(40))."""
    data = MovingDigits(**SETTINGS | {"val_clips": 1000, "test_clips": 1000, "seed": 3})
    seen = [
        [torch.cat([batch["clip"] for batch in islice(loader, 10)]) for _ in range(2)]
        for loader in (data.val_dataloader(), data.test_dataloader())
    ]
    assert torch.equal(*seen[0])
    assert float(seen[0][0].double().mean()) == pytest.approx(500, abs=75)
    assert seen[1][0].tolist() == list(range(40))


def test_a_loader_is_read_by_as_many_processes_as_it_was_made_for(tmp_path: Path) -> None:
    one, two = MovingDigits(**SETTINGS), MovingDigits(**SETTINGS)
    two.trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=2, global_rank=0, reload_dataloaders_every_n_epochs=0
    )
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
            next(iter(getattr(one, name)()))
            with pytest.raises(UserError, match=r"among 2 process.*, and 1 read it: pass the DataModule"):
                next(iter(getattr(two, name)()))
    finally:
        torch.distributed.destroy_process_group()


def test_a_set_smaller_than_a_batch_fills_it_with_later_epochs() -> None:
    data = MovingDigits(**SETTINGS | {"batch_size": 64})
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 1
    assert sorted(batches[0]["clip"].tolist())[:56] == list(range(56))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 6, 7, 8])
def test_a_loader_goes_on_where_its_state_says(workers: int, taken: int) -> None:
    data = MovingDigits(**SETTINGS, workers=workers)
    whole = data.train_dataloader()
    order = [signature(batch) for _ in range(3) for batch in whole]
    assert len(set(order)) == 21
    loader = data.train_dataloader()
    first = [signature(batch) for batch in islice((b for _ in range(2) for b in loader), taken)]
    resumed = data.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert first + [signature(batch) for batch in resumed] == order[: taken + 7]


def test_a_resumed_stream_of_other_batches_repeats_nothing() -> None:
    """Items 0 to 47 of the stream, in batches of 4, 8 and 4, the second time by two processes."""
    settings = SETTINGS | {"train_clips": 40}
    seen, state = [], {}
    for size, processes, batches in ((4, 1, 6), (4, 2, 2), (2, 4, 0), (4, 1, 2)):
        shares: list[list[int]] = [[] for _ in range(processes)]
        for rank in range(processes):
            data = MovingDigits(**settings | {"batch_size": size})
            data.trainer = SimpleNamespace(  # type: ignore[assignment]
                world_size=processes, global_rank=rank, reload_dataloaders_every_n_epochs=0
            )
            if state:
                data.load_state_dict(dict(state))
            loader = data.train_dataloader()
            first = loader.state_dict()["batches"]
            for number, batch in enumerate(islice(loader, batches)):
                shares[rank] += batch["clip"].tolist()
                assert data.items_of_batch(first + number) == batch["clip"].tolist()
        state = loader.state_dict()
        seen += [item for share in shares for item in share]
    assert state["batches"] == 10
    order = list(islice(StreamSampler(loader.dataset, 1, loader.sampler.seed), 48))  # type: ignore[attr-defined]
    assert sorted(seen) == sorted(order)


def test_a_state_of_old_goes_on_with_the_batch_of_its_number() -> None:
    loader = MovingDigits(**SETTINGS).train_dataloader()
    wanted = list(islice(loader, 4))[3]
    again = MovingDigits(**SETTINGS).train_dataloader()
    again.load_state_dict({"batches": 3})
    assert signature(next(iter(again))) == signature(wanted)


def test_loaders_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    data = MovingDigits(**SETTINGS, workers=1)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        next(iter(loader))
    assert (torch.rand(3) == expected).all()


class Recorder(LightningModule):
    """One weight; notes the signature of every training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[str] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(signature(batch))
        return (self.weight - batch["video"].mean()) ** 2

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


class KilledError(Exception):
    pass


class KillAfter(Callback):
    """Stops the run at once after a number of steps, as a lost machine would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step >= self.steps:
            raise KilledError


def train(folder: Path, workers: int = 0, ckpt_path: str | None = None, **settings: Any) -> Recorder:
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **({"max_steps": 24} | settings),  # three epochs of 7 steps, and 3 steps more
    )
    trainer.fit(model, datamodule=MovingDigits(**SETTINGS, workers=workers), ckpt_path=ckpt_path)
    return model


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_sees_the_batches_of_an_unbroken_one(tmp_path: Path, workers: int) -> None:
    """Killed at each of several steps: inside an epoch, at its last step, at the first of the next one."""
    unbroken = train(tmp_path, workers)
    assert len(set(unbroken.seen)) == 24
    for steps in (1, 5, 7, 8, 13, 14, 15, 20, 21, 22) if workers == 0 else (5, 14, 15):
        folder = tmp_path / str(steps)
        keeper = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=0, save_last=True)
        with pytest.raises(KilledError):
            train(tmp_path, workers, callbacks=[keeper, KillAfter(steps)])
        resumed = train(tmp_path, workers, ckpt_path=str(folder / "last.ckpt"))
        assert resumed.seen == unbroken.seen[steps:], f"killed after step {steps}"
        assert resumed.weight.item() == unbroken.weight.item()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"limit_train_batches": 5},
        {"val_check_interval": 3},
        {"limit_val_batches": 0},
        {"max_epochs": 3, "max_steps": -1},
    ],
    ids=str,
)
@pytest.mark.parametrize("at_epoch_end", [None, True, False])
def test_a_run_goes_on_from_the_end_of_an_epoch(
    tmp_path: Path, settings: dict[str, Any], at_epoch_end: bool | None
) -> None:
    unbroken = train(tmp_path, **settings)
    keeper = ModelCheckpoint(
        tmp_path, every_n_epochs=1, save_top_k=-1, filename="{step}", save_on_train_epoch_end=at_epoch_end
    )
    with pytest.raises(KilledError):
        train(tmp_path, callbacks=[keeper, KillAfter(14)], **settings)
    checkpoints = list(tmp_path.glob("step=*.ckpt"))
    assert len(checkpoints) >= (0 if settings.get("limit_val_batches") == 0 and at_epoch_end is False else 1)
    for checkpoint in checkpoints:
        steps = int(checkpoint.stem.split("=")[1].split("-")[0])
        resumed = train(tmp_path, ckpt_path=str(checkpoint), **settings)
        assert resumed.seen == unbroken.seen[steps:]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_to_overfit_are_the_same_in_every_epoch(tmp_path: Path, workers: int) -> None:
    seen = train(tmp_path, workers, overfit_batches=2, max_steps=6).seen
    assert len(set(seen[:2])) == 2
    assert seen == 3 * seen[:2]


def test_reloading_the_loaders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reload_dataloaders_every_n_epochs"):
        train(tmp_path, reload_dataloaders_every_n_epochs=1)


PROCESS = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from lightning import Trainer
from test_loading import SETTINGS, Recorder
from ssl_ebm.data import MovingDigits
class Indices(Recorder):
    def training_step(self, batch, batch_idx):
        self.seen.append(batch["clip"].tolist())
        return (self.weight - batch["video"].mean()) ** 2
model = Indices()
trainer = Trainer(accelerator="cpu", devices=int(sys.argv[3]), strategy="ddp" if sys.argv[3] == "2" else
    "auto", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    num_sanity_val_steps=0)
trainer.fit(model, datamodule=MovingDigits(**SETTINGS | {"batch_size": 4 // int(sys.argv[3])}))
torch.save(model.seen, f"{sys.argv[1]}/{sys.argv[3]}-{trainer.global_rank}.pt")
"""


@pytest.mark.slow
def test_two_real_processes_share_the_batches_of_one(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(PROCESS)
    for processes in ("1", "2"):
        subprocess.run(
            [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent), processes],
            check=True,
            capture_output=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert len(one) == len(first) == len(second) == 14
    for batch, left, right in zip(one, first, second, strict=True):
        assert sorted(left + right) == sorted(batch)


ORPHANING = """
import multiprocessing, os, signal, sys, threading, time
import torch
from torch.utils.data import TensorDataset
from torch.utils.data._utils import worker
from ssl_ebm.data.loading import OrderedLoader

def wait_to_be_an_orphan(parent=os.getpid()):
    while os.getppid() == parent:
        time.sleep(0.01)

def die_among_workers():
    while len(workers := multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    print(*(one.pid for one in workers), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    # Of spawned workers, who import all anew, the parent is dead before they begin to work anyway.
    worker.signal_handling._set_worker_signal_handlers = wait_to_be_an_orphan
    threading.Thread(target=die_among_workers).start()
    next(iter(OrderedLoader(TensorDataset(torch.arange(4)), num_workers=2)))
"""


def lives(process: int) -> bool:
    """Whether a process is there, and not only left to be asked for its status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at the processes of Linux")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_end_with_a_process_that_is_killed_before_they_begin(tmp_path: Path, start: str) -> None:
    script = tmp_path / "run.py"
    script.write_text(ORPHANING)
    run = [sys.executable, str(script), start]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        workers = [int(number) for number in process.stdout.readline().split()]
        assert process.wait(60) == -signal.SIGKILL
        assert len(workers) == 2
        end = time.monotonic() + 60
        while any(map(lives, workers)) and time.monotonic() < end:
            time.sleep(0.1)
        left = [worker for worker in workers if lives(worker)]
        for worker in left:
            os.kill(worker, signal.SIGKILL)
    assert not left


def test_a_worker_does_what_else_it_was_told_to_do_first() -> None:
    class Seeded(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            return torch.initial_seed()

    data = Seeded(torch.arange(4))
    loader = loading.OrderedLoader(
        data, num_workers=1, multiprocessing_context="fork",
        worker_init_fn=lambda worker: torch.manual_seed(7),
    )  # fmt: skip
    for _ in range(2):  # the second time with workers of its own
        assert next(iter(loader)).item() == 7
