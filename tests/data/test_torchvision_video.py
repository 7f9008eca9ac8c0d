"""torchvision's layouts, against torchvision's own lists and classes on tiny sets."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from encoded_clips import shades, write_clip
from torchvision import datasets

from ssl_ebm.data import TorchvisionVideo
from ssl_ebm.errors import UserError

SIZE: dict[str, Any] = {"size": 16, "context_frames": 2, "future_frames": 1}


def ready(name: Any, root: Path, **settings: Any) -> TorchvisionVideo:
    data = TorchvisionVideo(name, str(root), **(SIZE | settings))
    data.setup()
    return data


def files(data: TorchvisionVideo, *splits: str) -> set[str]:
    return {Path(clip.name).name for split in splits for clip in getattr(data, f"{split}_dataset").clips}


def test_moving_mnist_gives_torchvisions_clips(tmp_path: Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (20, 10, 64, 64), np.uint8)
    (tmp_path / "MovingMNIST").mkdir()
    np.save(tmp_path / "MovingMNIST" / "mnist_test_seq.npy", video)
    reference = datasets.MovingMNIST(tmp_path)
    data = ready(
        "MovingMNIST", tmp_path, size=64, grayscale=True, context_frames=10, future_frames=10, cache=False
    )
    seen = []
    for split, count in (("train", 7), ("val", 1), ("test", 2)):
        dataset = getattr(data, f"{split}_dataset")
        assert len(dataset) == count
        for index in range(count):
            number = int(dataset.clips[index].name.split()[1])
            assert (dataset[index]["video"] * 255 == reference[number]).all()
            seen.append(number)
    assert sorted(seen) == list(range(10))
    colour = ready("MovingMNIST", tmp_path, size=32)
    assert colour.test_dataset[0]["video"].shape == (3, 3, 32, 32)
    assert colour.test_dataset[0]["video"].mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Two classes, six recordings of two clips each; recordings 1 and 2 are test in fold 1."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for name in ("Archery", "Biking"):
        for group in range(1, 7):
            for clip in (1, 2):
                file = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
                write_clip(tmp_path / "clips" / file, shades(6, 32, 32))
                lists["test" if group < 3 else "train"].append(file)
    (tmp_path / "lists").mkdir()
    numbered = [f"{file} {1 + file.startswith('B')}" for file in lists["train"]]
    (tmp_path / "lists" / "trainlist01.txt").write_text("\r\n".join(numbered) + "\r\n")
    (tmp_path / "lists" / "testlist01.txt").write_text("\n".join(lists["test"]) + "\n")
    return tmp_path


def torchvisions_choice(cls: Any, root: Path, annotations: Path, train: bool) -> set[str]:
    """The files that torchvision's class would choose, by its own code."""
    paths = [path for path, _ in datasets.folder.make_dataset(str(root), extensions=(".avi",))]
    shell = SimpleNamespace(root=str(root), TRAIN_TAG=1, TEST_TAG=2)
    return {Path(paths[i]).name for i in cls._select_fold(shell, paths, str(annotations), 1, train)}


def test_ucf101_has_torchvisions_split_and_keeps_recordings_together(ucf: Path) -> None:
    data = ready("UCF101", ucf / "clips", annotations=str(ucf / "lists"))
    for splits, train in ((("test",), False), (("train", "val"), True)):
        chosen = torchvisions_choice(datasets.UCF101, ucf / "clips", ucf / "lists", train)
        assert chosen
        assert files(data, *splits) == chosen
    recordings = [{name[:-8] for name in files(data, split)} for split in ("train", "val")]
    assert recordings[1]
    assert not recordings[0] & recordings[1]
    assert data.classes == ["Archery", "Biking"]
    for item in (data.test_dataset[i] for i in range(len(data.test_dataset))):
        assert data.classes[item["label"]] in data.test_dataset.clips[item["clip"]].name


