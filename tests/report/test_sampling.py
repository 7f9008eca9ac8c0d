"""Futures of a clip: from a checkpoint and a video file to an animation."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ssl_ebm.cli import main
from ssl_ebm.data.clips import load_clip
from ssl_ebm.evaluation.pictures import BORDER, CONTEXT, GAP, PREDICTED, SMALLEST_CELL
from ssl_ebm.report.sampling import sample_futures
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks import FramePrediction, load_task
from ssl_ebm.tasks.checkpoints import read_checkpoint

SIDE = 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model after two steps on moving digits of 32x32."""
    run_dir = tmp_path_factory.mktemp("run")
    arguments = ["--model.width", "8", "--model.codes", "4", "--data", "ssl_ebm.data.MovingDigits"]
    arguments += ["--data.batch_size", "2", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    arguments += ["--trainer.limit_val_batches", "0", "--run_dir", str(run_dir)]
    Run("fit", arguments).execute()
    return run_dir / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of 48x96 with a bright square that moves."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        for t in range(8):
            pixels = np.zeros((48, 96, 3), np.uint8)
            pixels[10:30, 30 + 2 * t : 50 + 2 * t] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    with Image.open(path) as image:
        pictures = []
        for index in range(image.n_frames):
            image.seek(index)
            pictures.append(np.asarray(image.convert("RGB")))
    return pictures


def cells_of(picture: NDArray[np.uint8], columns: int, rows: int) -> list[NDArray[np.uint8]]:
    """The frames of a grid of 32x32 cells, at their own size."""
    scale = -(-SMALLEST_CELL // SIDE)
    step = SIDE * scale + 2 * BORDER + GAP
    first = GAP + BORDER
    corners = [(first + r * step, first + c * step) for r in range(rows) for c in range(columns)]
    return [picture[y : y + SIDE * scale : scale, x : x + SIDE * scale : scale] for y, x in corners]


def close(colour: NDArray[np.uint8], expected: tuple[int, int, int]) -> bool:
    return bool(np.abs(colour.astype(int) - np.array(expected)).max() < 24)  # a GIF has few colours


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_context_then_futures(checkpoint: Path, clip: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "made" / f"futures.{suffix}"
    options = ["--samples", "6", "--horizon", "3", "--start", "2", "--seed", "5", "--out", str(out)]
    assert main(["sample", "--ckpt", str(checkpoint), "--input", str(clip), *options]) == 0

    pictures = frames_of(out)
    model = load_task(checkpoint, FramePrediction)
    context = load_clip(clip, SIDE, grayscale=True, start=2, frames=4)
    futures = model.sample(context[None], 6, 3, torch.Generator().manual_seed(5))[0]
    assert len(pictures) == 4 + 3
    for t, picture in enumerate(pictures):
        assert close(picture[GAP, GAP], CONTEXT if t < 4 else PREDICTED)
        cells = cells_of(picture, columns=3, rows=2)
        for s, cell in enumerate(cells):
            expected = context[t, 0] if t < 4 else futures[s, t - 4, 0]
            difference = np.abs(cell.mean(-1) / 255 - expected.detach().numpy())
            assert difference.mean() < 0.03


def test_the_seed_decides(checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    def draw(name: str, seed: int) -> bytes:
        return sample_futures(checkpoint, clip, tmp_path / name, samples=4, horizon=2, seed=seed).read_bytes()

    assert draw("a.gif", 1) == draw("b.gif", 1)
    assert draw("a.gif", 1) != draw("c.gif", 2)


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"frame_rate": "fast"}, "its clips have 'fast' frames per second: give another"),
        ({"frame_rate": float("nan")}, "its clips have nan frames per second: give another"),
        ({"frame_shape": [1, 0, 16]}, "its frames have the shape [1, 0, 16]: give --size"),
        ({"frame_shape": 16}, "its frames have the shape 16: give --size"),
    ],
)
def test_a_wrong_description_of_the_data_is_named(
    checkpoint: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    described: dict[str, Any],
    says: str,
) -> None:
    """As a checkpoint of a stranger may have it, or a damaged one."""
    content = read_checkpoint(checkpoint)
    content["data"] |= described
    torch.save(content, tmp_path / "wrong.ckpt")
    words = ["--ckpt", str(tmp_path / "wrong.ckpt"), "--input", str(clip), "--out", str(tmp_path / "out.gif")]
    assert main(["sample", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "out.gif").exists()


def test_mistakes_are_named(
    checkpoint: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    good = {"--ckpt": str(checkpoint), "--input": str(clip), "--out": str(tmp_path / "out.gif")}
    for change, word in [
        ({"--ckpt": "missing.ckpt"}, "missing.ckpt"),
        ({"--ckpt": str(clip)}, "clip.mp4 is no checkpoint"),
        ({"--input": "missing.mp4"}, "missing.mp4"),
        ({"--input": str(tmp_path / "text.mp4")}, "text.mp4"),
        ({"--start": "6"}, "has 8 frames"),
        ({"--samples": "0"}, "samples is 0"),
        ({"--horizon": "-1"}, "horizon is -1"),
        ({"--out": "out.mp4"}, "out.mp4"),
    ]:
        options = [text for option in (good | change).items() for text in option]
        assert main(["sample", *options]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert word in lines[0]
    assert not (tmp_path / "out.gif").exists()
