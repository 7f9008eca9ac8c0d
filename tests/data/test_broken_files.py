"""Files that cannot be read are left out up to a share of all; with one more, training stops."""

from pathlib import Path
from typing import Any

import pytest
from encoded_clips import shades, write_clip
from PIL import Image
from sharded_folders import pack, write_pictures
from tiny_runs import described

from ssl_ebm.cli import main
from ssl_ebm.data import ImageFolder, TorchvisionImages, VideoFolder, video
from ssl_ebm.data.clips import ArrayClip, Clip
from ssl_ebm.data.decoding import BrokenClipError
from ssl_ebm.errors import UserError

BROKEN = (2, 5, 6)  # of ten
JUST_ENOUGH, TOO_LITTLE = 0.3, 0.29
REMEDY = "see whether their disk can be read, copy them again, or raise max_broken"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures to train on, three of which are none; two whole ones for each other split."""
    for split, count in (("train", 10), ("val", 2), ("test", 2)):
        (tmp_path / split).mkdir()
        for number in range(count):
            Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(tmp_path / split / f"{number}.png")
    for number in BROKEN:
        (tmp_path / "train" / f"{number}.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for split, count in (("train", 10), ("val", 1), ("test", 1)):
        (tmp_path / split).mkdir()
        for number in range(count):
            write_clip(tmp_path / split / f"{number}.mkv", shades(6, 16, 16))
    return tmp_path


def of_clips(folder: Path, **settings: Any) -> VideoFolder:
    return VideoFolder(str(folder), size=16, context_frames=2, batch_size=1, **settings)


def stopped(error: UserError) -> str:
    said = str(error)
    assert "\n" not in said
    assert said.endswith(REMEDY)
    return said


@pytest.mark.filterwarnings("ignore:.*skipped 3 image")
def test_pictures_in_memory(pictures: Path) -> None:
    data = ImageFolder(str(pictures), size=4, max_broken=JUST_ENOUGH)
    data.setup()
    assert len(data.train_dataset) == 7
    assert len(data.broken) == 3
    with pytest.raises(UserError, match=r"3 of 10 files in .* more than max_broken \(0\.29\)") as error:
        ImageFolder(str(pictures), size=4, max_broken=TOO_LITTLE).setup()
    assert "train/2.png cannot be read (it is no picture); train/5.png" in stopped(error.value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*the next picture takes its place")
def test_pictures_read_on_demand(pictures: Path, workers: int) -> None:
    """A worker's count reaches the process that it works for; what was met before counts once."""
    settings: dict[str, Any] = {"size": 4, "in_memory": False, "batch_size": 1, "workers": workers}
    data = ImageFolder(str(pictures), max_broken=JUST_ENOUGH, **settings)
    for _ in range(2):
        assert len(list(data.train_dataloader())) == 10
    assert data.broken == [f"train/{number}.png" for number in BROKEN]
    few = ImageFolder(str(pictures), max_broken=TOO_LITTLE, **settings)
    with pytest.raises(
        UserError, match=r"^3 of 10 files in .*: train/2\.png; train/5\.png; train/6"
    ) as error:
        list(few.train_dataloader())
    stopped(error.value)


@pytest.mark.filterwarnings("ignore:.*the next picture takes its place")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_name_with_a_line_break_cuts_no_message(pictures: Path, workers: int) -> None:
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        if number < 9:
            path.unlink()
            path.with_name(f"two\nlines {number}.png").write_bytes(b"broken")
    data = ImageFolder(
        str(pictures), size=4, in_memory=False, batch_size=2, workers=workers, on_broken="stop"
    )
    data.setup("fit")
    with pytest.raises(UserError, match=r"(?s)^.*two\nlines \d\.png cannot be read .* copy it again$"):
        list(data.train_dataloader())


