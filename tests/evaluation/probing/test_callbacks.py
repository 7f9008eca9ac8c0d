"""Probes beside a training: they leave it as it is, and measure what they say; no task sees a label."""

import json
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor

from ssl_ebm.data import (
    FontDigits,
    ImageFolder,
    LabelledDocuments,
    LabelledShare,
    MovingDigits,
    Text,
    VideoFolder,
)
from ssl_ebm.data.tokenizing import train_tokenizer
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation import (
    AttentiveProbe,
    CollapseMonitor,
    KNNProbe,
    LinearProbe,
    OnlineProbe,
    RegressionProbe,
)
from ssl_ebm.evaluation.probing import Frozen, Samples, linear_probe
from ssl_ebm.evaluation.probing.features import chosen_items, extract
from ssl_ebm.tasks import FramePrediction, Inpainting, MaskedText
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.seeding import SeededSteps

PATCHES = {
    "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
    "init_args": {
        "size": 16, "channels": 1, "width": 24, "depth": 2, "heads": 2, "decoder_width": 16,
        "decoder_depth": 1, "decoder_heads": 2,
    },
}  # fmt: skip
RANDOM = {"class_path": "ssl_ebm.data.masks.RandomPatches", "init_args": {"ratio": 0.75, "patch": 4}}
TEXT = {
    "class_path": "ssl_ebm.networks.text.TextEncoder",
    "init_args": {"vocabulary": 120, "width": 16, "depth": 1, "heads": 2, "length": 16},
}
BLOCK = "encoder.blocks.0"


def pictures(**settings: Any) -> FontDigits:
    return FontDigits(16, 120, 60, 40, **settings)


