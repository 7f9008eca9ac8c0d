"""A start that is refused leaves the folder of an earlier run as it was, to the byte."""

import hashlib
from pathlib import Path

import pytest
import torch
from tiny_runs import FAST, RUNS, described, tiny_run

from ssl_ebm.cli import main


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
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00 : [")
    init = "class_path: ssl_ebm.tasks.MaskedText\n  init_args:\n    lr: null\n"
    (folder / "null.yaml").write_text(f"model:\n  {init}")
    (folder / "stranger.yaml").write_text("model:\n  class_path: os.system\n")
    (folder / "document.txt").write_bytes(b"good\n\xff\xfe bad\n" * 50)
    (folder / "tokenizer.json").write_text("{")
    torch.save({"state_dict": {}, "more": Stranger()}, folder / "stranger.ckpt")
    (folder / "broken").mkdir()
    for number in range(3):
        (folder / "broken" / f"{number}.png").write_bytes(b"no picture")
        (folder / "broken" / f"{number}.mp4").write_bytes(b"no clip")
    (folder / "idx").mkdir()
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / "idx" / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    return folder


NETWORK = described(
    "ssl_ebm.networks.completion.ConvolutionalCompletion", channels=3, parts=4, width=8, levels=1
)
PICTURES = ["--model", "ssl_ebm.tasks.Inpainting", "--model.network", NETWORK, *FAST]
FAULTS = {
    "config that is no text": ["--config", "{}/bytes.yaml"],
    "null": ["--config", "{}/null.yaml", "TEXT"],
    "config of a stranger": ["--config", "{}/stranger.yaml", "TEXT"],
    "document": ["TEXT", "--data.path", "{}/document.txt"],
    "tokenizer": ["TEXT", "--data.tokenizer", "{}/tokenizer.json"],
    "dataset that is not there": ["TEXT", "--data.path", "hf://none/there"],
    "checkpoint of another task": ["TEXT", "--ckpt_path", "{}/pictures/checkpoints/last.ckpt"],
    "no checkpoint": ["TEXT", "--ckpt_path", "{}/none.ckpt"],
    "checkpoint of other settings": ["WIDER", "--ckpt_path", "{}/text/checkpoints/last.ckpt"],
    "checkpoint of a stranger": ["TEXT", "--ckpt_path", "{}/stranger.ckpt"],
    "pictures": ["--data", "ssl_ebm.data.ImageFolder", "--data.folder", "{}/broken", *PICTURES],
    "files of MNIST's format": ["--data", "ssl_ebm.data.IdxImages", "--data.folder", "{}/idx", *PICTURES],
    "clips": ["--data", "ssl_ebm.data.VideoFolder", "--data.folder", "{}/broken", *FAST],
    "batch": ["--data", "ssl_ebm.data.MovingDigits", "--data.batch_size", "1000000000", *FAST],
}


def content_of(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refused_start_leaves_the_run_as_it_was(
    fault: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = [*RUNS["text"](place), *FAST]
    wider = [word.replace('"width": 16', '"width": 24') for word in text]
    words: list[str] = []
    for word in FAULTS[fault]:
        words += {"TEXT": text, "WIDER": wider}.get(word, [word.replace("{}", str(place))])
    before = content_of(place / "text")
    assert {Path(name).name for name in before} >= {"last.ckpt", "config.yaml", "run.json"}
    assert main(["fit", *words, "--run_dir", str(place / "text")]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("ssl-ebm: error: ")
    assert "it ran" not in said.out
    assert content_of(place / "text") == before
