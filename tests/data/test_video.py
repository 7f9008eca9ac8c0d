"""Splits, windows, broken and short clips of a folder of video."""

import csv
import tracemalloc
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoded_clips import numbers, shades, write_clip
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from scipy.stats import chi2
from sharded_folders import pack

from ssl_ebm.data import ClipWindows, VideoFolder
from ssl_ebm.data.clip_arrays import _read_array
from ssl_ebm.data.clips import ArrayClip
from ssl_ebm.errors import UserError

SIZE: dict[str, Any] = {"size": (24, 32), "context_frames": 3, "future_frames": 2, "batch_size": 4}


def tinted(clip: int, frames: int = 12) -> NDArray[np.uint8]:
    """Red tells the clip (10 a number), green the frame (6 a number)."""
    video = shades(frames, 24, 32)
    video[..., 0] = 20 + 10 * clip
    video[..., 2] = 0
    return video


def red_and_green(video: torch.Tensor) -> tuple[int, list[int]]:
    tones = video[:, :2].mean(dim=(2, 3)) * 255
    return round((tones[:, 0].mean().item() - 20) / 10), numbers(tones[:, 1].numpy() / 255)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten clips without classes or splits; clip i has 12 + i frames."""
    for clip in range(10):
        write_clip(tmp_path / f"{clip}.mkv", tinted(clip, 12 + clip))
    return tmp_path


def ready(folder: Path, **settings: Any) -> VideoFolder:
    data = VideoFolder(str(folder), **(SIZE | settings))
    data.setup()
    return data


def sources(data: VideoFolder) -> dict[str, set[str]]:
    return {
        split: {clip.name for clip in getattr(data, f"{split}_dataset").clips}
        for split in ("train", "val", "test")
    }


@pytest.mark.parametrize("cache", [True, False])
def test_a_window_shows_the_frames_and_the_clip_it_names(folder: Path, cache: bool) -> None:
    data = ready(folder, cache=cache)
    for split in ("train", "val", "test"):
        dataset = getattr(data, f"{split}_dataset")
        for index in range(len(dataset)):
            item = dataset[index]
            clip, frames = red_and_green(item["video"])
            assert item["video"].shape == (5, *data.frame_shape)
            assert f"{clip}.mkv" == dataset.clips[item["clip"]].name
            assert frames == list(range(item["start"].item(), item["start"].item() + 5))
            assert "label" not in item


def test_no_clip_is_in_two_splits_and_all_are_used(folder: Path) -> None:
    seen = set()
    for seed in range(4):
        split = sources(ready(folder, seed=seed, val_fraction=0.2, test_fraction=0.3))
        assert split["train"] | split["val"] | split["test"] == {f"{clip}.mkv" for clip in range(10)}
        assert [len(split[name]) for name in ("train", "val", "test")] == [5, 2, 3]
        assert split == sources(ready(folder, seed=seed, val_fraction=0.2, test_fraction=0.3))
        seen.add(frozenset(split["test"]))
    assert len(seen) > 1


def test_groups_stay_on_one_side(folder: Path) -> None:
    group = {f"{clip}.mkv": f"g{clip // 2}" for clip in range(10)}
    with (folder / "clips.csv").open("w") as file:
        file.write("path,group,frames\n" + "".join(f"{path},{name},9\n" for path, name in group.items()))
    for seed in range(5):
        data = ready(folder, seed=seed)
        split = sources(data)
        sides = [{group[name] for name in names} for names in split.values()]
        assert all(sides)
        assert sum(len(side) for side in sides) == len(set.union(*sides)) == 5
        numbers_of: dict[str, set[int]] = {}
        for dataset in (data.train_dataset, data.val_dataset, data.test_dataset):
            for item in dataset:
                name = group[dataset.clips[item["clip"]].name]
                numbers_of.setdefault(name, set()).add(item["group"].item())
        assert len(set.union(*numbers_of.values())) == sum(map(len, numbers_of.values())) == 5
    (folder / "clips.csv").unlink()
    alone = ready(folder).train_dataset
    assert len({item["group"].item() for item in alone}) == len(alone.clips)  # each a recording of its own


def test_folders_give_splits_and_classes(tmp_path: Path) -> None:
    for split, clips in (("train", 6), ("test", 2)):
        for name in ("run", "walk"):
            for clip in range(clips):
                write_clip(tmp_path / split / name / f"{clip}.mkv", tinted(clip))
    data = ready(tmp_path)
    names = sources(data)
    assert names["test"] == {f"test/{name}/{clip}.mkv" for name in ("run", "walk") for clip in range(2)}
    assert len(names["train"]) == 11
    assert all(name.startswith("train/") for name in names["train"] | names["val"])
    assert not names["train"] & names["val"]
    assert data.classes == ["run", "walk"]
    for item in data.test_dataset:
        assert data.classes[item["label"]] in data.test_dataset.clips[item["clip"]].name


def test_evaluation_windows_tile_the_clip(folder: Path) -> None:
    dataset = ready(folder).test_dataset
    starts = {
        (item["clip"].item(), item["start"].item()) for item in (dataset[i] for i in range(len(dataset)))
    }
    assert starts == {(n, s) for n, clip in enumerate(dataset.clips) for s in range(0, clip.frames - 4, 5)}


def plain(frames: list[int], **settings: Any) -> ClipWindows:
    clips = [ArrayClip(str(n), np.zeros((count, 2, 2, 1), np.uint8)) for n, count in enumerate(frames)]
    options = {
        "length": 5,
        "stride": 5,
        "windows_per_clip": None,
        "training": True,
        "seed": 0,
        "split": "train",
    }
    return ClipWindows(clips, None, **(options | settings))


def test_stride_and_number_of_windows() -> None:
    """By hand: clips of 5, 9, 10 and 23 frames hold 1, 1, 2, 4 windows of 5; with stride 2: 1, 3, 3, 10."""
    assert len(plain([5, 9, 10, 23])) == 1 + 1 + 2 + 4
    assert len(plain([5, 9, 10, 23], stride=2)) == 1 + 3 + 3 + 10
    assert len(plain([5, 9, 10, 23], stride=2, windows_per_clip=3)) == 1 + 3 + 3 + 3
    few = plain([100], windows_per_clip=4, training=False)
    assert [few.window(i)[1] for i in range(4)] == [
        10,
        35,
        60,
        85,
    ]  # the middles of four quarters of 20 segments


def test_windows_of_many_clips_follow_one_another() -> None:
    frames = np.random.default_rng(0).integers(5, 40, 300).tolist()
    dataset = plain(frames, stride=3, training=False)
    expected = [(clip, start) for clip, count in enumerate(frames) for start in range(0, count - 4, 3)]
    assert [dataset.window(index) for index in range(len(dataset))] == expected
    assert dataset.window(len(dataset)) == expected[0]  # the next epoch's
    assert dataset.items_of_clips().tolist() == [len(range(0, count - 4, 3)) for count in frames]
    in_training = plain(frames, stride=3, windows_per_clip=2)
    clips = [clip for clip, count in enumerate(frames) for _ in range(2 if count > 7 else 1)]
    assert [in_training.window(index)[0] for index in range(len(in_training))] == clips


def test_training_windows_move_in_each_epoch_and_reach_every_frame() -> None:
    dataset = plain([7, 23])
    epochs = [[dataset.window(e * len(dataset) + i) for i in range(len(dataset))] for e in range(200)]
    for windows in epochs:
        assert [clip for clip, _ in windows] == [0, 1, 1, 1, 1]
        for segment, (_, start) in enumerate(windows[1:]):  # four parts of 19 / 4 starts
            assert 19 * segment // 4 <= start <= 19 * (segment + 1) // 4
    assert {start for windows in epochs for clip, start in windows if clip == 0} == {0, 1, 2}
    assert {start for windows in epochs for clip, start in windows if clip == 1} == set(range(19))


@pytest.mark.parametrize(
    ("frames", "stride", "windows_per_clip"),
    [(25, 5, None), (23, 5, None), (11, 5, None), (40, 3, 4), (9, 1, 2)],
)
def test_every_start_of_a_training_window_is_equally_frequent(
    frames: int, stride: int, windows_per_clip: int | None
) -> None:
    """Chi-square over 1,000 epochs: a clip of 25 frames has 21 starts and 5 windows of 5."""
    dataset = plain([frames], stride=stride, windows_per_clip=windows_per_clip)
    count = np.bincount([dataset.window(index)[1] for index in range(1000 * len(dataset))])
    expected = 1000 * len(dataset) / (frames - 4)
    assert len(count) == frames - 4
    assert ((count - expected) ** 2 / expected).sum() < chi2.ppf(0.999, frames - 5)


def test_windows_one_frame_apart_are_all_of_the_clip() -> None:
    """Nothing is left to draw."""
    dataset = plain([60], stride=1)
    assert [dataset.window(index)[1] for index in range(3 * 56)] == 3 * [*range(56)]


def test_drawn_segments_are_distinct_and_equally_frequent() -> None:
    dataset = plain([54, 20], windows_per_clip=3)
    count = np.zeros(10)
    for epoch in range(1000):
        segments = [dataset.window(epoch * 6 + i)[1] // 5 for i in range(3)]  # ten parts of five starts
        assert len(set(segments)) == 3
        count[segments] += 1
    assert abs(count - 300).max() < 5 * (1000 * 0.3 * 0.7) ** 0.5


@pytest.mark.parametrize("cache", [True, False])
def test_batches_do_not_depend_on_the_workers(folder: Path, cache: bool) -> None:
    seen = []
    for workers in (0, 2):
        loader = ready(folder, cache=cache, workers=workers, windows_per_clip=2).train_dataloader()
        seen.append([batch for _ in range(2) for batch in loader])
    assert len(seen[0]) > 4
    for one, other in zip(*seen, strict=True):
        assert all((one[name] == other[name]).all() for name in one)


def test_eval_future_frames_lengthen_only_evaluation(folder: Path) -> None:
    data = ready(folder, eval_future_frames=6)
    assert len(data.train_dataset[0]["video"]) == 5
    assert len(data.val_dataset[0]["video"]) == len(data.test_dataset[0]["video"]) == 9


def test_a_broken_clip_is_named_counted_and_skipped(folder: Path) -> None:
    (folder / "bad.mp4").write_bytes(b"not a video")
    with pytest.warns(UserWarning, match=r"skipped 1 clip\(s\) that cannot be read: bad\.mp4"):
        data = ready(folder)
    assert [name.split(":")[0] for name in data.describe()["skipped_broken"]] == ["bad.mp4"]
    assert sum(data.describe()["clips"].values()) == 10


def test_a_broken_clip_can_stop_the_run(folder: Path) -> None:
    (folder / "bad.mp4").write_bytes(b"not a video")
    with pytest.raises(UserError, match=r"bad\.mp4.*on_broken") as error:
        ready(folder, on_broken="stop")
    assert "\n" not in str(error.value)


def test_short_clips_are_named_counted_and_skipped(folder: Path) -> None:
    write_clip(folder / "short.mkv", tinted(0, 4))
    with pytest.warns(UserWarning, match=r"shorter than a window of 5 frames: short\.mkv \(4\)"):
        data = ready(folder)
    assert data.describe()["skipped_short"] == ["short.mkv"]
    assert not any("short.mkv" in names for names in sources(data).values())


@pytest.mark.parametrize("stored", ["files", "shards"])
@pytest.mark.parametrize("given", [{"train"}, {"train", "val"}, {"train", "val", "test"}])
def test_clips_of_train_that_may_be_drawn_for_evaluation_hold_its_window(
    tmp_path: Path, given: set[str], stored: str
) -> None:
    """Windows of 4 frames in training and 9 in evaluation; half of the clips of train have 6 frames."""
    for split in given:
        for clip in range(12):
            frames = 6 if clip % 2 and split == "train" else 13
            write_clip(tmp_path / "clips" / split / f"{clip}.mkv", tinted(clip, frames))
    if stored == "shards":
        pack(tmp_path / "clips", tmp_path / "shards", kind="clips")
    root = tmp_path / ("clips" if stored == "files" else "shards")
    settings: dict[str, Any] = {"future_frames": 1, "eval_future_frames": 6, "cache": False}
    some_are_drawn = len(given) < 3
    with pytest.warns(UserWarning, match="skipped 6 clip") if some_are_drawn else nullcontext():
        data = ready(root, **settings, val_fraction=0.4, test_fraction=0.4)
    for split in ("val", "test"):
        dataset = getattr(data, f"{split}_dataset")
        assert (dataset.items_of_clips() == 1).all()
        assert {len(dataset[index]["video"]) for index in range(len(dataset))} == {9}
    short = [clip for clip in data.train_dataset.clips if clip.frames == 6]
    assert len(short) == (0 if some_are_drawn else 6)
    assert (data.train_dataset.items_of_clips() > 0).all()


def test_a_clip_without_a_window_has_no_items_and_a_split_without_one_is_refused() -> None:
    assert plain([3, 5, 1, 9], stride=1).items_of_clips().tolist() == [0, 1, 0, 5]
    assert [plain([3, 5, 1, 9], stride=1).window(i)[0] for i in range(6)] == [1, 3, 3, 3, 3, 3]
    with pytest.raises(UserError, match="no train clip holds a window of 5 frames") as error:
        plain([3, 4])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("on_broken", ["skip", "stop"])
def test_a_clip_that_breaks_while_training(folder: Path, workers: int, on_broken: str) -> None:
    """It was there when the run began: the next clip takes its place, or one line says which it is."""
    data = ready(folder, cache=False, workers=workers, on_broken=on_broken)
    clips, lost = data.train_dataset.clips, 2
    clips[lost].path.unlink()
    loader = data.train_dataloader()
    if on_broken == "stop":
        with pytest.raises(
            UserError, match=rf"^{clips[lost].name} cannot be decoded.*on_broken to skip$"
        ) as error:
            list(loader)
        assert "\n" not in str(error.value)
        return
    with warnings.catch_warnings(record=True) as said:  # of this process, not of its worker
        warnings.simplefilter("always")
        batches = list(loader)
    told = [str(one.message) for one in said if "cannot be decoded" in str(one.message)]
    assert [one.split(" cannot")[0] for one in told] == ([] if workers else [clips[lost].name])
    assert all(one.endswith("the next clip takes its place") for one in told)
    drawn = [data.train_dataset.window(i)[0] for b in range(len(batches)) for i in data.items_of_batch(b)]
    assert drawn.count(lost) > 1
    read = [clip for batch in batches for clip in batch["clip"].tolist()]
    assert read == [lost + 1 if clip == lost else clip for clip in drawn]
    shown = [f"{red_and_green(video)[0]}.mkv" for batch in batches for video in batch["video"]]
    assert shown == [clips[clip].name for clip in read]
    assert data.broken == data.describe()["skipped_broken"] == [clips[lost].name]


def test_arrays_count_as_clips(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("test", 2)):
        np.savez_compressed(tmp_path / f"{split}.npz", video=np.stack([tinted(n, 8) for n in range(count)]))
    data = ready(tmp_path, frame_rate=10)  # arrays have no times: every frame is kept
    assert sources(data)["test"] == {"test.npz[0]", "test.npz[1]"}
    assert data.describe()["clips"] == {"train": 4, "val": 1, "test": 2}
    assert red_and_green(data.test_dataset[1]["video"]) == (1, [0, 1, 2, 3, 4])
    np.savez(tmp_path / "val.npz", other=np.zeros(3))
    with (
        pytest.warns(UserWarning, match=r"val\.npz: .*video"),
        pytest.raises(UserError, match="every val clip in"),
    ):
        ready(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "no folder"),
        (lambda p: p, "no clips in"),
        (lambda p: write_clip(p / "a.mkv", tinted(0)), "is a file"),
        (lambda p: write_clip(p / "a.mkv", tinted(0)).parent, "too few to split off"),
        (
            lambda p: [write_clip(p / f"{n}.mkv", tinted(n, 4)) for n in range(5)] and p,
            "shorter than a window, 5 frames .the longest has 4",
        ),
        (lambda p: [(p / f"{n}.mp4").write_bytes(b"no") for n in range(5)] and p, "no readable clip"),
        (lambda p: write_clip(p / "test" / "a.mkv", tinted(0)).parent.parent, "no train"),
        (
            lambda p: (
                [write_clip(p / d / f"{n}.mkv", tinted(n)) for d in ("train", ".") for n in range(4)] and p
            ),
            "lies outside train",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_folder_that_cannot_serve_is_said_in_one_line(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        ready(make(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"size": 0}, "size"),
        ({"frame_rate": -1.0}, "frame_rate"),
        ({"stride": 0}, "stride"),
        ({"windows_per_clip": 0}, "windows_per_clip"),
        ({"on_broken": "ignore"}, "on_broken"),
        ({"val_fraction": 1.0}, "val_fraction"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, settings: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        ready(folder, **settings)


def test_a_set_too_large_for_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_ebm.data.loading.MEMORY_SHARE", 1e-9)
    with pytest.raises(UserError, match="cache to false"):
        ready(folder)
    ready(folder, cache=False)


def test_settings_can_come_from_a_file_and_unknown_ones_are_refused(folder: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(VideoFolder, "data")
    parsed = parser.parse_object({"data": {"folder": str(folder), "size": [24, 32], "grayscale": True}})
    data = parser.instantiate(parsed).data
    assert data.frame_shape == (1, 24, 32)
    with pytest.raises(Exception, match="sise"):
        parser.parse_object({"data": {"folder": str(folder), "sise": 3}})


def test_real_sets_keep_groups_apart(shared_data: Path) -> None:
    """Train and test as their folders say, validation without a recording of training."""
    root = shared_data / "video" / "weizmann_actions"
    data = VideoFolder(str(root), size=32)
    data.setup()
    with (root / "clips.csv").open() as file:
        group = {row["path"]: row["group"] for row in csv.DictReader(file)}
    split = sources(data)
    assert split["test"] == {name for name in group if name.startswith("test/")}
    assert data.classes == ["bend", "jack", "wave1", "wave2"]
    train, val = ({group[name] for name in split[s]} for s in ("train", "val"))
    assert train
    assert val
    assert not train & val


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_files_with_a_damaged_one_among_them(shared_data: Path) -> None:
    data = VideoFolder(str(shared_data / "video" / "originals"), size=32, context_frames=2)
    data.setup()
    described = data.describe()
    assert [name.split(":")[0] for name in described["skipped_broken"]] == ["decord_corrupted.mp4"]
    assert sum(described["clips"].values()) == 12
    batch = next(iter(data.train_dataloader()))
    assert batch["video"].shape == (32, 3, 3, 32, 32)
    assert batch["video"].std() > 0.1


def test_real_sprites(shared_data: Path) -> None:
    root = shared_data / "video" / "sprites"
    data = VideoFolder(str(root), context_frames=4, future_frames=4)
    data.setup("test")
    assert len(list(data.test_dataset)) == len(data.test_dataset) == 400
    with np.load(root / "test.npz") as arrays:
        truth = torch.from_numpy(arrays["video"][123]).permute(0, 3, 1, 2) / 255
    assert (data.test_dataset[123]["video"] == truth).all()


def test_a_group_that_is_given_to_a_file_of_arrays_holds_for_its_clips(tmp_path: Path) -> None:
    """Also over several files, and whatever groups a file has of its own."""
    group = {f"{number:02}.npz": f"g{number // 2}" for number in range(10)}
    for name in group:
        video = np.stack([tinted(1, 12)] * 3)
        np.savez_compressed(tmp_path / name, video=video, group=np.arange(3))
    (tmp_path / "clips.csv").write_text("path,group\n" + "".join(f"{a},{b}\n" for a, b in group.items()))
    split = sources(ready(tmp_path))
    sides = [{group[name.partition("[")[0]] for name in names} for names in split.values()]
    assert all(sides)
    assert sum(len(side) for side in sides) == 5
    assert sum(len(names) for names in split.values()) == 30


def test_files_of_arrays_are_not_held_unless_they_are_cached(tmp_path: Path) -> None:
    for number in range(12):
        video = np.repeat(np.stack([tinted(number, 12)] * 4), 4, axis=2)
        np.savez_compressed(tmp_path / f"{number:02}.npz", video=video)
    ready(tmp_path)  # imports
    _read_array.cache_clear()
    tracemalloc.start()
    data = ready(tmp_path, cache=False)
    _read_array.cache_clear()  # the last two
    assert tracemalloc.get_traced_memory()[0] < video.nbytes
    tracemalloc.stop()
    kept = ready(tmp_path, cache=True)
    assert torch.equal(data.train_dataset[0]["video"], kept.train_dataset[0]["video"])
