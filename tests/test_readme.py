"""Every command and every line of Python in the README runs, with sizes made small."""

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from encoded_clips import write_clip
from image_files import write_idx_folder
from PIL import Image

from ssl_ebm.cli import main

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
SMALL = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]
SMALL_WORLD = ["--data.train_clips", "64", "--data.val_clips", "16", "--data.test_clips", "48"]
SMALL_COMPARISON = ["--clips", "12", "--samples", "20", "--seeds", "0"]
# Comparisons of several seeds: tests/report/test_compare.py.
# What each command is given beside the README's arguments, so that it takes seconds.
EXTRA = {
    "fit": SMALL,
    "compare": [*SMALL, *SMALL_COMPARISON],
    "sample": ["--horizon", "2"],
    "finetune": ["--steps", "2"],
    "representations": [  # frames have probes of 4,096 pixels, which take minutes
        *("--tasks", "images", "text", "--steps_share", "0.002", "--seeds", "0"),
        *("--labels", "0.2", "0.5", "1"),
    ],
    "density": [*SMALL, "--model.sample_steps", "8", "--data.batch_size", "8"],
    "own task": [*SMALL, "--data.batch_size", "16"],
    "lecture": ["--seeds", "0"],
    "scripts/quickstart.sh": [*SMALL, *SMALL_WORLD, *SMALL_COMPARISON],
    "scripts/launch_multi_gpu.sh": SMALL,
}
RUN_BY_CI = {"scripts/test.sh"}  # this very run


