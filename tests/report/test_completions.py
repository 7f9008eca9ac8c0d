"""Inpainting from end to end at a tiny size: compare, inpaint, export."""

import json
import re
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssl_ebm.cli import main
from ssl_ebm.report.assessment import Protocol
from ssl_ebm.report.completions_page import render_completions
from ssl_ebm.report.inpaint import read_picture
from ssl_ebm.report.studies import CompletionStudy
from ssl_ebm.tasks import Inpainting, load_task
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import last_checkpoint

CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "ssl_ebm.tasks.Inpainting",
        "init_args": {
            "network": {
                "class_path": "ssl_ebm.networks.completion.ConvolutionalCompletion",
                "init_args": {"channels": 1, "parts": 4, "width": 8, "levels": 1, "features": 16},
            },
            "codes": 4,
        },
    },
    "data": {
        "class_path": "ssl_ebm.data.FontDigits",
        "init_args": {"size": 16, "train_images": 40, "val_images": 20, "test_images": 20, "batch_size": 8},
    },
    "trainer": {
        "max_steps": 5, "accelerator": "cpu", "enable_model_summary": False, "num_sanity_val_steps": 0,
        "callbacks": [
            {"class_path": "ssl_ebm.evaluation.CompletionFigures"},
            {"class_path": "ssl_ebm.evaluation.CollapseCheck"},
        ],
    },
}  # fmt: skip
PATCHES = {
    "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
    "init_args": {
        "size": 16, "patch": 4, "channels": 1, "width": 24, "depth": 2, "heads": 2, "decoder_width": 16,
        "decoder_depth": 1, "decoder_heads": 2, "normalised": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completions")
    arguments = []
    for objective in ("least_squares", "latent_ebm"):
        content = deepcopy(CONFIG)
        content["model"]["init_args"]["objective"] = objective
        path = folder / f"<b onclick=x>{objective}.yaml"
        path.write_text(yaml.safe_dump(content))
        arguments += ["--config", str(path)]
    status = main(
        [
            "compare",
            *arguments,
            "--seeds",
            "0",
            "1",
            "--clips",
            "12",
            "--samples",
            "20",
            "--out",
            str(folder / "out"),
        ]
    )
    assert status == 0
    return folder / "out"


def test_compare_measures_models_controls_and_classical_methods(compared: Path) -> None:
    results = json.loads((compared / "results.json").read_text())
    assert results["task"] == "Inpainting"
    known = {"matched_noise", "ensemble", "bank", "mean_fill"}
    assert known <= set(results["controls"])
    one, noise = results["models"]["least_squares"]["all"], results["controls"]["matched_noise"]["all"]
    assert one["psnr_k1"][0] == pytest.approx(one["psnr_best_of"]["20"][0])
    assert noise["psnr_best_of"]["20"][0] > noise["psnr_k1"][0]
    assert results["data"]["evaluated"]["items"] == 12
    assert 0 < results["data"]["evaluated"]["hidden_share"] < 0.3
    page = (compared / "report.html").read_text()
    assert "What was expected" in page
    assert page.count('class="still') == 6 * 9
    assert "<b onclick" not in page  # of the configs' names
    assert "&lt;b onclick=x&gt;latent_ebm.yaml" in page
    drawn = list((compared / "latent_ebm" / "seed0" / "figures").glob("completions-step-*.png"))
    assert drawn


def test_the_page_names_the_k_that_it_shows(compared: Path) -> None:
    """Of fewer than 20 samples there is no best of 20."""
    results = json.loads((compared / "results.json").read_text())
    blocks = [
        part["all"] for kind in ("models", "controls", "differences") for part in results[kind].values()
    ]
    for one in blocks:
        for kind in ("psnr_best_of", "ssim_best_of"):
            del one[kind]["20"]
    results["differences"]["bank"]["all"]["psnr_best_of"]["5"] = [0.25, -1.0, 0.0]
    page = render_completions(results | {"bars": []}, [])
    headings = re.findall(r'<th scope="col">([^<]*best of[^<]*)</th>', page)
    assert headings == ["best of 5, dB", "best of 5"]
    assert "its best of 5 is 0.25 dB (-1.00 to 0.00) nearer" in page


def test_pictures_are_drawn_with_the_seed_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def draw(models: Any, dataset: Any, found: Any, device: Any, seed: int = 0) -> list[Any]:
        seeds.append(seed)
        return []

    found = SimpleNamespace(noise=[], figures={}, evaluated={}, classical="")
    monkeypatch.setattr("ssl_ebm.report.studies.assess_completions", lambda *_: found)
    monkeypatch.setattr("ssl_ebm.report.studies.draw_completions", draw)
    data, device = SimpleNamespace(test_dataset=None), torch.device("cpu")
    CompletionStudy().measure({}, data, Protocol(seed=7), [], device, lambda *_: None)
    assert seeds == [7]


def a_picture(folder: Path, size: tuple[int, int] = (40, 30)) -> tuple[Path, Path]:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0])).astype(np.uint8)
    hole = np.zeros_like(pixels)
    hole[8:20, 10:24] = 255
    paths = folder / "photo.png", folder / "mask.png"
    Image.fromarray(pixels).save(paths[0])
    Image.fromarray(hole).save(paths[1])
    return paths


