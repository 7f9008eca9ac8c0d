"""A start that is refused leaves the folder of an earlier run as it was, to the byte."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sharded_folders import pack, sign, write_clips, write_pictures
from tiny_runs import FAST, RUNS, described, tiny_run

from ssl_ebm.cli import main
from ssl_ebm.data.shards.tables import CLIP


class Stranger:
    """Would run code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, and what is wrong with what they might be given."""
    folder = tmp_path_factory.mktemp("refused")
    for name in ("text", "pictures"):
        tiny_run(name, folder)
    (folder / "text" / "probe_knn.json").write_text("[]")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00 : [")
    init = "class_path: ssl_ebm.tasks.MaskedText\n  init_args:\n    lr: null\n"
    (folder / "null.yaml").write_text(f"model:\n  {init}")
    (folder / "stranger.yaml").write_text("model:\n  class_path: os.system\n")
    (folder / "document.txt").write_bytes(b"good\n\xff\xfe bad\n" * 50)
    (folder / "tokenizer.json").write_text("{")
    torch.save({"state_dict": {}, "more": Stranger()}, folder / "stranger.ckpt")
    write_pictures(folder / "some")
    (folder / "some" / "class0" / "000.png").write_bytes(b"no picture")
    (folder / "some" / "class1" / "001.png").write_bytes(b"no picture")
    (folder / "broken").mkdir()
    for number in range(3):
        (folder / "broken" / f"{number}.png").write_bytes(b"no picture")
        (folder / "broken" / f"{number}.mp4").write_bytes(b"no clip")
    pack(write_pictures(folder / "whole"), folder / "shards")
    (folder / "shards" / "shards.json").write_bytes(pickle.dumps(Stranger()))
    misleading = folder / "misleading"
    pack(write_clips(folder / "clips"), misleading, kind="clips")
    clips = np.fromfile(misleading / "clips.bin", CLIP)
    clips["frames"] += 1000
    clips.tofile(misleading / "clips.bin")
    sign(misleading)
    (folder / "idx").mkdir()
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / "idx" / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    return folder


NETWORK = described(
    "ssl_ebm.networks.completion.ConvolutionalCompletion", channels=3, parts=4, width=8, levels=1
)
DIGITS = ["--data", "ssl_ebm.data.MovingDigits"]
FOLDER, CLIPS, MNIST = (
    ["--data", f"ssl_ebm.data.{name}", "--data.folder"]
    for name in ("ImageFolder", "VideoFolder", "IdxImages")
)
PICTURES = ["--model", "ssl_ebm.tasks.Inpainting", "--model.network", NETWORK, *FAST]
UNTRIED = ["--trainer.num_sanity_val_steps", "0"]
PROBE = described(
    "ssl_ebm.evaluation.KNNProbe",
    data={"class_path": "ssl_ebm.data.FontDigits", "init_args": {"train_images": 20, "val_images": 10}},
)
FAULTS = {  # what is said, and what is given; TEXT: the settings of the run, WIDER: with a wider network
    "config that is no text": ("is not UTF-8", ["--config", "{}/bytes.yaml"]),
    "null": ("model.lr is null", ["--config", "{}/null.yaml", "TEXT"]),
    "config of a stranger": ("names os.system", ["--config", "{}/stranger.yaml", "TEXT"]),
    "document": ("document.txt is not UTF-8", ["TEXT", "--data.path", "{}/document.txt"]),
    "tokenizer": ("is no tokenizer.json", ["TEXT", "--data.tokenizer", "{}/tokenizer.json"]),
    "dataset that is not there": ("cannot read the dataset", ["TEXT", "--data.path", "hf://none/there"]),
    "checkpoint of another task": (
        "is a checkpoint of Inpainting",
        ["TEXT", "--ckpt_path", "{}/pictures/checkpoints/last.ckpt"],
    ),
    "no checkpoint": ("no checkpoint at", ["TEXT", "--ckpt_path", "{}/none.ckpt"]),
    "checkpoint of other settings": (
        "was written with other settings",
        ["WIDER", "--ckpt_path", "{}/text/checkpoints/last.ckpt"],
    ),
    "checkpoint of a stranger": ("is no checkpoint", ["TEXT", "--ckpt_path", "{}/stranger.ckpt"]),
    "pictures": ("0.png cannot be read", [*FOLDER, "{}/broken", *PICTURES]),
    "more broken pictures than may be": (
        "2 of 16 files",
        [*FOLDER, "{}/some", "--data.max_broken", "0.1", *PICTURES],
    ),
    "shards of a stranger": ("shards.json is damaged", [*FOLDER, "{}/shards", *PICTURES]),
    "shards whose index misleads": ("and other times", [*CLIPS, "{}/misleading", *FAST]),
    "files of MNIST's format": ("as an MNIST file", [*MNIST, "{}/idx", *PICTURES]),
    "clips": ("no readable clip", [*CLIPS, "{}/broken", *FAST]),
    "data of another task": ("needs 'image'", [*DIGITS, "--data.train_clips", "8", *PICTURES]),
    "data of another task, after no validation": (
        "needs 'image'",
        [*DIGITS, "--data.train_clips", "8", *PICTURES, *UNTRIED, f"--trainer.callbacks=[{PROBE}]"],
    ),
    "data that are no batches of this package": (
        "the data give a list",
        ["--data", "toy_task.ToyData", *PICTURES, *UNTRIED],
    ),
    "second derivatives of what is compiled": (
        "needs second derivatives",
        [*RUNS["energy"](Path()), *FAST, "--compile", "inductor"],
    ),
    "no stages": (
        "has none: leave it out",
        ["--model", "toy_task.ToyTask", "--data", "toy_task.ToyData", "--activation_checkpointing", "true"],
    ),
    "batch": ("lower batch_size", [*DIGITS, "--data.batch_size", "1000000000", *FAST]),
}


def content_of(folder: Path) -> dict[str, str]:
    """Of files; of folders nothing, but that they are there."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refused_start_leaves_the_run_as_it_was(
    fault: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = [*RUNS["text"](place), *FAST]
    wider = [word.replace('"width": 16', '"width": 24') for word in text]
    says, given = FAULTS[fault]
    words: list[str] = []
    for word in given:
        words += {"TEXT": text, "WIDER": wider}.get(word, [word.replace("{}", str(place))])
    before = content_of(place / "text")
    assert {Path(name).name for name in before} >= {"last.ckpt", "config.yaml", "run.json"}
    assert main(["fit", *words, "--run_dir", str(place / "text")]) == 2
    said = capsys.readouterr()
    line = said.err.splitlines()[-1]
    assert line.startswith("ssl-ebm: error: ")
    assert says in line
    assert "it ran" not in said.out
    assert content_of(place / "text") == before
