"""The table of what `predict` says."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_ebm.running.predictions import Predictions


class Says(LightningModule):
    """What it is given."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        return batch["said"] if set(batch) == {"said"} else batch


def table_of(folder: Path, batches: list[dict[str, Any]]) -> list[dict[str, str]]:
    predictions = Predictions(folder)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=[predictions], **quiet)
    loader: DataLoader[Any] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    predictions.write(trainer.predict(Says(), loader, weights_only=True), trainer)
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_has_one_number_of_each_kind_and_classes_their_names(tmp_path: Path) -> None:
    probability = torch.tensor([[0.1, 0.9], [0.75, 0.25], [0.5, 0.5]])
    batch = {
        "index": torch.tensor([7, 3, 5]), "probability": probability, "class": probability.argmax(1),
        "classes": ["cat, or a kitten", "dog"], "label": torch.tensor([-1, 0, 1]), "x": torch.zeros(3, 2),
    }  # fmt: skip
    rows = table_of(tmp_path, [batch, batch | {"index": torch.tensor([1, 2, 4])}])
    assert list(rows[0]) == ["batch", "place", "index", "probability", "class", "label"]
    assert [(row["batch"], row["place"], row["index"]) for row in rows] == [
        ("0", "0", "7"), ("0", "1", "3"), ("0", "2", "5"), ("1", "0", "1"), ("1", "1", "2"), ("1", "2", "4"),
    ]  # fmt: skip
    assert [row["class"] for row in rows[:3]] == ["dog", "cat, or a kitten", "cat, or a kitten"]
    assert [row["label"] for row in rows[:3]] == ["", "cat, or a kitten", "dog"]
    assert [float(row["probability"]) for row in rows[:3]] == [0.9, 0.75, 0.5]


def test_a_name_of_a_class_that_is_no_text_is_written_escaped(tmp_path: Path) -> None:
    """As a corpus in JSON may hold: halves of characters. Bytes of a file's name are written as they are."""
    batch = {"class": torch.tensor([0, 1, 2]), "classes": ["a\ud800b", "\udfff\udc7f", "\udc80\udcff"]}
    with pytest.raises(UnicodeDecodeError):  # such bytes are no UTF-8
        table_of(tmp_path, [batch])
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = [row["class"] for row in csv.DictReader(file)]
    assert found == ["a\\ud800b", "\\udfff\\udc7f", "\udc80\udcff"]


def test_numbers_that_stand_alone_are_the_prediction(tmp_path: Path) -> None:
    said = torch.tensor([1.5, -2.25])
    assert [row["prediction"] for row in table_of(tmp_path, [{"said": said}])] == ["1.5", "-2.25"]
    whole: list[Tensor] = torch.load(tmp_path / "predictions.pt", weights_only=True)
    assert torch.equal(whole[0], said)


def test_what_no_table_can_hold_is_in_the_other_file_alone(tmp_path: Path) -> None:
    rows = table_of(tmp_path, [{"said": torch.zeros(2, 16, 3)}])
    assert rows == [{"batch": "0", "place": "0"}, {"batch": "0", "place": "1"}]
    assert table_of(tmp_path, [{"said": "nothing"}]) == []
    assert torch.load(tmp_path / "predictions.pt", weights_only=True) == ["nothing"]