def test_inpaint_changes_the_hole_alone(compared: Path, tmp_path: Path) -> None:
    picture, mask = a_picture(tmp_path)
    checkpoint = last_checkpoint(compared / "latent_ebm" / "seed0")
    out = tmp_path / "done.png"
    arguments = ["inpaint", "--ckpt", str(checkpoint), "--input", str(picture), "--mask", str(mask)]
    assert main([*arguments, "--samples", "3", "--out", str(out)]) == 0
    before, hole = np.asarray(Image.open(picture)), np.asarray(Image.open(mask)) > 0
    for i in (1, 2, 3):
        after = np.asarray(Image.open(tmp_path / f"done-{i}.png"))
        assert np.array_equal(after[~hole], before[~hole])
        assert not np.array_equal(after[hole], before[hole])
    clear = np.dstack([before] * 3 + [np.where(hole, 0, 255).astype(np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert main([*arguments[:3], "--input", str(tmp_path / "clear.png"), "--out", str(out)]) == 0
    assert np.array_equal(np.asarray(Image.open(out))[~hole], before[~hole])


def test_a_hole_is_filled_in_at_the_size_of_training(compared: Path, tmp_path: Path) -> None:
    picture, mask = a_picture(tmp_path, (96, 80))
    content = read_checkpoint(checkpoint := last_checkpoint(compared / "least_squares" / "seed0"))
    assert "size" not in content["data"]  # as that of pictures in files is called
    content["data"]["size"] = content["data"]["image_shape"][1:]
    torch.save(content, files := tmp_path / "files.ckpt")
    made = []
    for ckpt, size in (
        (checkpoint, []),
        (files, []),
        (checkpoint, ["--size", "16"]),
        (checkpoint, ["--size", "80"]),
    ):
        arguments = ["inpaint", "--ckpt", str(ckpt), "--input", str(picture), "--mask", str(mask)]
        assert main([*arguments, *size, "--out", str(tmp_path / "done.png")]) == 0
        made.append(np.asarray(Image.open(tmp_path / "done.png")))
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[3])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize(("orientation", "quarter_turns"), [(1, 0), (3, 2), (6, -1)])
def test_the_hole_is_turned_with_its_picture(
    suffix: str, orientation: int, quarter_turns: int, tmp_path: Path
) -> None:
    """A photograph on its side, clear where it is to be filled in."""
    pixels = np.random.default_rng(0).integers(1, 256, (12, 20, 4)).astype(np.uint8)
    clear = np.zeros((12, 20), bool)
    clear[1:5, 2:9] = True
    pixels[..., 3] = np.where(clear, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path := tmp_path / f"photo{suffix}", exif=exif, lossless=True)
    shown, hole = read_picture(path, None, grayscale=False)
    assert np.array_equal(hole[0].numpy(), np.rot90(clear, quarter_turns))
    assert (shown[:, hole[0]] == 1).all()  # the white ground of what is transparent
    upright = np.rot90(pixels[..., :3], quarter_turns).transpose(2, 0, 1)
    assert np.array_equal((255 * shown[:, ~hole[0]]).round().numpy(), upright[:, ~hole[0].numpy()])


def test_what_inpaint_cannot_do_is_one_line(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, mask = a_picture(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, small = a_picture(other, (30, 30))
    Image.new("L", (40, 30), 0).save(tmp_path / "nothing.png")
    Image.new("L", (40, 30), 255).save(tmp_path / "everything.png")
    (tmp_path / "text.png").write_text("no picture")
    checkpoint = str(last_checkpoint(compared / "latent_ebm" / "seed0"))
    baseline = str(last_checkpoint(compared / "least_squares" / "seed0"))
    content = read_checkpoint(checkpoint)
    content["data"]["size"] = [16, "large"]
    torch.save(content, wrong := str(tmp_path / "wrong.ckpt"))
    torch.save({**content, "data": {}}, silent := str(tmp_path / "silent.ckpt"))
    for ckpt, given, hole, more, said in (
        (checkpoint, picture, small, [], "give a mask of the picture's size"),
        (checkpoint, picture, tmp_path / "nothing.png", [], "hides nothing"),
        (checkpoint, picture, tmp_path / "everything.png", [], "hides everything"),
        (checkpoint, picture, None, [], "give --mask"),
        (checkpoint, tmp_path / "text.png", mask, [], "text.png cannot be read"),
        (baseline, picture, mask, ["--samples", "2"], "leave samples at 1"),
        (str(picture), picture, mask, [], "is no checkpoint"),
        (wrong, picture, mask, [], "its pictures have the size [16, 'large']: give --size"),
        (silent, picture, mask, [], "does not say how large its pictures are: give --size"),
    ):
        arguments = [
            "inpaint",
            "--ckpt",
            ckpt,
            "--input",
            str(given),
            "--out",
            str(tmp_path / "o.png"),
            *more,
        ]
        assert main(arguments + ([] if hole is None else ["--mask", str(hole)])) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_the_exported_encoder_is_timms_own(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import load_file

    content = deepcopy(CONFIG)
    content["model"]["init_args"] |= {"objective": "least_squares", "network": PATCHES}
    content["model"]["init_args"]["mask"] = {
        "class_path": "ssl_ebm.data.masks.RandomPatches", "init_args": {"ratio": 0.75, "patch": 4}
    }  # fmt: skip
    (tmp_path / "mae.yaml").write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(tmp_path / "mae.yaml"), "--run_dir", str(tmp_path / "run")]) == 0
    checkpoint = last_checkpoint(tmp_path / "run")
    assert (
        main(["export", "--ckpt", str(checkpoint), "--format", "timm", "--out", str(tmp_path / "vit")]) == 0
    )
    encoder = timm.create_model(f"local-dir:{tmp_path / 'vit'}", pretrained=True).eval()
    task = load_task(checkpoint, Inpainting)
    images = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        features = encoder.forward_features(images)
        torch.testing.assert_close(features[:, 1:].mean(1), task.representation(images), atol=1e-5, rtol=0)
    out = tmp_path / "all.safetensors"
    assert main(["export", "--ckpt", str(checkpoint), "--format", "safetensors", "--out", str(out)]) == 0
    weights = load_file(out)
    assert all(torch.equal(weights[name], value) for name, value in task.state_dict().items())


def test_a_network_without_timms_encoder_is_no_export_for_timm(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = last_checkpoint(compared / "latent_ebm" / "seed0")
    assert (
        main(["export", "--ckpt", str(checkpoint), "--format", "timm", "--out", str(tmp_path / "vit")]) == 2
    )
    assert "train a PatchCompletion" in capsys.readouterr().err
