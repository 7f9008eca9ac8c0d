"""ssl-ebm probe on checkpoints of all three tasks: its figures, its page, its mistakes in one line."""

import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from small_backbones import WORDS, make, saved
from torch.utils.data import Dataset

from ssl_ebm.cli import main
from ssl_ebm.data import FontDigits
from ssl_ebm.evaluation.probing.features import RawInputs
from ssl_ebm.evaluation.probing.results import Classified, Samples
from ssl_ebm.evaluation.statistics import Interval
from ssl_ebm.report.probing_page import Seen, plane, render

DIGITS = [
    *("--data", "ssl_ebm.data.FontDigits", "--data.size", "16", "--data.train_images", "200"),
    *("--data.val_images", "60", "--data.test_images", "50"),
]
MOVING = [
    *("--data", "ssl_ebm.data.MovingDigits", "--data.size", "16", "--data.digit_size", "8"),
    *("--data.context_frames", "2", "--data.glyphs_per_digit", "4", "--train_items", "150"),
    *("--data.val_clips", "40", "--data.test_clips", "60"),
]


@pytest.fixture(autouse=True)
def inside_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def probe(name: str, *arguments: str) -> dict[str, Any]:
    saved(make(name, 3), Path(f"{name}.ckpt"))
    assert main(["probe", "--ckpt", f"{name}.ckpt", "--out", "out", *arguments]) == 0
    found: dict[str, Any] = json.loads(Path("out", "probe.json").read_text())
    return found


def table() -> str:
    rows = [f"{WORDS[i % 20]} {WORDS[(3 * i) % 20]},{'even' if i % 2 else 'odd'}" for i in range(80)]
    for split, part in (("train", rows[:50]), ("val", rows[50:60]), ("test", rows[60:])):
        Path("table").mkdir(exist_ok=True)
        Path("table", f"{split}.csv").write_text("\n".join(["text,label", *part]))
    return "table"


def test_pictures_by_three_probes() -> None:
    found = probe(
        "patches", *DIGITS, "--kind", "linear", "knn", "attentive", "--layer", "encoder.blocks.1"
    )  # fmt: skip
    assert set(found["models"]) == {"trained", "untrained", "raw"}
    assert set(found["models"]["raw"]) == {"linear", "knn", "rank_me"}
    assert found["models"]["trained"]["attentive"]["test_items"] == 50
    assert found["models"]["untrained"]["linear"] != found["models"]["trained"]["linear"]  # other weights
    raw = found["models"]["raw"]["linear"]
    data = FontDigits(16, 200, 60, 50)
    data.setup()
    items = {
        split: [dataset[i] for i in range(len(dataset))]  # a dataset knows no end
        for split, dataset in (("train", data.train_dataset), ("test", data.test_dataset))
    }
    pixels = {
        split: torch.stack([one["image"].flatten() for one in some]).numpy() for split, some in items.items()
    }
    labels = {split: [int(one["label"]) for one in some] for split, some in items.items()}
    mean, deviation = pixels["train"].mean(0), pixels["train"].std(0)
    scale = np.maximum(deviation, 0.1 * np.sqrt((deviation**2).mean()))
    peer = LogisticRegression(C=1 / (200 * raw["penalty"]), max_iter=10_000, tol=1e-8)
    peer.fit((pixels["train"] - mean) / scale, labels["train"])
    score = peer.score((pixels["test"] - mean) / scale, labels["test"])
    assert raw["accuracy"][0] == pytest.approx(score, abs=0.021)  # one of 50
    page = Path("out", "probe.html").read_text()
    assert page.count("<circle") >= 50
    assert f"{100 * raw['accuracy'][0]:.1f}" in page
    assert "network with random weights shows" in page


def test_a_page_without_baselines_speaks_of_none() -> None:
    probe("patches", *DIGITS, "--kind", "knn", "--no_baselines")
    assert "random weights" not in Path("out", "probe.html").read_text()


def test_clips_by_regression_and_their_class() -> None:
    found = probe("frames", *MOVING, "--kind", "linear", "regression", "--targets", "position")
    assert set(found["models"]["trained"]["regression"]["r2"]) == {"position_0", "position_1"}
    r2 = found["models"]["raw"]["regression"]["r2"]
    assert r2["position_0"][0] > 0.5  # where a digit is can be read off the pixels
    assert found["split"] == "test"
    assert found["models"]["trained"]["linear"]["test_items"] == 60


def test_text_and_its_word_counts() -> None:
    found = probe(
        "text", "--data", "ssl_ebm.data.LabelledDocuments", "--data.path", table(), "--split", "val"
    )  # fmt: skip
    assert found["classes"] == ["even", "odd"]
    assert found["models"]["trained"]["linear"]["test_items"] == 10
    task = make("text")
    counted = RawInputs(task)({"tokens": torch.tensor([[2, 7, 7, 9, 3, 0]])})
    assert counted[0, 7] == pytest.approx(np.log(3))
    assert counted[0, 9] == pytest.approx(np.log(2))
    assert counted[0, :5].sum() == 0


