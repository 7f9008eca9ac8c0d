"""ssl-ebm finetune, from the command line to the JSON: figures, going on, and mistakes in one line."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
import yaml
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix
from small_backbones import WORDS, make, saved

from ssl_ebm.cli import main
from ssl_ebm.evaluation.statistics import Interval, share_interval
from ssl_ebm.report.finetuning import accuracy, gain
from ssl_ebm.tasks import FineTuning, load_task
from ssl_ebm.tasks.classification import Vote

QUICK = ["--steps", "8", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
DIGITS = [
    *("--data", "ssl_ebm.data.FontDigits", "--data.size", "16", "--data.batch_size", "16"),
    *("--data.train_images", "200", "--data.val_images", "60", "--data.test_images", "50"),
]


@pytest.fixture(autouse=True)
def inside_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def finetune(name: str, *arguments: str, out: str = "out") -> dict[str, Any]:
    """Runs the command on a fresh checkpoint; returns what it has written."""
    if not Path(f"{name}.ckpt").exists():
        saved(make(name), Path(f"{name}.ckpt"))
    assert main(["finetune", "--ckpt", f"{name}.ckpt", "--out", out, *QUICK, *arguments]) == 0
    found: dict[str, Any] = json.loads(Path(out, "finetuning.json").read_text())
    return found


def weights(folder: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(Path(folder, "checkpoints", "last.ckpt"), weights_only=True)[
        "state_dict"
    ]
    return state


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["finetune", *arguments, "--out", "out"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    return lines[0].removeprefix("ssl-ebm: error: ")


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (13, 60), (499, 872)])
def test_intervals_are_wilsons(right: int, count: int) -> None:
    found = share_interval(right, count)
    wanted = binomtest(right, count).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((right / count, wanted.low, wanted.high))


def test_figures_are_those_of_the_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    """What predict says of every test item, counted by scikit-learn."""
    found = finetune("patches", *DIGITS, "--labels", "0.2", "--model.mixup", "0.5", "--model.lr", "0.01")
    [line] = [
        x for x in capsys.readouterr().out.splitlines() if x.startswith("full, 40 labels: accuracy val")
    ]
    [run] = found["runs"]
    assert run["labels"] == {str(digit): 4 for digit in range(10)}
    assert (run["steps"], run["train_items"], run["items"]) == (8, 40, {"val": 60, "test": 50})
    assert found["settings"]["model"]["init_args"]["mixup"] == 0.5
    assert found["tf_idf"] is run["tf_idf"] is None  # of documents alone
    assert main(["predict", "--config", "out/config.yaml", "--ckpt_path", "last"]) == 0
    batches = torch.load("out/predictions.pt", weights_only=True)
    label, predicted = (torch.cat([batch[name] for batch in batches]) for name in ("label", "class"))
    assert run["confusion_test"] == confusion_matrix(label, predicted, labels=range(10)).tolist()
    right = int((label == predicted).sum())
    wilson = binomtest(right, 50).proportion_ci(method="wilson")
    assert found["accuracy"]["test"] == pytest.approx([right / 50, wilson.low, wilson.high])
    assert f"test {right / 50:.1%}" in line
    assert main(["test", "--config", "out/config.yaml", "--ckpt_path", "last"]) == 0
    assert f"{right / 50:.3f}" in capsys.readouterr().out
    model = load_task("out/checkpoints/last.ckpt", FineTuning)
    assert model.classes == [str(digit) for digit in range(10)]


def test_the_last_step_is_measured_and_seeds_have_their_own_labels() -> None:
    found = finetune("convolutional", *DIGITS, "--labels_per_class", "2", "--seeds", "0", "4")
    assert [run["seed"] for run in found["runs"]] == [0, 4]
    assert all(run["steps"] == 8 and run["train_items"] == 20 for run in found["runs"])
    mean = sum(run["accuracy"]["test"][0] for run in found["runs"]) / 2
    value, low, high = found["accuracy"]["test"]
    assert value == pytest.approx(mean)
    assert low <= value <= high
    first, second = (weights(f"out/seed_{seed}") for seed in (0, 4))
    assert not torch.equal(first["head.2.weight"], second["head.2.weight"])


def test_the_same_command_goes_on_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*DIGITS, "--checkpoint_every", "3", "--model.mixup", "0.3", "--labels", "0.5"]
    finetune("patches", *arguments, out="whole")
    hook = FineTuning.on_train_batch_end

    def killed(self: FineTuning, *rest: Any) -> None:
        if self.global_step == 5:
            raise RuntimeError("killed")
        hook(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuning, "on_train_batch_end", killed)
        with pytest.raises(RuntimeError, match="killed"):
            finetune("patches", *arguments, out="again")
    found = finetune("patches", *arguments, out="again")
    assert found["runs"][0]["first_step"] == 3
    whole, again = weights("whole"), weights("again")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    # Other weights under the same name are another training.
    saved(make("patches", seed=5), Path("patches.ckpt"))
    assert finetune("patches", *arguments, out="again")["runs"][0]["first_step"] == 0
    # Other settings are another training, and the finished one is kept.
    other = finetune("patches", *arguments, "--model.lr", "0.02", out="again")
    assert other["runs"][0]["first_step"] == 0
    assert Path("again/checkpoints.2/last.ckpt").is_file()


@pytest.fixture
def wandb_offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lightning sets the mode, too; wandb keeps what it has read of it, for later tests of this process."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


@pytest.mark.usefixtures("wandb_offline")
def test_a_fine_tuning_goes_on_in_its_run_at_wandb() -> None:
    """Each seed in its own, also where they share a process; and from the checkpoint before a damaged one."""
    arguments = [*DIGITS, "--checkpoint_every", "3", "--labels", "0.5", "--wandb", "offline"]
    arguments += ["--seeds", "0", "4"]

    def logged() -> list[list[str]]:
        """The identifiers of the starts of each seed, in order."""
        folders = [sorted(Path(f"out/seed_{seed}/wandb").glob("offline-run-*")) for seed in (0, 4)]
        return [[one.name.rsplit("-", 1)[1] for one in found] for found in folders]

    finetune("patches", *arguments)
    last = Path("out/seed_4/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is missing or damaged"):
        found = finetune("patches", *arguments)
    assert [run["first_step"] for run in found["runs"]] == [8, 6]
    (first, first_again), (second, second_again) = logged()
    assert first == first_again != second == second_again
    assert [Path(f"out/seed_{seed}/wandb_run.txt").read_text() for seed in (0, 4)] == [first, second]


def write_reviews(path: Path) -> None:
    """Texts whose class is told by the syllable of their words."""
    draw = np.random.default_rng(0)
    with path.open("w") as file:
        for number in range(240):
            label = number % 2
            words = draw.choice(WORDS[:8] if label else WORDS[8:], 4)
            file.write(json.dumps({"text": " ".join(words), "label": ("bad", "good")[label]}) + "\n")


def test_gain_is_that_of_the_same_items() -> None:
    """A model that is right wherever another one is, and on four items of 40 more, is better on nearly every
    draw of the items; of one seed no otherwise than of several that are the same."""
    label, unit = torch.zeros(40).long(), torch.arange(40)
    theirs = [Vote(unit, label, torch.arange(40) % 2), Vote(unit, label, torch.arange(40) % 4 // 2)]
    ours = [Vote(unit, label, vote.predicted * (unit >= 8)) for vote in theirs]
    found = gain(ours, theirs)
    assert found.value == pytest.approx(4 / 40)
    assert 0 < found.low < found.value < found.high < 0.3
    assert gain(ours, ours) == gain(ours[:1], ours[:1]) == Interval(0.0, 0.0, 0.0)
    alone, same = gain(ours[:1], theirs[:1]), gain(ours[:1] * 2, theirs[:1] * 2)
    assert (alone.value, alone.low, alone.high) == pytest.approx((same.value, same.low, same.high), abs=0.03)
    assert alone.value == 4 / 40


@pytest.mark.parametrize("seeds", [1, 2])
def test_accuracy_of_clips_is_over_their_recordings(seeds: int) -> None:
    """Forty clips of eight recordings that are right or wrong as a whole: as sure as of eight clips."""
    unit, zeros = torch.arange(40), torch.zeros(40).long()
    wrong = (unit // 5 < 2).long()
    recorded = accuracy([Vote(unit, zeros, wrong, unit // 5 + 10**15)] * seeds)
    eight = accuracy([Vote(unit[:8], zeros[:8], (unit[:8] < 2).long())] * seeds)
    apart = accuracy([Vote(unit, zeros, wrong, unit)] * seeds)
    assert recorded.value == eight.value == apart.value == 0.75
    assert apart == accuracy([Vote(unit, zeros, wrong)] * seeds)
    assert recorded.high - recorded.low >= eight.high - eight.low - 1e-9 > 1.5 * (apart.high - apart.low)


@pytest.mark.parametrize("wrong", [0, 1])
def test_of_all_right_or_none_there_is_the_doubt_of_one_seed(wrong: int) -> None:
    """A bootstrap of equal items draws nothing else: its interval would be a point."""
    unit, zeros = torch.arange(20), torch.zeros(20).long()
    vote = Vote(unit, zeros, zeros + wrong)
    three = accuracy([vote] * 3)
    wilson = binomtest(20 * (1 - wrong), 20).proportion_ci(method="wilson")
    assert three.value == 1 - wrong
    assert (three.low, three.high) == pytest.approx((wilson.low, wilson.high), abs=0.02)
    recorded = Vote(unit, zeros, zeros + wrong, unit // 5)  # four recordings
    assert accuracy([recorded] * 3) == accuracy([recorded])


def test_text_is_learnt_with_the_tokenizer_of_the_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    write_reviews(Path("reviews.jsonl"))
    data = ["--data", "ssl_ebm.data.LabelledDocuments", "--data.path", "reviews.jsonl"]
    found = finetune("text", *data, "--steps", "60", "--model.lr", "0.01", "--labels", "0.5")
    assert found["classes"] == ["bad", "good"]
    assert found["accuracy"]["test"][0] > 0.9
    ours, theirs = (one["accuracy"]["test"][0] for one in (found, found["tf_idf"]))
    assert theirs > 0.9  # every word tells the class
    assert found["tf_idf"]["gain"]["test"][0] == pytest.approx(ours - theirs)
    assert found["runs"][0]["tf_idf"]["test"][0] == theirs
    assert f"{100 * (ours - theirs):+.1f} points" in capsys.readouterr().out
    limited = finetune("text", *data, "--trainer.limit_test_batches", "1", "--data.batch_size", "16", out="b")
    assert limited["runs"][0]["items"]["test"] == 16
    assert limited["tf_idf"]["gain"]["test"] is not None
    assert main(["test", "--config", "out/config.yaml", "--ckpt_path", "last"]) == 0
    for name, words in (("a", WORDS[:8]), ("b", WORDS[8:])):  # good and bad ones, without labels
        Path("new").mkdir(exist_ok=True)
        Path("new", f"{name}.txt").write_text(" ".join(words[:4]))
    predict = ["predict", "--config", "out/config.yaml", "--ckpt_path", "last", "--run_dir", "out"]
    assert main([*predict, "--data.data.init_args.path", "new"]) == 0
    [found] = torch.load("out/predictions.pt", weights_only=True)
    assert [found["classes"][i] for i in found["class"].tolist()] == ["good", "bad"]
    assert "label" not in found
    with open("out/predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["name"], row["class"]) for row in table] == [("new/a.txt:1", "good"), ("new/b.txt:1", "bad")]
    likely = [float(row["probability"]) for row in table]
    assert likely == pytest.approx(found["probability"].amax(1).tolist(), rel=1e-5)


def test_data_may_be_described_by_a_file() -> None:
    data = {"class_path": "ssl_ebm.data.MovingDigits", "init_args": {"size": 16, "digit_size": 8}}
    counts = {"train_clips": 200, "val_clips": 20, "test_clips": 20, "context_frames": 2}
    data["init_args"] |= counts  # type: ignore[operator]
    for name, content in (("data.yaml", data), ("whole.yaml", {"data": data, "model": {"x": 1}})):
        Path(name).write_text(yaml.safe_dump(content))
        found = finetune("frames", "--data", name, "--mode", "head", "--data.val_clips", "30")
        assert found["runs"][0]["items"] == {"val": 30, "test": 20}
        assert found["task"] == "FramePrediction"


def test_mistakes_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    saved(make("patches"), Path("a.ckpt"))
    saved(make("text"), Path("text.ckpt"))
    quick = ["--ckpt", "a.ckpt", *QUICK]
    assert "no checkpoint at none.ckpt" in error_of(capsys, "--ckpt", "none.ckpt", *QUICK, *DIGITS)
    assert "is none: take a larger share" in error_of(capsys, *quick, *DIGITS, "--labels", "0.001")
    assert "one of the two" in error_of(capsys, *quick, *DIGITS, "--labels", "0.5", "--labels_per_class", "3")
    assert "too few for 50 per class" in error_of(capsys, *quick, *DIGITS, "--labels_per_class", "50")
    assert "--mode" in error_of(capsys, *quick, *DIGITS, "--mode", "all")
    assert "nonsense" in error_of(capsys, *quick, *DIGITS, "--model.nonsense", "3")
    assert "steps is 0" in error_of(capsys, *quick, *DIGITS, "--steps", "0")
    assert "seeds" in error_of(capsys, *quick, *DIGITS, "--seeds", "1", "1")
    assert "nothing.yaml" in error_of(capsys, *quick, "--data", "nothing.yaml")
    assert "NoSuchData" in error_of(capsys, *quick, "--data", "ssl_ebm.data.NoSuchData")
    assert "images must be" in error_of(capsys, *quick, *DIGITS, "--data.size", "20")
    text = ["--ckpt", "text.ckpt", *QUICK]
    assert "reads 'tokens', the data has image" in error_of(capsys, *text, *DIGITS)
    write_reviews(Path("reviews.jsonl"))
    data = ["--data", "ssl_ebm.data.LabelledDocuments", "--data.path", "reviews.jsonl"]
    assert "no tokenizer" in error_of(capsys, *quick, *data)
    rows = [json.dumps({"text": " ".join(WORDS[number:]), "label": "x"}) for number in range(15)]
    Path("one.jsonl").write_text("\n".join(rows))
    assert "all labels are 'x'" in error_of(capsys, *text, *data, "--data.path", "one.jsonl")