def test_a_training_stops_with_one_line(pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = described(
        "ssl_ebm.networks.completion.ConvolutionalCompletion", channels=3, parts=4, width=8, levels=1
    )
    words = [
        *("--model", "ssl_ebm.tasks.Inpainting", "--model.network", network),
        *("--data", "ssl_ebm.data.ImageFolder", "--data.size", "16"),
        *("--data.folder", str(pictures), "--data.in_memory", "false", "--data.workers", "1"),
        *("--data.batch_size", "2", "--trainer.max_steps", "50", "--trainer.accelerator", "cpu"),
        *("--run_dir", str(pictures.parent / "run"), "--data.max_broken", str(TOO_LITTLE)),
    ]
    assert main(["fit", *words]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "3 of 10 files in" in said.splitlines()[-1]


def test_imagenet_has_the_setting(tmp_path: Path) -> None:
    for number in range(6):
        place = tmp_path / "train" / "n1"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.JPEG").write_bytes(b"no picture")
    data = TorchvisionImages("ImageNet", str(tmp_path), max_broken=0.5)
    with (
        pytest.warns(UserWarning, match="takes its place"),
        pytest.raises(UserError, match=r"^3 of 5 files in .* more than max_broken \(0\.5\)"),
    ):
        data.train_dataloader().dataset[0]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.filterwarnings("ignore:.*skipped 3 clip")
def test_clips_when_they_are_opened(clips: Path, cache: bool) -> None:
    """Of all splits together: they are opened before they are shared out."""
    for number in BROKEN:
        (clips / "train" / f"{number}.mkv").write_bytes(b"no clip")
    data = of_clips(clips, cache=cache, max_broken=3 / 12)
    data.setup()
    assert [name.split(":")[0] for name in data.broken] == [f"train/{number}.mkv" for number in BROKEN]
    with pytest.raises(UserError, match=r"^3 of 12 files in .* max_broken \(0\.24\).*train/2\.mkv") as error:
        of_clips(clips, cache=cache, max_broken=0.24).setup()
    stopped(error.value)


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_clips_that_are_opened_but_not_decoded_count_as_well(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of twelve cannot be opened, one is too short, and one cannot be decoded: three are broken."""
    for number in BROKEN[:2]:
        (clips / "train" / f"{number}.mkv").write_bytes(b"no clip")
    write_clip(clips / "train" / "0.mkv", shades(2, 16, 16))

    def decoded(clip: Clip) -> ArrayClip:
        if clip.name == "train/6.mkv":
            raise BrokenClipError("cut off")
        return ArrayClip(clip.name, clip.read(0, clip.frames))

    monkeypatch.setattr(video, "_in_memory", decoded)
    of_clips(clips, max_broken=3 / 12).setup()
    with pytest.raises(UserError, match=r"^3 of 12 files in"):
        of_clips(clips, max_broken=0.24).setup()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*the next clip takes its place")
def test_clips_that_break_while_training(clips: Path, workers: int) -> None:
    settings: dict[str, Any] = {"cache": False, "workers": workers}
    data, few = (of_clips(clips, max_broken=most, **settings) for most in (JUST_ENOUGH, TOO_LITTLE))
    for one in (data, few):
        one.setup()
    for number in BROKEN:
        (clips / "train" / f"{number}.mkv").unlink()
    for _ in range(2):
        assert len(list(data.train_dataloader())) == 20
    assert data.broken == data.describe()["skipped_broken"] == [f"train/{number}.mkv" for number in BROKEN]
    with pytest.raises(UserError, match=r"^3 of 10 files in .*: train/2\.mkv; train/5\.mkv; tra") as error:
        list(few.train_dataloader())
    stopped(error.value)


def test_files_of_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is packed before the command stops stays, and counts when it goes on with another share."""
    folder = write_pictures(tmp_path / "pictures", 30)
    for name in ("class0/000.png", "class2/029.png"):
        (folder / name).write_bytes(b"no picture")
    out = tmp_path / "out"
    words = ["shard", str(folder), str(out), "--max_broken"]
    with pytest.raises(UserError, match=r"^2 of 30 files in .* max_broken \(0\.05\) allows: class0/000.png"):
        pack(folder, out, max_broken=0.05)
    whole = {path.name for path in out.glob("shard-*.tar")}
    assert whole
    with pytest.raises(UserError, match=r"^2 of 30 files in"):  # one of them is in a shard that is there
        pack(folder, out, max_broken=0.06)
    assert len(pack(folder, out, max_broken=2 / 30).broken) == 2
    with pytest.raises(UserError, match=r"^2 of 30 files in"):  # of shards that were made before
        pack(folder, out, max_broken=0.05)
    assert main(["shard", str(folder), str(tmp_path / "more"), "--max_broken", "0.05"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "2 of 30 files in" in said
    assert main([*words, "0"]) == 2
    assert "max_broken is 0.0: use a share" in capsys.readouterr().err


def test_a_long_text_in_parts_counts_as_one_file(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("good\n" * 3000)
    (tmp_path / "texts" / "b.txt").write_bytes(b"bad\n\xff\xfe\n" * 1500)
    with pytest.raises(UserError, match=r"^1 of 2 files in .* allows: b\.txt is not UTF-8"):
        pack(tmp_path / "texts", tmp_path / "out", most=4000, max_broken=0.4)
    assert pack(tmp_path / "texts", tmp_path / "out", most=4000, max_broken=0.5).items > 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_shares_that_are_none(share: float) -> None:
    for make in (ImageFolder, VideoFolder):
        with pytest.raises(
            UserError, match=r"max_broken is .*: use a share of the files above 0 and up to 1"
        ):
            make("anywhere", max_broken=share)


def test_no_more_than_ten_are_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for number in range(20):
            Image.new("L", (4, 4)).save(tmp_path / split / f"{number:02}.png")
    for number in range(15):
        (tmp_path / "train" / f"{number:02}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"15 of 20 files .*; and 5 more: see whether") as error:
        ImageFolder(str(tmp_path), size=4, max_broken=0.5).setup()
    assert str(error.value).count("it is no picture") == 10