def digits() -> MovingDigits:
    return MovingDigits(
        size=16, digit_size=8, context_frames=3, train_clips=64, val_clips=40, test_clips=20,
        glyphs_per_digit=4, batch_size=8,
    )  # fmt: skip


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Lines that praise or blame."""
    folder = tmp_path / "documents"
    folder.mkdir()
    words = {"good": ["fine", "great", "warm", "bright"], "bad": ["poor", "dull", "cold", "bleak"]}
    for split, count in (("train", 60), ("val", 20), ("test", 20)):
        rows = ["text,label"]
        for i in range(count):
            label = ("good", "bad")[i % 2]
            said = words[label]
            rows.append(f"a {said[i % 4]} and {said[i // 3 % 4]} film number {split} {i},{label}")
        (folder / f"{split}.csv").write_text("\n".join(rows))
    return folder


Made = tuple[Callable[[], Any], Callable[[], LightningDataModule], Callable[[], list[Any]]]


def kinds(documents: Path) -> dict[str, Made]:
    def text() -> Text:
        cache = str(documents.parent / "cache")
        return Text(str(documents), vocabulary=120, length=16, cache=cache, batch_size=8)

    labelled = str(documents)
    return {
        "pictures": (
            lambda: Inpainting(objective="least_squares", network=PATCHES, mask=RANDOM),
            lambda: pictures(flip=True, crop=0.5, batch_size=8),
            lambda: [
                LinearProbe(pictures(), every_n_steps=3),
                KNNProbe(pictures(), layer=BLOCK, every_n_epochs=1),
                AttentiveProbe(pictures(), epochs=1, layer=BLOCK),
                OnlineProbe(pictures(), every_n_steps=2, batch_size=16),
                CollapseMonitor(items=32),
            ],
        ),
        "frames": (
            lambda: FramePrediction(context_frames=3, width=16, codes=8, features=16),
            digits,
            lambda: [
                LinearProbe(digits(), every_n_steps=3),
                RegressionProbe(digits(), every_n_steps=2),
                CollapseMonitor(items=32),
            ],
        ),
        "text": (
            lambda: MaskedText(TEXT),
            text,
            lambda: [
                LinearProbe(LabelledDocuments(labelled), every_n_steps=3),
                OnlineProbe(LabelledDocuments(labelled), every_n_steps=2, batch_size=16),
                CollapseMonitor(items=32),
            ],
        ),
    }


def fit(folder: Path, make: Made, callbacks: list[Any], ckpt_path: Path | None = None) -> tuple[Any, Trainer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_everything(0)
        task, data = make[0](), make[1]()
        trainer = Trainer(
            max_steps=7, accelerator="cpu", callbacks=callbacks, default_root_dir=folder,
            logger=CSVLogger(folder, "metrics"), enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
            num_sanity_val_steps=0, val_check_interval=3,
            check_val_every_n_epoch=None, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(task, datamodule=data, ckpt_path=ckpt_path)
    return task, trainer


@pytest.mark.parametrize("kind", ["pictures", "frames", "text"])
def test_weights_are_the_same_to_the_bit_with_and_without_probes(
    kind: str, documents: Path, tmp_path: Path
) -> None:
    made = kinds(documents)[kind]
    probed, trainer = fit(tmp_path / "probed", made, made[2]())
    alone, _ = fit(tmp_path / "alone", made, [])
    for (name, ours), (_, theirs) in zip(probed.named_parameters(), alone.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert trainer.global_step == 7
    [*_, last] = json.loads((tmp_path / "probed" / "probe_linear.json").read_text())
    assert last["step"] == 7
    assert last["split"] == "val"
    logged = (tmp_path / "probed" / "metrics" / "version_0" / "metrics.csv").read_text()
    assert "probe/linear/accuracy" in logged
    assert "collapse/rank_me" in logged
    assert ("collapse/lidar" in logged) == (kind == "pictures")


def test_a_probe_measures_the_task_as_it_is(documents: Path, tmp_path: Path) -> None:
    made = kinds(documents)["pictures"]
    task, trainer = fit(tmp_path, made, [LinearProbe(pictures(), name="mine", train_items=100)])
    [found] = json.loads((tmp_path / "probe_mine.json").read_text())
    data = pictures()
    data.setup()
    chosen = chosen_items(data.train_dataset, 100, 0)
    assert len(chosen) == len(set(chosen)) == 100
    sets = []
    with torch.no_grad():
        for dataset, items in ((data.train_dataset, chosen), (data.val_dataset, range(60))):
            batch = [dataset[i] for i in items]
            features = task.representation(torch.stack([one["image"] for one in batch]))
            sets.append(Samples(features, torch.stack([one["label"] for one in batch])))
    assert found["accuracy"] == pytest.approx(linear_probe(*sets).accuracy.to_json(), abs=0.02)
    assert found["train_items"] == 100
    assert found["test_items"] == 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(task, datamodule=made[1]())
    assert [one["split"] for one in json.loads((tmp_path / "probe_mine.json").read_text())] == ["val", "test"]


def test_probed_pictures_are_not_augmented() -> None:
    data = pictures(flip=True, crop=0.3)
    data.setup()
    task = Inpainting(objective="least_squares", network=PATCHES, mask=RANDOM)
    plain = pictures()
    plain.setup()
    ours, theirs = (extract(Frozen(task), one.train_dataset, range(20)) for one in (data, plain))
    assert torch.equal(ours.features, theirs.features)


def test_a_share_of_augmented_pictures_is_probed_as_they_are() -> None:
    share, plain = LabelledShare(pictures(flip=True, crop=0.3), per_class=3), pictures()
    share.setup()
    plain.setup()
    task = Inpainting(objective="least_squares", network=PATCHES, mask=RANDOM)
    ours = extract(Frozen(task), share.train_dataset, range(30))
    theirs = extract(Frozen(task), plain.train_dataset, share.train_dataset.places.tolist())
    assert torch.equal(ours.features, theirs.features)
    assert torch.equal(ours.target, theirs.target)


def test_few_labels_of_text_are_probed(documents: Path, tmp_path: Path) -> None:
    made = kinds(documents)["text"]
    probe = LinearProbe(LabelledShare(LabelledDocuments(str(documents)), per_class=4))
    task, _ = fit(tmp_path, made, [probe])
    [found] = json.loads((tmp_path / "probe_linear.json").read_text())
    data = LabelledDocuments(str(documents))
    data.use_tokenizer(task.tokenizer_json, 16)
    data.setup()
    sets = [
        extract(Frozen(task), dataset, items)
        for dataset, items in (
            (data.train_dataset, probe.data.train_dataset.places.tolist()), (data.val_dataset, range(20)),
        )
    ]  # fmt: skip
    assert sets[0].target.bincount().tolist() == [4, 4]
    assert found["accuracy"] == pytest.approx(linear_probe(*sets).accuracy.to_json())


def test_an_attentive_probe_does_not_see_padding(documents: Path) -> None:
    data = LabelledDocuments(str(documents))
    data.use_tokenizer(train_tokenizer(lambda: iter(["a fine film and a poor one"] * 9), 30).to_str(), 16)
    data.setup()
    torch.manual_seed(0)
    task = MaskedText(TEXT).eval()
    items = [7, 2, 11]
    found = extract(Frozen(task, "network.norm", "none"), data.train_dataset, items, batch_size=2)
    for features, seen, item in zip(found.features, found.seen, items, strict=True):  # type: ignore[arg-type]
        tokens = data.train_dataset[item]["tokens"]
        size = int((tokens != 0).sum())
        assert seen.nonzero()[:, 0].tolist() == list(range(size))
        with torch.no_grad():
            torch.testing.assert_close(features[:size], task.network(tokens[None, :size])[0])
        assert not features[size:].any()


def test_an_attentive_probe_needs_a_layer_and_no_pooling() -> None:
    with pytest.raises(UserError, match="set layer"):
        AttentiveProbe(pictures())
    with pytest.raises(UserError, match="pooling is 'first', but it reads all tokens: leave it out"):
        AttentiveProbe(pictures(), layer=BLOCK, pooling="first")


def recorded_clips(folder: Path, group: list[int]) -> VideoFolder:
    """Twelve clips of 8 frames in each split, cut from these recordings, all of one class."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 8, 16, 16), np.uint8)
    for split in ("train", "val", "test"):
        (folder / split / "some").mkdir(parents=True)
        np.savez(folder / split / "some" / "clips.npz", video=noise, group=np.array(group))
    data = VideoFolder(str(folder), size=16, grayscale=True, context_frames=3)
    data.setup()
    return data


