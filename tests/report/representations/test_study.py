"""The study of representations on tiny tasks: its figures, what is read again, what goes on, its mistakes."""

import fcntl
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from small_backbones import PATCHES, WORDS, text_network

from ssl_ebm.cli import main
from ssl_ebm.data import FontDigits, LabelledDocuments, MovingDigits
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing.logistic import standardise
from ssl_ebm.report.representations import recipes, runs, study
from ssl_ebm.report.representations.jobs import TaskStudy
from ssl_ebm.report.representations.recipes import Layer, Recipe, Training
from ssl_ebm.report.representations.study import representations
from ssl_ebm.tasks import FineTuning, FramePrediction, Inpainting, load_task
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import is_whole, last_checkpoint, previous_checkpoint

COUNTS = {"size": 16, "train_images": 120, "val_images": 20, "test_images": 40, "batch_size": 16}


def described(path: str, /, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


def trainings(count: int, **settings: Any) -> tuple[Training, ...]:
    return (Training(count, clip=1.0, settings={"lr": 0.01, "warmup_steps": 1} | settings),) * 2


@pytest.fixture
def pictures() -> Recipe:
    def pretext(objective: str) -> dict[str, Any]:
        return described("ssl_ebm.tasks.Inpainting", objective=objective, network=PATCHES, codes=4)

    return Recipe(
        "images", "digits <of> a font",
        {name: pretext(name) for name in ("least_squares", "latent_ebm")},
        described("ssl_ebm.data.FontDigits", **COUNTS), described("ssl_ebm.data.FontDigits", **COUNTS),
        Training(4), trainings(6), trainings(6), (0.2, 1.0), tested=30,
    )  # fmt: skip


@pytest.fixture
def frames() -> Recipe:
    digits = {"size": 16, "digit_size": 8, "context_frames": 3, "train_clips": 120, "test_clips": 40}
    data = described("ssl_ebm.data.MovingDigits", **digits, glyphs_per_digit=4, batch_size=8)
    small = {"context_frames": 3, "width": 8, "codes": 6, "radius": 2, "features": 8}
    return Recipe(
        "frames", "a moving digit", {"latent_ebm": described("ssl_ebm.tasks.FramePrediction", **small)},
        data, data, Training(3), trainings(2), trainings(2), (0.3, 1.0),
        layer=Layer("unet.down_stages.0", "grid"), targets=("position", "velocity"), probed=60,
    )  # fmt: skip


@pytest.fixture
def documents(tmp_path: Path) -> Recipe:
    (tmp_path / "table").mkdir()
    draw = np.random.default_rng(0)
    for split, count in (("train", 80), ("val", 20), ("test", 30)):
        rows = [
            f"{' '.join(draw.choice(WORDS[:10] if i % 2 else WORDS[10:], 9))},{i % 2}" for i in range(count)
        ]
        (tmp_path / "table" / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    recipe = recipes.text(str(tmp_path / "table"))
    task = described("ssl_ebm.tasks.MaskedText", network=text_network(), warmup_steps=1)
    data = described(
        "ssl_ebm.data.Text", path=str(tmp_path / "table"), vocabulary=60, length=12, batch_size=4,
        cache=str(tmp_path / "cache"),
    )  # fmt: skip
    return replace(
        recipe, pretexts={"masked_text": task}, data=data, pretraining=Training(3), shares=(0.2, 1.0),
        tuned=trainings(40), scratch=trainings(2),
    )  # fmt: skip


def right_of(folder: Path) -> list[int]:
    found: list[int] = json.loads((folder / "result.json").read_text())["items"]["right"]
    return found


def test_figures_are_those_of_the_models(pictures: Recipe, tmp_path: Path) -> None:
    """A fine-tuned checkpoint, loaded anew, and scikit-learn on the frozen features say the same."""
    found = representations([pictures], tmp_path, [0, 3])
    written = json.loads((tmp_path / "representations.json").read_text())
    assert written == json.loads(json.dumps(found))
    task = written["tasks"]["images"]
    assert task["labels"]["0.2"] < task["labels"]["1"] == 120
    assert list(task["accuracy"]["probe"]) == ["raw", "untrained", "least_squares", "latent_ebm"]
    assert list(task["accuracy"]["tune"]) == ["least_squares", "latent_ebm", "scratch"]
    data = FontDigits(**COUNTS)
    data.setup()
    items = sorted(np.random.default_rng(0).choice(40, 30, replace=False).tolist())
    batch = {name: torch.stack([data.test_dataset[i][name] for i in items]) for name in ("image", "label")}
    each = []
    for seed in (0, 3):
        run = tmp_path / "images" / "tune" / "latent_ebm" / "labels_0.2" / f"seed_{seed}"
        model = load_task(run / "checkpoints" / "last.ckpt", FineTuning).eval()
        with torch.no_grad():
            each.append(accuracy_score(batch["label"], model(batch["image"]).argmax(1)))
        assert np.mean(right_of(run)) == pytest.approx(each[-1])
    figure = task["accuracy"]["tune"]["latent_ebm"]["0.2"]
    assert figure[0] == pytest.approx(np.mean(each))
    assert figure[1] <= figure[0] <= figure[2]

    page = (tmp_path / "representations.html").read_text()
    assert "digits &lt;of&gt; a font" in page
    assert "<of>" not in page

    pretrained = TaskStudy(pictures, [0], tmp_path / "images").checkpoint("least_squares", 0)
    encoder = load_task(pretrained, Inpainting).eval()
    plain = [data.train_dataset.plain()[i] for i in range(120)]
    with torch.no_grad():
        seen = encoder.representation(torch.stack([one["image"] for one in plain]))
        unseen = encoder.representation(batch["image"])
    probe = tmp_path / "images" / "probe" / "least_squares" / "labels_1" / "seed_0"
    penalty = json.loads((probe / "result.json").read_text())["facts"]["penalty"]
    x, y = standardise(seen, unseen)
    oracle = LogisticRegression(C=1 / (120 * penalty), max_iter=5000).fit(x, [int(i["label"]) for i in plain])
    assert abs(np.mean(right_of(probe)) - oracle.score(y, batch["label"])) <= 1 / 30  # one item on the edge


def test_velocity_is_that_of_the_last_move_in_the_context(frames: Recipe, tmp_path: Path) -> None:
    found = representations([frames], tmp_path, [0])["tasks"]["frames"]
    data = MovingDigits(**frames.labelled["init_args"])
    data.setup()
    task = load_task(TaskStudy(frames, [0], tmp_path / "frames").checkpoint("latent_ebm", 0), FramePrediction)
    facts = found["runs"]["regress/latent_ebm/1/0"]
    assert facts["labels"] == 60
    assert facts["features"] == 8 * 16

    def features(items: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        maps: list[torch.Tensor] = []
        stage = task.energy.predictor.unet.down_stages[0]  # type: ignore[union-attr,index]
        with torch.no_grad(), stage.register_forward_hook(lambda *seen: maps.append(seen[2])):  # type: ignore[union-attr]
            task.eval().representation(torch.stack([one["video"][:3] for one in items]))
        side = maps[0].shape[-1] // 4
        return maps[0].unflatten(2, (4, side)).unflatten(4, (4, side)).mean((3, 5)).flatten(1)

    kept = torch.randperm(120, generator=torch.Generator().manual_seed(0))[:60].sort().values.tolist()
    train, test = ([part[i] for i in places] for part, places in (
        (data.train_dataset, kept), (data.test_dataset, range(40))
    ))  # fmt: skip
    x, y = standardise(features(train), features(test))
    for name, at in (("position", 2), ("velocity", 1)):  # of frames 0, 1, 2: the move from 1 to 2
        known, wanted = (torch.stack([one[name][at, 0] for one in part]) for part in (train, test))
        fitted = Ridge(alpha=60 * facts["penalty"]).fit(x, known).predict(y)
        for k in range(2):
            shown = found["r2"]["latent_ebm"][f"{name}_{k}"][0]
            assert shown == pytest.approx(r2_score(wanted[:, k], fitted[:, k]), abs=1e-4)


def test_what_is_done_is_read(pictures: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = representations([pictures], tmp_path, [0])
    made: list[str] = []
    do = study._made
    monkeypatch.setattr(study, "_made", lambda job, watch: (made.append(job.name), do(job, watch))[1])
    again = representations([pictures], tmp_path, [0])
    assert made == []
    assert again["tasks"] == first["tasks"]
    other = replace(pictures, scratch=(pictures.scratch[0], replace(pictures.scratch[1], steps=7)))
    changed = representations([other], tmp_path, [0])
    assert made == ["tune scratch, 100 % of the labels, seed 0"]
    assert changed["tasks"]["images"]["accuracy"]["probe"] == first["tasks"]["images"]["accuracy"]["probe"]
    made.clear()
    representations([replace(other, pretraining=Training(5))], tmp_path, [0])
    # All that begins with the weights is made anew, and nothing else.
    assert all("least_squares" in name or "latent_ebm" in name for name in made)
    assert len(made) == 2 + 2 * 2 + 2 * 2


def test_a_training_that_was_broken_off_goes_on(
    pictures: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "CHECKPOINT_EVERY", 2)
    whole = TaskStudy(pictures, [0], tmp_path / "whole").jobs()[0]
    whole.do(lambda part: None)

    class BrokenError(Exception):
        pass

    def stop(part: float) -> None:
        if part >= 0.75:
            raise BrokenError

    job = TaskStudy(pictures, [0], tmp_path / "again").jobs()[0]
    with pytest.raises(BrokenError):
        job.do(stop)
    steps: list[float] = []
    job.do(steps.append)
    assert steps == [0.75, 1.0]
    last = "pretrain/least_squares/seed_0/checkpoints/last.ckpt"
    states = [load_task(tmp_path / name / last, Inpainting).state_dict() for name in ("whole", "again")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_training_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    pictures: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it is whole at every moment of the training that goes on from it."""
    monkeypatch.setattr(runs, "CHECKPOINT_EVERY", 1)
    job = TaskStudy(pictures, [0], tmp_path).jobs()[0]
    job.do(lambda part: None)
    last, previous = last_checkpoint(job.folder), previous_checkpoint(job.folder)
    wanted = load_task(last, Inpainting).state_dict()
    last.write_bytes(last.read_bytes()[:-100])
    steps: list[float] = []

    def look(part: float) -> None:
        steps.append(part)
        assert is_whole(previous)

    job.do(look)
    assert steps == [1.0]
    assert is_whole(previous)
    found = load_task(last, Inpainting).state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_checkpoints_of_another_training_are_kept(pictures: Recipe, tmp_path: Path) -> None:
    for count in (2, 3):
        job = TaskStudy(replace(pictures, pretraining=Training(count)), [0], tmp_path).jobs()[0]
        job.do(lambda part: None)
    folders = (job.folder / name for name in ("checkpoints.1", "checkpoints"))
    assert [read_checkpoint(folder / "last.ckpt")["global_step"] for folder in folders] == [2, 3]


def test_a_folder_in_use_is_left_alone(
    pictures: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock itself: tests/running/test_run_folder.py."""
    job = TaskStudy(pictures, [0], tmp_path / "images").jobs()[0]
    job.do(lambda part: None)

    def content() -> dict[Path, bytes]:
        files = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.read_bytes() for path in files}

    def held(*_: Any) -> None:
        raise BlockingIOError

    before = content()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", held)
        with pytest.raises(UserError, match="is in use by another run"):
            representations([replace(pictures, pretraining=Training(5))], tmp_path, [0])
    assert content() == before


def test_text_is_read_with_the_tokenizer_of_the_pretraining(documents: Recipe, tmp_path: Path) -> None:
    found = representations([documents], tmp_path, [0])
    text = found["tasks"]["text"]
    assert text["accuracy"]["tune"]["masked_text"]["1"][0] > 0.9
    tuned, scratch = (
        np.mean(right_of(tmp_path / "text" / "tune" / row / "labels_0.2" / "seed_0"))
        for row in ("masked_text", "scratch")
    )
    assert text["gain"]["over_scratch"]["masked_text"]["0.2"][0] == pytest.approx(tuned - scratch)
    data = build(documents.labelled, LightningDataModule, "data")
    texts = {
        split: [(d.text, d.label) for d in data.corpus.documents() if d.split == split]
        for split in ("train", "test")
    }
    counts = TfidfVectorizer(sublinear_tf=True, min_df=2)
    penalty = json.loads(
        (tmp_path / "text" / "probe" / "raw" / "labels_1" / "seed_0" / "result.json").read_text()
    )["facts"]["penalty"]
    x = counts.fit_transform([text for text, _ in texts["train"]])
    oracle = LogisticRegression(C=1 / (len(texts["train"]) * penalty), max_iter=5000).fit(
        x, [label for _, label in texts["train"]]
    )
    known = oracle.score(
        counts.transform([text for text, _ in texts["test"]]), [label for _, label in texts["test"]]
    )
    assert text["accuracy"]["probe"]["raw"]["1"][0] == pytest.approx(known)
    page = (tmp_path / "representations.html").read_text()
    assert "masked text" in page
    assert "from scratch" in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("kind", ["one table", "class folders"])
def test_no_document_that_is_measured_on_was_pretrained_on(kind: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    texts = [f"{i} " + " ".join(draw.choice(WORDS, 5)) + "\n\nand then " + str(i) for i in range(300)]
    path = tmp_path / "documents"
    if kind == "one table":
        path = path.with_suffix(".jsonl")
        rows = [{"text": text, "label": str(i % 2)} for i, text in enumerate(texts)]
        path.write_text("\n".join(map(json.dumps, rows)))
    for i, text in enumerate(texts if kind == "class folders" else ()):
        (path / str(i % 2)).mkdir(parents=True, exist_ok=True)
        (path / str(i % 2) / f"{i}.txt").write_text(text)
    recipe = recipes.text(str(path))
    pretext, labelled = (
        build(one, LightningDataModule, "data").corpus.documents() for one in (recipe.data, recipe.labelled)
    )
    trained_on = {document.text for document in pretext if document.split == "train"}
    split_of = {document.text: document.split for document in labelled}
    assert len(trained_on & split_of.keys()) > 150
    assert {split_of[text] for text in trained_on} == {"train"}


def test_a_dataset_of_hugging_face_keeps_its_name() -> None:
    recipe = recipes.text("hf:imdb", corpus="hf:wikitext")
    assert recipe.labelled["init_args"]["path"] == "hf:imdb"
    assert recipe.data["init_args"]["path"] == "hf:wikitext"


def test_a_file_beside_the_user_is_no_class_of_a_module(
    documents: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "table")
    made = recipes.text("train.csv")
    assert made.data["init_args"]["path"] == made.labelled["init_args"]["path"]
    data = build(made.labelled, LabelledDocuments, "data")
    assert Path(data.corpus.path).samefile(tmp_path / "table" / "train.csv")


def test_mistakes_end_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    for arguments, said in (
        (["--tasks", "images"], "there is no data for images: give it with --images"),
        (["--labels", "0.1", "0.1", "1"], "give three shares that rise, above 0 and at most 1"),
        (["--labels", "0", "0.1", "1"], "give three shares that rise, above 0 and at most 1"),
        (["--steps_share", "0"], "steps_share is 0.0: use a number above 0"),
        (["--seeds", "1", "1"], "the seeds are [1, 1]: give each number once"),
        (["--tasks", "images", "--images", str(tmp_path / "none")], "none"),
    ):
        assert main(["representations", *arguments, *out]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert said in line


def test_a_task_is_named_in_its_errors(pictures: Recipe, tmp_path: Path) -> None:
    wrong = replace(pictures, layer=Layer("nowhere"))
    with pytest.raises(
        UserError, match="images, probe untrained, 20 % of the labels, seed 0: there is no layer"
    ):
        representations([wrong], tmp_path, [0])
