"""Datasets of Hugging Face, written here by their own library: the documents in them, and mistakes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from ssl_ebm.cli import main
from ssl_ebm.data import LabelledDocuments, Text, hugging_face
from ssl_ebm.data.documents import Corpus, Document
from ssl_ebm.errors import UserError

datasets = pytest.importorskip("datasets")

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 13)) + f" {i}" for i in range(240)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is on disk is read without a connection."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))


def rows(texts: list[str]) -> dict[str, list[Any]]:
    return {
        "text": texts,
        "label": [i % 2 for i in range(len(texts))],
        "number": list(range(len(texts))),
    }


def saved(folder: Path) -> Path:
    """A dataset with splits and names of classes, as `save_to_disk` leaves it."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "number": datasets.Value("int64"),
        }
    )
    parts = {"train": rows(TEXTS[:160]), "validation": rows(TEXTS[160:200]), "test": rows(TEXTS[200:])}
    made = {name: datasets.Dataset.from_dict(part, features) for name, part in parts.items()}
    made["unsupervised"] = datasets.Dataset.from_dict(
        {"text": ["ban dip 1", "ban dip 2"], "label": [-1, -1], "number": [0, 1]}, features
    )
    datasets.DatasetDict(made).save_to_disk(folder / "set")
    return folder / "set"


def documents(path: str, **settings: Any) -> list[Document]:
    return list(Corpus(path, **settings).documents())


def test_documents_are_the_rows_of_the_splits(tmp_path: Path) -> None:
    found = documents(f"hf:{saved(tmp_path)}")
    by_split = {
        split: [one.text for one in found if one.split == split] for split in ("train", "val", "test")
    }
    assert by_split["train"] == [
        *TEXTS[:160],
        "ban dip 1",
        "ban dip 2",
    ]  # for text without labels all is of use
    assert by_split["val"] == TEXTS[160:200]
    assert by_split["test"] == TEXTS[200:]


def test_classes_have_their_names_and_what_has_none_is_named(tmp_path: Path) -> None:
    path = f"hf:{saved(tmp_path)}"
    with pytest.warns(UserWarning, match=r"unsupervised: skipped 2 row\(s\) that have no label"):
        found = documents(path, label_column="label")
    assert [one.label for one in found] == [("neg", "pos")[i % 2] for i in range(240)]
    numbers = documents(path, label_column="number")
    assert numbers[3].label == "3"
    assert documents(path, text_column="text+text")[0].text == f"{TEXTS[0]} {TEXTS[0]}"


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "arrow"])
def test_files_and_folders_of_the_librarys_kinds(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, texts in (("train", TEXTS[:160]), ("test", TEXTS[160:])):
        made, path = datasets.Dataset.from_dict(rows(texts)), folder / f"{name}.{kind}"
        if kind == "arrow":
            made.save_to_disk(tmp_path / name)
            [part] = (tmp_path / name).glob("*.arrow")
            part.rename(path)
        else:
            getattr(made, f"to_{kind}")(str(path))
    found = documents(f"hf:{folder}", val_share=0.2)
    assert [one.text for one in found if one.split == "test"] == TEXTS[160:]
    assert [one.text for one in found if one.split != "test"] == TEXTS[:160]
    assert 10 < sum(one.split == "val" for one in found) < 60
    one = documents(f"hf:{folder / f'train.{kind}'}")
    assert [document.text for document in one] == TEXTS[:160]


def test_text_is_tokenised_once_for_a_content(tmp_path: Path) -> None:
    path = saved(tmp_path)
    settings: dict[str, Any] = {"vocabulary": 120, "length": 16, "cache": str(tmp_path / "cache")}
    for _ in range(2):
        data = Text(f"hf:{path}", **settings)
        data.setup()
        assert data.describe()["documents"] == {"train": 162, "val": 40, "test": 40}
    assert len(list((tmp_path / "cache").iterdir())) == 1
    (tmp_path / "b").mkdir()
    other = datasets.Dataset.from_dict(rows([f"{text} dip" for text in TEXTS]))
    other.save_to_disk(tmp_path / "b" / "set")
    Text(f"hf:{tmp_path / 'b' / 'set'}", **settings).setup()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_labelled_documents_of_a_dataset(tmp_path: Path) -> None:
    path = saved(tmp_path)
    data = Text(f"hf:{path}", vocabulary=120, length=16, cache=str(tmp_path / "cache"))
    data.setup()
    labelled = LabelledDocuments(f"hf:{path}", length=12)
    labelled.use_tokenizer(data.tokenizer_json, 16)
    with pytest.warns(UserWarning, match="no label"):
        labelled.setup("fit")
    assert labelled.classes == ["neg", "pos"]
    assert labelled.train_dataset.labels.tolist() == [0, 1] * 80
    new = LabelledDocuments(f"hf:{path}", length=12)
    new.use_tokenizer(data.tokenizer_json, 16)
    new.setup("predict")
    assert len(new.test_dataset) == 2  # those without a label


def test_mistakes_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path)
    with pytest.raises(UserError, match="no column 'words', it has text, label, number: set text_col"):
        documents(f"hf:{path}", text_column="words")
    with pytest.raises(UserError, match="set label_column to one of these"):
        documents(f"hf:{path}", label_column="class")
    with pytest.raises(UserError, match="row 0: number is no text"):
        documents(f"hf:{path}", text_column="number")
    with pytest.raises(UserError, match=f"is a dataset of Hugging Face: give hf:{path}"):
        documents(str(path))
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(UserError, match=r"is no dataset: use \.parquet"):
        documents(f"hf:{tmp_path / 'a.pdf'}")
    arguments = ["fit", "--model", "ssl_ebm.tasks.MaskedText", "--data", "ssl_ebm.data.Text"]
    arguments += ["--model.network", '{"class_path": "ssl_ebm.networks.text.TextEncoder"}']
    for name in (str(tmp_path / "none"), "nobody-that-there-is/none"):
        assert main([*arguments, "--data.path", f"hf:{name}"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"cannot read the dataset hf:{name}: " in error
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="datasets must be installed: pip install datasets"):
        documents(f"hf:{path}")