def commands() -> list[list[str]]:
    """The command lines of the README's code blocks, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|((?:^    .*\n)+)", README, re.M | re.S)
    lines = "".join(fenced or indented for fenced, indented in blocks).replace("\\\n", " ").splitlines()
    inline = [command for command in re.findall(r"`([^`\n]+)`", README) if command.endswith(".yaml")]
    called = [line.strip() for line in [*lines, *inline] if re.match(r"\s*(ssl-ebm|scripts/\w+\.sh)\b", line)]
    return [shlex.split(line, comments=True) for line in called]


def python() -> list[str]:
    """The blocks of Python, the first of which is a module."""
    return re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def test_the_commands_are_found() -> None:
    programs = [words[0] for words in commands()]
    assert {"ssl-ebm", "scripts/quickstart.sh", "scripts/test.sh", "scripts/launch_multi_gpu.sh"} <= set(
        programs
    )
    assert len(programs) >= 6


@pytest.fixture
def place(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a fresh clone, with clips in it, where the README's relative paths mean something."""
    (tmp_path / "configs").symlink_to(repository / "configs")
    noise = np.random.default_rng(0)
    for number in range(6):
        frames = noise.integers(0, 255, (24, 72, 96, 3), dtype=np.uint8)
        write_clip(tmp_path / "DIR" / f"clip{number}.mp4", frames, rate=10)
    (tmp_path / "CLIP.mp4").symlink_to(tmp_path / "DIR" / "clip0.mp4")
    images = {part: noise.integers(0, 255, (96, 28, 28), dtype=np.uint8) for part in ("train", "t10k")}
    write_idx_folder(tmp_path / "FASHION_MNIST", images)
    (tmp_path / "PICTURES").mkdir()
    for number in range(120):
        pixels = noise.integers(0, 255, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "PICTURES" / f"{number:03}.png")
    for number in range(120):
        folder = tmp_path / "CLASSES" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.png").symlink_to(tmp_path / "PICTURES" / f"{number:03}.png")
    (tmp_path / "photo.png").symlink_to(tmp_path / "PICTURES" / "000.png")
    hole = np.zeros((36, 40), np.uint8)
    hole[8:20, 8:20] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    (tmp_path / "DOCUMENTS").mkdir()
    words = ["".join(noise.choice(list("abcdefghiklmnoprstu"), 6)) for _ in range(5000)]
    texts = [" ".join(noise.choice(words, 30)) for _ in range(1500)]
    (tmp_path / "DOCUMENTS" / "a.txt").write_text("\n\n".join([*texts, "the film was very good"]))
    rows = [f"{text},{'good' if number % 2 else 'bad'}" for number, text in enumerate(texts[:90])]
    (tmp_path / "REVIEWS.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "train_mine.py").write_text(python()[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_run(place: Path, repository: Path) -> None:
    for words in commands():
        program, arguments = words[0], words[1:]
        if program in RUN_BY_CI:
            continue
        if program == "ssl-ebm":
            kind = "density" if any("configs/density" in word for word in arguments) else arguments[0]
            kind = "own task" if "train_mine.Rotations" in arguments else kind
            assert main([*arguments, *EXTRA.get(kind, [])]) == 0, words
            continue
        if "quickstart" in program:
            arguments = [*arguments, "--out", str(place / "runs" / "quickstart")]
        arguments = [
            word.replace("FILE.yaml", "configs/frame_prediction/quickstart_latent_ebm.yaml")
            for word in arguments
        ]
        arguments = ["2" if word == "8" else word for word in arguments]  # processes
        done = subprocess.run(
            [str(repository / program), *arguments, *EXTRA[program]],
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
    assert (place / "futures.gif").is_file()
    assert (place / "runs" / "quickstart" / "report.html").is_file()
    assert (place / "runs" / "my_clips" / "results.json").is_file()
    assert (place / "runs" / "fashion" / "report.html").is_file()
    assert (place / "runs" / "my_pictures" / "results.json").is_file()
    assert (place / "completed-4.png").is_file()
    assert (place / "mine.png").is_file()
    assert (place / "runs" / "bowl" / "report.html").is_file()
    assert (place / "runs" / "rotations" / "checkpoints" / "last.ckpt").is_file()
    assert (place / "runs" / "probe_of_mine" / "probe.html").is_file()
    assert (place / "encoder" / "model.safetensors").is_file()
    assert (place / "runs" / "tuned" / "predictions.pt").is_file()
    assert (place / "runs" / "tuned" / "predictions.csv").is_file()
    assert (place / "runs" / "from_scratch" / "finetuning.json").is_file()
    assert (place / "runs" / "tuned_after_adapting" / "finetuning.json").is_file()
    assert "gain" in json.loads((place / "runs" / "tuned_vectors" / "finetuning.json").read_text())["tf_idf"]
    assert (place / "runs" / "probe_of_a_layer" / "probe.html").is_file()
    assert (place / "runs" / "representations" / "representations.html").is_file()
    assert (place / "runs" / "documents" / "text_quality_test.json").is_file()
    assert "of test text" in (place / "runs" / "documents" / "report.html").read_text()

    # The Python of the README, with the models that the commands have trained.
    names = {"x": torch.rand(2, 4, 3, 64, 64), "y": torch.rand(2, 3, 64, 64)}
    represented, sizes = [], []
    _, *blocks = python()
    for code in blocks:
        with torch.no_grad():
            exec(code, names)  # the README's own lines
        represented.append(names["features"])
        if "encoder" in names:
            sizes.append(names["encoder"].features)
    assert len(represented) == 3
    assert torch.equal(*represented[:2])  # of the checkpoint, and of the exported file
    assert {tuple(one.shape[1:]) for one in names["found"]} == {(16 * 192,)}
    assert names["vectors"].shape == (2, 4 * 4 * 256)
    assert sizes == [128, 16 * 192]
    assert (place / "clips.md").is_file()
    assert (place / "documents.onnx").is_file()
    assert names["futures"].shape == (2, 16, 10, 3, 64, 64)
    assert names["score"].shape == (2,)
    assert names["features"].shape == (2, 128)


def test_every_fault_of_the_table_has_its_test(repository: Path) -> None:
    """All that a row names is collected by pytest, and no cell is empty."""
    table = README.partition("| fault |")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 20
    trees = [ast.parse(path.read_text()) for path in (repository / "tests").rglob("test_*.py")]
    collected = {one.name for tree in trees for one in tree.body if isinstance(one, ast.FunctionDef)}
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 4, row
        assert all(cells), row
        assert re.fullmatch(r"`test_\w+`(, `test_\w+`)*", cells[3]), row
        assert set(re.findall(r"\w+", cells[3])) <= collected, row
