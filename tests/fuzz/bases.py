"""What is damaged: small runs with their checkpoints and configs, pictures, clips, texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from encoded_clips import write_clip
from image_files import write_idx_folder
from numpy.typing import NDArray
from PIL import Image
from sharded_folders import pack
from tiny_runs import RUNS, tiny_run

from ssl_ebm.cli import main

TASKS = {
    "frames": "FramePrediction",
    "pictures": "Inpainting",
    "text": "MaskedText",
    "energy": "DensityEstimation",
}
SHARDED = ("images", "clips", "texts")
SENTENCES = [
    f'The naïve reader no. {i} said: "it is {word}, or not".' for i, word in enumerate("abcdefgh" * 5)
]


def smooth(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures (N, side, side, 3) without a black pixel."""
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, (side, side), mode="bilinear")
    made: NDArray[np.uint8] = (80 + 150 * large).byte().permute(0, 2, 3, 1).numpy()
    return made


def make(folder: Path) -> None:
    """Everything that the targets damage, below the folder."""
    for name in TASKS:
        assert name in RUNS
        checkpoint = tiny_run(name, folder / "runs")
        out = folder / "exported" / f"{name}.safetensors"
        assert main(["export", "--ckpt", str(checkpoint), "--format", "safetensors", "--out", str(out)]) == 0
    _pictures(folder / "pictures")
    _clips(folder / "clips")
    _texts(folder / "texts")
    _shards(folder)


def _pictures(folder: Path) -> None:
    folder.mkdir()
    picture = Image.fromarray(smooth(1, 32)[0])
    for end in ("png", "jpg", "webp", "bmp", "gif", "tif"):
        picture.save(folder / f"colour.{end}")
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.save(folder / "packed.tif", compression="tiff_lzw")
    picture.save(folder / "deflated.tif", compression="tiff_adobe_deflate")
    picture.convert("L").save(folder / "grey.png")
    picture.quantize(32).save(folder / "palette.png")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.png")
    picture.putalpha(
        Image.fromarray(np.where(np.arange(32)[:, None] < 8, 0, np.full((32, 32), 255)).astype(np.uint8))
    )
    picture.save(folder / "hole.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.convert("RGB").save(folder / "turned.jpg", exif=exif)
    grey = smooth(48, 28)[..., 0]
    write_idx_folder(folder / "idx", {"train": grey, "t10k": grey[:8]})


def _clips(folder: Path) -> None:
    folder.mkdir()
    frames = smooth(12, 32)
    for end in (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"):
        write_clip(folder / f"clip{end}", frames, rate=10)
    np.savez_compressed(folder / "arrays.npz", video=np.stack([frames] * 6), group=np.arange(6))
    np.savez(folder / "grey.npz", video=np.stack([frames[..., 0]] * 6))


def _texts(folder: Path) -> None:
    folder.mkdir()
    (folder / "plain.txt").write_text("\n\n".join(SENTENCES), encoding="utf-8")
    rows = [(text, "odd" if i % 2 else "even") for i, text in enumerate(SENTENCES)]
    quoted = ['"' + text.replace('"', '""') + f'",{label}' for text, label in rows]
    (folder / "table.csv").write_text("\n".join(["text,label", *quoted]), encoding="utf-8")
    (folder / "table.tsv").write_text("\n".join(["text\tlabel", *map("\t".join, rows)]), encoding="utf-8")
    lines = [
        json.dumps({"text": text, "label": label}, ensure_ascii=bool(i % 2))
        for i, (text, label) in enumerate(rows)
    ]
    (folder / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _shards(folder: Path) -> None:
    """Small folders, and shards of a few of their files each."""
    for kind in SHARDED:
        (folder / "packed" / kind).mkdir(parents=True)
    for number, picture in enumerate(smooth(12, 20)):
        place = folder / "packed" / "images" / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"{number}.{('png', 'jpg')[number % 2]}")
    for number, end in enumerate((".mp4", ".avi", ".gif", ".mkv", ".mp4", ".gif")):
        write_clip(folder / "packed" / "clips" / f"{number}{end}", smooth(8, 16, number), rate=10)
    np.savez(
        folder / "packed" / "clips" / "arrays.npz", video=np.stack([smooth(6, 16)] * 3), group=np.arange(3)
    )
    for number in range(2):
        text = "\n\n".join(SENTENCES[number::2])
        (folder / "packed" / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    for kind in SHARDED:
        pack(folder / "packed" / kind, folder / "shards" / kind, most=2_000, kind=kind)