def test_hmdb51_has_torchvisions_split(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for name in ("clap", "wave"):
        lines = []
        for clip in range(9):
            write_clip(tmp_path / "clips" / name / f"film{clip}_{name}_0.avi", shades(6, 32, 32))
            lines.append(f"film{clip}_{name}_0.avi {(1, 1, 2, 0, 1, 1, 2, 1, 1)[clip]} ")
        (tmp_path / "lists" / f"{name}_test_split1.txt").write_text("\n".join(lines))
        (tmp_path / "lists" / f"{name}_test_split2.txt").write_text("")
    data = ready("HMDB51", tmp_path / "clips", annotations=str(tmp_path / "lists"))
    for splits, train in ((("test",), False), (("train", "val"), True)):
        chosen = torchvisions_choice(datasets.HMDB51, tmp_path / "clips", tmp_path / "lists", train)
        assert files(data, *splits) == chosen
    assert len(files(data, "train", "val", "test")) == 16  # two clips of 18 are in neither list


def test_hmdb51_keeps_clips_of_one_video_together(tmp_path: Path) -> None:
    """Five films with two clips of each of two classes; and videos whose clips do not name their class."""
    source = {}
    (tmp_path / "lists").mkdir()
    for name in ("ride_bike", "walk"):
        own = {
            f"{film}_{name}_f_nm_np1_fr_med_{clip}.avi": film
            for film in ("Day_of_walk_1", "Two_towns", "A_walk_home", "Rain", "Tea_4")
            for clip in range(2)
        }
        if name == "walk":
            own |= {f"Other_{film}_{clip}.avi": f"Other_{film}" for film in range(4) for clip in range(3)}
        for file in own:
            write_clip(tmp_path / "clips" / name / file, shades(6, 16, 16))
        lines = [f"{file} 1\n" for file in own]
        (tmp_path / "lists" / f"{name}_test_split1.txt").write_text("".join(lines))
        source |= own
    for seed in range(4):
        data = ready(
            "HMDB51", tmp_path / "clips", annotations=str(tmp_path / "lists"), val_fraction=0.3, seed=seed
        )
        sides = [{source[name] for name in files(data, split)} for split in ("train", "val", "test")]
        assert len(files(data, "train", "val", "test")) == len(source)
        assert sum(map(len, sides)) == len(set().union(*sides)) == 9


def test_kinetics_takes_splits_and_classes_from_folders(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for name in ("abseiling", "zumba"):
            for clip in range(count):
                write_clip(tmp_path / split / name / f"{split}{clip}.mp4", shades(6, 32, 32))
    data = ready("Kinetics", tmp_path)
    assert data.describe()["clips"] == {"train": 6, "val": 2, "test": 4}
    assert torch.bincount(torch.stack([item["label"] for item in list(data.test_dataset)[:8]])).tolist() == [
        4,
        4,
    ]
    write_clip(tmp_path / "zumba" / "lost.mp4", shades(6, 32, 32))
    with pytest.raises(UserError, match=r"lost\.mp4 is not in"):
        ready("Kinetics", tmp_path)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("MovingMNIST", {}, r"put mnist_test_seq\.npy there"),
        ("UCF101", {}, "set annotations"),
        ("HMDB51", {"annotations": "/nowhere", "fold": 4}, "folds 1, 2 and 3"),
        ("Kinetics", {}, "no clips in"),
        ("Charades", {}, "use MovingMNIST"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        ready(name, tmp_path, **settings)
    assert "\n" not in str(error.value)


def test_lists_that_are_missing_or_name_other_clips_are_said(ucf: Path) -> None:
    with pytest.raises(UserError, match=r"no trainlist02\.txt"):
        ready("UCF101", ucf / "clips", annotations=str(ucf / "lists"), fold=2)
    for path in (ucf / "lists").iterdir():
        path.write_text("Archery/v_Archery_g99_c99.avi 1\n")
    with pytest.raises(UserError, match="is named by the lists"):
        ready("UCF101", ucf / "clips", annotations=str(ucf / "lists"))


def test_an_empty_file_and_a_list_that_is_cut_are_said(tmp_path: Path) -> None:
    (tmp_path / "MovingMNIST").mkdir()
    (tmp_path / "MovingMNIST" / "mnist_test_seq.npy").touch()
    with pytest.raises(UserError, match=r"mnist_test_seq\.npy cannot be read"):
        ready("MovingMNIST", tmp_path)
    write_clip(tmp_path / "clips" / "run" / "a_run_1.avi", shades(6, 32, 32))
    (tmp_path / "run_test_split1.txt").write_text("b_run_1.avi 1\na_run_1.avi")
    with pytest.raises(UserError, match=r"no number after a_run_1\.avi: copy the official ones"):
        ready("HMDB51", tmp_path / "clips", annotations=str(tmp_path))