def test_the_effective_rank_is_that_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten classes one after another, each of a direction of its own: ten directions. Of tokens it is that of
    the mean of those that are seen."""
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    label = torch.arange(10).repeat_interleave(300)
    noise = torch.randn(3000, 3, 16, generator=torch.Generator().manual_seed(1))
    tokens = 10 * turn[label][:, None] + 0.01 * noise
    tokens[:, 2] = 99 * noise[:, 2]
    seen = torch.tensor([True, True, False]).expand(3000, 3)
    train, test = Samples(tokens, label, seen=seen), Samples(tokens[::30], label[::30], seen=seen[::30])
    predicted = Classified(Interval(1.0, 1.0, 1.0), 0.1, torch.eye(10).long(), label[::30])
    monkeypatch.setattr("ssl_ebm.report.probing._samples", lambda *_: (train, test, ["label"]))
    monkeypatch.setattr("ssl_ebm.report.probing._fit", lambda *_: predicted)
    found = probe("patches", *DIGITS, "--kind", "linear", "--no_baselines")
    assert found["models"]["trained"]["rank_me"] == pytest.approx(10, abs=0.1)


def test_large_inputs_are_averaged() -> None:
    task = make("frames")
    video = torch.rand(2, 3, 1, 16, 16)
    found = RawInputs(task, most=300)({"video": video})
    pooled = torch.nn.functional.avg_pool2d(video[:, :2].flatten(0, 1), 2).view(2, -1)
    torch.testing.assert_close(found, pooled)


def test_the_map_is_that_of_principal_components() -> None:
    x = torch.randn(60, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)
    places, part = plane(x)
    peer = PCA(2).fit(x.double())
    expected = peer.transform(x.double())
    assert part == pytest.approx(peer.explained_variance_ratio_.sum())
    assert np.abs(places.numpy()) == pytest.approx(np.abs(expected), abs=1e-4)


def test_names_of_classes_are_escaped() -> None:
    figures = {"accuracy": [0.5, 0.4, 0.6], "chance": 0.5, "train_items": 4, "test_items": 4}
    results = {
        "task": "T", "split": "test", "classes": ["<i>x", "c"], "models": {"trained": {"linear": figures}},
        **dict.fromkeys(("checkpoint", "layer", "pooling", "seed", "data", "device")),
    }  # fmt: skip
    seen = Seen(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), torch.tensor([[2, 0], [1, 1]]))
    page = render(results, seen)
    assert "<i>x" not in page
    assert "&lt;i&gt;x" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*DIGITS, "--layer", "encoder.blocks.9"], "no layer 'encoder.blocks.9'"),
        (["--data", "ssl_ebm.data.ImageFolder", "--data.folder", "nowhere"], "nowhere"),
        ([*DIGITS, "--data.colour", "red"], "colour"),
        ([*DIGITS, "--model.lr", "1"], "settings begin with --data."),
        (["--data", "missing.yaml"], "cannot read missing.yaml"),
        ([*DIGITS, "--train_items", "1"], "train_items is 1"),
        ([*DIGITS, "--kind", "regression"], "no position"),
        ([*DIGITS, "--kind", "knn", "attentive"], "attentive reads a layer's tokens: give --layer"),
        (["--data", "ssl_ebm.data.LabelledDocuments", "--data.path", "x"], "model of text"),
        ([*DIGITS, "--train_items", "5"], "training items for 10 classes"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(make("patches"), Path("patches.ckpt"))
    capsys.readouterr()
    assert main(["probe", "--ckpt", "patches.ckpt", "--out", "out", *arguments]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line


def test_a_fine_tuned_model_is_probed_too() -> None:
    saved(make("patches"), Path("patches.ckpt"))
    quick = ["--steps", "3", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["finetune", "--ckpt", "patches.ckpt", "--out", "tuned", *quick, *DIGITS]) == 0
    arguments = ["--ckpt", "tuned/checkpoints/last.ckpt", "--out", "out", *DIGITS]
    assert main(["probe", *arguments]) == 0
    found = json.loads(Path("out", "probe.json").read_text())
    assert set(found["models"]) == {"trained"}
    assert found["task"] == "FineTuning"


@pytest.mark.parametrize("inner", ["inner.txt", "{class_path: stranger.Data}", "stranger.Data"])
@pytest.mark.parametrize("command", ["probe", "finetune"])
def test_data_in_a_file_import_no_module_of_a_stranger(
    command: str, inner: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(".")
    saved(make("patches"), Path("patches.ckpt"))
    Path("stranger.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    Path("inner.txt").write_text("class_path: stranger.Data\n")
    described = {"class_path": "ssl_ebm.data.LabelledShare", "init_args": {"data": inner}}
    Path("data.yaml").write_text(json.dumps(described))
    assert main([command, "--ckpt", "patches.ckpt", "--data", "data.yaml", "--out", "out"]) == 2
    assert re.search(r"inner|import stranger before|names stranger.Data", capsys.readouterr().err)
    assert not Path("ran").exists()
    assert "stranger" not in sys.modules
    __import__("stranger")
    assert Path("ran").exists()  # the trace is one that would have been seen
    del sys.modules["stranger"]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_read_that_hangs_ends_the_command(
    workers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of this process by another thread, which here lets it go on."""
    given_up, statuses = threading.Event(), list[int]()
    real = FontDigits.make_dataset

    class Waiting(Dataset[Any]):
        """The last item comes when it has been given up."""

        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __len__(self) -> int:
            return len(self.dataset)

        def __getitem__(self, index: int) -> Any:
            assert index < len(self) - 1 or given_up.wait(60)
            return self.dataset[index]

    def end(status: int) -> None:
        statuses.append(status)
        given_up.set()

    if workers == "0":  # of which a worker would not end
        monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(FontDigits, "make_dataset", lambda data, split: Waiting(real(data, split)))
    saved(make("patches", 3), Path("patches.ckpt"))
    words = [*DIGITS, "--data.workers", workers, "--kind", "knn", "--no_baselines", "--out", "out"]
    command = ["probe", "--ckpt", "patches.ckpt", *words, "--read_timeout"]
    assert main([*command, "0"]) == 2
    assert "read_timeout is 0: use" in capsys.readouterr().err
    stopped = main([*command, "1"])
    assert (stopped, statuses) == ((0, [2]) if workers == "0" else (2, []))
    if workers == "1":
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("ssl-ebm: error: the data loader gave no batch for 1 s: the storage hangs")
        assert said.endswith("look at it, and give the command again")