@pytest.mark.parametrize(
    ("recording", "wanted"),
    [
        ([*range(12)], [*range(12)]),
        ([n // 3 for n in range(12)], [n // 3 * 3 for n in range(12)]),
        ([0] * 12, [*range(12)]),  # of one recording alone the groups are its clips
    ],
)
def test_clips_of_one_recording_are_one_group(
    recording: list[int], wanted: list[int], tmp_path: Path
) -> None:
    data = recorded_clips(tmp_path, recording)
    task = FramePrediction(context_frames=3, width=16, codes=8, features=16)
    found = extract(Frozen(task), data.val_dataset, range(24)).groups  # two windows of each clip
    assert found is not None
    assert found.tolist() == [group for group in wanted for _ in range(2)]


@pytest.mark.parametrize("enough", [4, 5])
def test_an_online_probe_learns_from_no_clip_of_a_recording_that_it_is_judged_on(
    enough: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = recorded_clips(tmp_path, [n // 3 for n in range(12)])
    of_clip = {int(item["clip"]): int(item["group"]) for item in data.train_dataset}
    asked: set[int] = set()

    def none(numbers: Tensor) -> Tensor:
        asked.update(numbers.tolist())
        return torch.zeros(len(numbers), dtype=torch.bool)

    monkeypatch.setattr("ssl_ebm.evaluation.probing.monitors._held_out", none)
    monkeypatch.setattr("ssl_ebm.evaluation.probing.monitors.ENOUGH", enough)
    probe = OnlineProbe(data, every_n_steps=1, batch_size=64)
    task = FramePrediction(context_frames=3, width=16, codes=8, features=16)
    probe.on_train_batch_end(SimpleNamespace(global_step=1, loggers=[]), task, None, None, 0)  # type: ignore[arg-type]
    assert asked == set(of_clip.values() if enough == 4 else of_clip)  # of too few recordings the clips


def grouped_pictures(folder: Path, notes: bool, **settings: Any) -> ImageFolder:
    """Forty pictures of two classes, of which each five are of one group, where there are notes."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 16, 16), np.uint8)
    rows = ["path,group"]
    for number, pixels in enumerate(noise):
        path = folder / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append(f"{path.relative_to(folder)},patient{number // 5}")
    if notes:
        (folder / "images.csv").write_text("\n".join(rows))
    data = ImageFolder(str(folder), size=16, grayscale=True, **settings)
    data.setup()
    return data


@pytest.mark.parametrize("in_memory", [True, False])
def test_pictures_of_one_group_belong_together(in_memory: bool, tmp_path: Path) -> None:
    task = Inpainting(objective="least_squares", network=PATCHES, mask=RANDOM)
    data = grouped_pictures(tmp_path / "grouped", True, in_memory=in_memory)
    for dataset in (data.train_dataset, data.test_dataset):
        names = dataset.item_names(range(len(dataset)))
        assert names is not None
        patients = torch.tensor([int(Path(name).stem) // 5 for name in names])
        found = extract(Frozen(task), dataset, range(len(dataset))).groups
        assert found is not None
        assert torch.equal(found[:, None] == found, patients[:, None] == patients)
    alone = grouped_pictures(tmp_path / "alone", False, in_memory=in_memory)
    assert "group" not in alone.train_dataset[0]
    assert extract(Frozen(task), alone.val_dataset, range(len(alone.val_dataset))).groups is None


def test_an_online_probe_learns_from_no_picture_of_a_group_that_it_is_judged_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = grouped_pictures(tmp_path / "grouped", True)
    asked: set[int] = set()

    def none(numbers: Tensor) -> Tensor:
        asked.update(numbers.tolist())
        return torch.zeros(len(numbers), dtype=torch.bool)

    monkeypatch.setattr("ssl_ebm.evaluation.probing.monitors._held_out", none)
    monkeypatch.setattr("ssl_ebm.evaluation.probing.monitors.ENOUGH", 2)
    probe = OnlineProbe(data, every_n_steps=1, batch_size=256)
    task = Inpainting(objective="least_squares", network=PATCHES, mask=RANDOM)
    probe.on_train_batch_end(SimpleNamespace(global_step=1, loggers=[]), task, None, None, 0)  # type: ignore[arg-type]
    assert asked == {int(data.train_dataset[i]["group"]) for i in range(len(data.train_dataset))}


def test_targets_are_those_of_the_last_frame_that_is_seen() -> None:
    data = digits()
    data.setup()
    task = FramePrediction(context_frames=3, width=16, codes=8, features=16)
    found = extract(Frozen(task), data.val_dataset, range(10), ("position", "velocity"))
    items = [data.val_dataset[i] for i in range(10)]
    assert torch.equal(found.target[:, :2], torch.stack([one["position"][2, 0] for one in items]))
    # velocity[1] leads from frame 1 to frame 2, the last of the context; velocity[2] is still to come.
    assert torch.equal(found.target[:, 2:], torch.stack([one["velocity"][1, 0] for one in items]))
    assert found.groups is not None
    assert found.groups.tolist() == list(range(10))


class Curious(Inpainting):
    """A task that would like to see the labels."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * batch["label"].float().mean()


def test_labels_reach_no_pretext_task(documents: Path, tmp_path: Path) -> None:
    made = kinds(documents)["pictures"]
    curious: Made = (
        lambda: Curious(objective="least_squares", network=PATCHES, mask=RANDOM), made[1], made[2]
    )  # fmt: skip
    with pytest.raises(UserError, match=r"the task needs .label., and the data give image"):
        fit(tmp_path, curious, [])


def test_an_online_probe_learns_and_is_saved(tmp_path: Path) -> None:
    task = Inpainting(objective="least_squares", network=PATCHES, mask=RANDOM)
    probe = OnlineProbe(pictures(), every_n_steps=1, batch_size=64, lr=0.01)

    class Logger:
        def __init__(self) -> None:
            self.seen: list[float] = []

        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            self.seen.append(metrics["online_probe/accuracy"])

    class Clock:
        def __init__(self) -> None:
            self.global_step = 0
            self.loggers = [Logger()]

    clock = Clock()
    for clock.global_step in range(1, 201):
        probe.on_train_batch_end(clock, task, None, None, 0)  # type: ignore[arg-type]
    seen = clock.loggers[0].seen
    assert len(seen) == 10
    assert seen[-1] > seen[0] + 0.15
    again = OnlineProbe(pictures(), every_n_steps=1, batch_size=64)
    again.load_state_dict(deepcopy(probe.state_dict()))  # as a checkpoint has it
    clock.global_step = 201
    again.on_train_batch_end(clock, task, None, None, 0)  # type: ignore[arg-type]
    probe.on_train_batch_end(clock, task, None, None, 0)  # type: ignore[arg-type]
    for name, value in probe.head.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(again.head.state_dict()[name], value), name  # type: ignore[union-attr]


def test_probes_begin_anew_with_a_training_and_go_on_with_its_checkpoint(
    documents: Path, tmp_path: Path
) -> None:
    made = kinds(documents)["pictures"]
    online = OnlineProbe(pictures(), every_n_steps=1, batch_size=16)
    callbacks = [
        KNNProbe(pictures(), train_items=40, test_items=20), online, SeededSteps(0),
        ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1),
    ]  # fmt: skip
    heads, steps = [], []
    for start in (None, None, tmp_path / "step=4.ckpt"):
        fit(tmp_path, made, callbacks, start)
        heads.append(deepcopy(online.head.state_dict()))  # type: ignore[union-attr]
        steps.append([one["step"] for one in json.loads((tmp_path / "probe_knn.json").read_text())])
    assert steps == [[7], [7], [7, 7]]
    assert [one["step"] for one in json.loads((tmp_path / "probe_knn.before.json").read_text())] == [7]
    content = read_checkpoint(tmp_path / "step=4.ckpt")  # of Lightning's own callback
    assert content["task"] == "Inpainting"
    assert content["data"]["name"] == type(pictures()).__name__
    for name, value in heads[0].items():
        assert torch.equal(heads[1][name], value), name
        assert torch.equal(heads[2][name], value), name
    assert online._step == 7


def test_two_probes_of_one_name_are_refused(documents: Path, tmp_path: Path) -> None:
    made = kinds(documents)["pictures"]
    with pytest.raises(UserError, match=r"two probes are called 'linear': give each a name"):
        fit(tmp_path, made, [LinearProbe(pictures()), LinearProbe(digits())])


class Relabelled(FontDigits):
    """Digits whose labels in one split are another number, or not there."""

    def __init__(self, split: str, label: int | None) -> None:
        super().__init__(16, 40, 20, 20)
        self.split, self.label = split, label

    def make_dataset(self, split: str) -> Any:
        dataset: Any = super().make_dataset(split)
        if split == self.split:
            images = dataset.images
            labels = None if self.label is None else np.full_like(images.labels, self.label)
            dataset.images = replace(images, labels=labels)
        return dataset


class Steps(Callback):
    """Counts the optimizer steps that were taken."""

    taken = 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.taken = trainer.global_step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: LinearProbe(pictures(), layer="nowhere"), "no layer 'nowhere'"),
        (lambda folder: LinearProbe(LabelledDocuments(str(folder))), "model of text"),
        (lambda _: RegressionProbe(pictures(), targets=("mood",)), "no mood, only"),
        (lambda _: LinearProbe(Relabelled("train", None)), "no label, only image, index: put pictures"),
        (lambda _: OnlineProbe(Relabelled("train", None), every_n_steps=2), "no label, only image, index"),
        (lambda _: OnlineProbe(Relabelled("train", -1), every_n_steps=2), "a label is -1"),
        (lambda _: LinearProbe(Relabelled("val", -1)), "a label is -1, .* wrap the data in .*LabelledShare"),
    ],
)
def test_what_cannot_be_probed_is_known_before_the_training(
    make: Callable[[Path], Callback], message: str, documents: Path, tmp_path: Path
) -> None:
    steps = Steps()
    with pytest.raises(UserError, match=message):
        fit(tmp_path, kinds(documents)["pictures"], [make(documents), steps])
    assert steps.taken == 0


def test_settings_of_probes_are_checked_when_they_are_made() -> None:
    for make, message in (
        (lambda: LinearProbe(pictures(), penalties=()), r"penalties are \[\]: give one or more, all above 0"),
        (lambda: LinearProbe(pictures(), penalties=(0.1, 0.0)), r"penalties are \[0.1, 0.0\]: give"),
        (lambda: KNNProbe(pictures(), temperature=0.0), "temperature 0.0: use at least 1 and above 0"),
        (lambda: KNNProbe(pictures(), neighbours=0), "neighbours is 0"),
        (lambda: AttentiveProbe(pictures(), layer=BLOCK, lr=-1.0), "lr is -1.0: use one above 0"),
        (lambda: RegressionProbe(pictures(), targets=()), "no targets: name one entry"),
    ):
        with pytest.raises(UserError, match=message):
            make()


def test_a_collapsed_representation_is_warned_of(tmp_path: Path, documents: Path) -> None:
    made = kinds(documents)["pictures"]

    class Blind(Inpainting):
        def representation(self, x: Tensor) -> Tensor:
            return super().representation(x) * 0 + 1

    blind: Made = (lambda: Blind(objective="least_squares", network=PATCHES, mask=RANDOM), made[1], made[2])
    seed_everything(0)
    trainer = Trainer(
        max_steps=3, accelerator="cpu", callbacks=[CollapseMonitor(items=16)], default_root_dir=tmp_path,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0,
        val_check_interval=3, check_val_every_n_epoch=None, enable_model_summary=False,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="representation collapses"):
        trainer.fit(blind[0](), datamodule=blind[1]())


def test_an_online_probe_sees_no_more_than_there_is(tmp_path: Path) -> None:
    """Of labels by lot it learns the ones that it sees by heart; those that it does not see tell."""
    data = pictures()
    data.setup("fit")
    lots = np.random.default_rng(0).integers(0, 2, len(data.train_dataset))

    class ByLot:
        def __len__(self) -> int:
            return len(lots)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {**data.train_dataset[index], "label": torch.tensor(int(lots[index]))}

    probe = OnlineProbe(pictures(), every_n_steps=1, batch_size=64, lr=0.1)
    probe.data.train_dataset = ByLot()  # type: ignore[attr-defined]
    seen: list[float] = []
    clock = SimpleNamespace(
        global_step=0,
        loggers=[SimpleNamespace(log_metrics=lambda of, step: seen.append(of["online_probe/accuracy"]))],
    )
    task = Inpainting(objective="least_squares", network=PATCHES, mask=RANDOM)
    for clock.global_step in range(1, 401):
        probe.on_train_batch_end(clock, task, None, None, 0)  # type: ignore[arg-type]
    assert sum(seen[-10:]) / 10 == pytest.approx(0.5, abs=0.1)
