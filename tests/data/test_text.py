"""Corpora: what is a document, which split it is in, what is packed, and what goes wrong."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_ebm.cli import main
from ssl_ebm.data import LabelledDocuments, LabelledText, Text, token_files
from ssl_ebm.data.documents import Corpus
from ssl_ebm.data.special_tokens import CLS, PAD, SEP
from ssl_ebm.data.token_files import Meter
from ssl_ebm.data.tokenizing import load_tokenizer
from ssl_ebm.errors import UserError
from ssl_ebm.progress import Display

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 12)) + f" {i}" for i in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("\n".join(sentences(300)))
    return tmp_path / "corpus"


def text(folder: Path, **settings: Any) -> Text:
    defaults = {"unit": "line", "vocabulary": 120, "length": 16, "batch_size": 4}
    return Text(str(folder), cache=str(folder.parent / "cache"), **(defaults | settings))


@pytest.mark.parametrize("at_once", [1, 7, 10**6])  # fingerprints sorted together
def test_documents_of_val_and_test_that_are_in_train_are_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(token_files, "AT_ONCE", at_once)
    (folder / "a.txt").unlink()
    train, val, other = sentences(60), sentences(20, seed=1), sentences(30, seed=2)
    (folder / "train.txt").write_text("\n".join(train))
    (folder / "val.txt").write_text("\n".join([*val, train[59], train[3], train[3]]))
    (folder / "test.txt").write_text("\n".join(other))
    data = text(folder)
    with pytest.warns(UserWarning, match="3 of the 23 documents of val are in train as well"):
        data.setup()
    assert data.info["shared"] == {"val": 3, "test": 0}


def test_sequences_are_the_documents_one_after_another(folder: Path) -> None:
    data = text(folder)
    data.setup()
    assert data.tokenizer_json is not None
    reader = data.train_dataset
    (folder.parent / "t.json").write_text(data.tokenizer_json)
    tokenizer = load_tokenizer(folder.parent / "t.json")
    for split, dataset in (("train", reader), ("val", data.val_dataset), ("test", data.test_dataset)):
        expected: list[int] = []
        for document in data.corpus.documents():
            if document.split == split:
                ids = tokenizer.encode(document.text, add_special_tokens=False).ids
                expected += [CLS, *ids, SEP]
        packed = torch.cat([dataset[i]["tokens"] for i in range(len(dataset))]).tolist()
        assert packed == expected[: len(packed)]
        assert 0 <= len(expected) - len(packed) < 16
        assert dataset.all_tokens().tolist() == expected
    assert torch.equal(reader[3]["tokens"], reader[3 + len(reader)]["tokens"])  # the next epoch


def test_batches_do_not_depend_on_workers_or_the_cache(folder: Path) -> None:
    found = []
    for workers in (0, 2):
        data = text(folder, workers=workers)
        loader = iter(data.train_dataloader())
        found.append([next(loader)["tokens"] for _ in range(5)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert len(list((folder.parent / "cache").iterdir())) == 1
    files = {path: path.stat().st_mtime_ns for path in (folder.parent / "cache").rglob("*.bin")}
    text(folder).setup("fit")
    assert {path: path.stat().st_mtime_ns for path in files} == files
    (folder / "a.txt").write_text("\n".join(sentences(300, seed=1)))
    text(folder).setup("fit")
    assert len(list((folder.parent / "cache").iterdir())) == 2


def test_a_model_that_goes_on_finds_the_corpus_tokenised(folder: Path) -> None:
    """Its tokenizer was trained there. Of another tokenizer the corpus is tokenised again."""

    def with_tokenizer(json: str | None) -> Text:
        data = text(folder)
        data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(tokenizer_json=json))  # type: ignore
        data.setup("fit")
        return data

    first, cache = with_tokenizer(None), folder.parent / "cache"
    (written,) = cache.iterdir()
    again = with_tokenizer(first.tokenizer_json)
    assert list(cache.iterdir()) == [written]
    assert torch.equal(again.train_dataset[0]["tokens"], first.train_dataset[0]["tokens"])
    other = text(folder, vocabulary=90)
    other.setup("fit")
    with_tokenizer(other.tokenizer_json)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("left", [0, None])
def test_token_files_that_are_cut_off_or_missing_are_named(folder: Path, left: int | None) -> None:
    text(folder).setup("fit")
    (path,) = (folder.parent / "cache").rglob("train.bin")
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left)
    with pytest.raises(UserError, match=r"train\.bin has 0 of its \d+ tokens: remove"):
        text(folder).setup("fit")


@pytest.mark.parametrize("name", ["info.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_torn_files_beside_the_tokens_are_named(folder: Path, name: str, content: str) -> None:
    text(folder).prepare_data()
    (made,) = (folder.parent / "cache").iterdir()
    (made / name).write_text(content)
    with pytest.raises(UserError, match=rf"{made} cannot be read \(.*\): remove that folder"):
        text(folder).setup("fit")


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_who_may_read_the_cache_is_as_for_other_folders(folder: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        text(folder).prepare_data()
    finally:
        os.umask(before)
    (made,) = (folder.parent / "cache").iterdir()
    assert stat.S_IMODE(made.stat().st_mode) == 0o777 & ~mask


def test_the_tokenizer_sees_no_text_of_validation_or_test(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(sentences(100)))
    for name in ("valid", "test"):
        (folder / f"{name}.txt").write_text("\n".join(["zzyzx zzyzx zzyzx"] * 200))
    data = text(folder)
    data.setup()
    assert data.tokenizer_json is not None
    assert "zz" not in "".join(json.loads(data.tokenizer_json)["model"]["vocab"])
    assert data.describe()["documents"] == {"train": 100, "val": 200, "test": 200}


def test_a_text_that_occurs_twice_is_on_one_side(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(sentences(200) * 2))
    splits: dict[str, set[str]] = {}
    for document in Corpus(str(path), "line", val_share=0.2, test_share=0.2).documents():
        splits.setdefault(document.text.strip(), set()).add(document.split)
    assert all(len(one) == 1 for one in splits.values())
    assert {min(one) for one in splits.values()} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("name", "content", "documents"),
    [
        ("a.txt", "one\ntwo\n\n\nthree\n", [("one\ntwo", None), ("three", None)]),
        ("a.csv", 'label,text\nx,"one, two"\ny,three\n', [("one, two", "x"), ("three", "y")]),
        ("a.tsv", 'text\tlabel\na "b\tx\n', [('a "b', "x")]),
        (
            "a.jsonl",
            '{"text": "one", "label": 1}\n\n{"text": "two", "label": 2}\n',
            [("one", "1"), ("two", "2")],
        ),
    ],
)
def test_what_files_hold(tmp_path: Path, name: str, content: str, documents: list[Any]) -> None:
    path = tmp_path / name
    path.write_text(content)
    found = Corpus(str(path), label_column=None if name == "a.txt" else "label").documents()
    assert [(one.text, one.label) for one in found] == documents


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"good\nb\xffd\n", "not UTF-8, at byte 6"),
        ("a.csv", b"text,label\na,b\nc\n", "line 3: 1 columns in place of 2"),
        (
            "a.csv",
            b"sentence,label\na,b\n",
            "no column 'text', its first line names sentence, label: set text_",
        ),
        ("a.csv", b"text,class\na,b\n", "no column 'label'.*set label_column"),
        ("a.jsonl", b"{'text'\n", "line 1: this is no JSON"),
        ("a.jsonl", b'{"words": "x"}\n', "line 1: no entry 'text'"),
        ("a.pdf", b"", "is no text: use .txt"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        list(Corpus(str(path), label_column=None if name == "a.txt" else "label").documents())


def test_empty_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        text(tmp_path / "none").setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no texts in"):
        text(tmp_path / "empty").setup()
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"has no text: its 1 file\(s\) are empty"):
        text(tmp_path / "empty").setup()
    (tmp_path / "empty" / "a.txt").write_text("bad den\n" * 100)  # one text: one split
    with pytest.raises(UserError, match="no documents for"):
        text(tmp_path / "empty", vocabulary=15).setup()
    assert not list(tmp_path.glob("cache/*"))  # nothing half done


def test_the_command_answers_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "--model", "ssl_ebm.tasks.MaskedText", "--data", "ssl_ebm.data.Text"]
    arguments += ["--model.network", '{"class_path": "ssl_ebm.networks.text.TextEncoder"}']
    arguments += ["--data.path", str(folder), "--data.unit", "line", "--data.vocabulary", "9000"]
    assert main(arguments) == 2
    assert "tokens and not 9000: set vocabulary to" in capsys.readouterr().err.strip().splitlines()[-1]


def test_labelled_documents(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for split in ("train", "test"):
        rows = [f"{one},{'odd' if i % 2 else 'even'}" for i, one in enumerate(sentences(40))]
        (tmp_path / "c" / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    data = text(tmp_path / "c", vocabulary=100)
    data.setup()
    assert data.tokenizer_json is not None
    found = LabelledText(Corpus(str(tmp_path / "c"), label_column="label"), "test", data.tokenizer_json, 10)
    assert found.classes == ["even", "odd"]
    assert len(found) == 40
    assert found.labels.tolist() == [0, 1] * 20
    assert (found.tokens[:, 0] == CLS).all()
    assert all(
        ((row == SEP).sum() == 1) and (row[row.tolist().index(SEP) + 1 :] == PAD).all()
        for row in found.tokens
    )
    with pytest.raises(UserError, match="label column"):
        LabelledText(Corpus(str(tmp_path / "c")), "test", data.tokenizer_json, 10)

    labelled = LabelledDocuments(str(tmp_path / "c"), length=10, batch_size=7)
    with pytest.raises(UserError, match="tokenizer of a model"):
        labelled.setup()
    with pytest.raises(UserError, match="no tokenizer"):
        labelled.use_tokenizer(None, 64)
    labelled.use_tokenizer(data.tokenizer_json, 64)
    labelled.setup()
    batches = list(labelled.test_dataloader())
    padded = [torch.nn.functional.pad(one["tokens"], (0, 10 - one["tokens"].shape[1])) for one in batches]
    assert torch.equal(torch.cat(padded), found.tokens.long())
    assert torch.equal(torch.cat([one["label"] for one in batches]), found.labels)
    assert labelled.classes == found.classes


def test_documents_of_the_test_that_are_in_train_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    parts = {"train": sentences(200), "valid": sentences(50, seed=1), "test": sentences(30, seed=2)}
    parts["test"] += [*parts["train"][:7], parts["train"][3]]
    for name, lines in parts.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    for _ in range(2):  # from the cache as well
        with pytest.warns(UserWarning, match="8 of the 38 documents of test are in train") as warned:
            text(folder).setup()
        assert not any("of val" in str(one.message) for one in warned)
    kept = {path.name for path in (tmp_path / "cache").glob("*/*")}
    assert kept == {"train.bin", "val.bin", "test.bin", "tokenizer.json", "info.json"}


def test_the_time_left_is_on_display(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ssl_ebm.data.token_files.EVERY", 0)
    monkeypatch.setattr("ssl_ebm.data.text.Display", lambda: Display(seconds=0))
    text(folder).setup("fit")
    lines = capsys.readouterr().out.splitlines()
    size = (folder / "a.txt").stat().st_size
    for phase, total in (("tokenizer", 2 * size), ("tokens", size)):
        shown = [line.split() for line in lines if line.startswith(f"{phase} ")]
        done = [int(words[1].split("/")[0]) for words in shown]
        assert done == sorted(done)
        assert len(set(done)) > 10
        assert shown[-1][1:] == [f"{total // 1000}/{total // 1000}", "kB", "time", "left", "0:00:00"]
        assert len(done) > 100  # bytes are counted as they are read, not file by file


def test_the_time_left_is_that_of_the_rate_so_far(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("ssl_ebm.data.token_files.time.monotonic", lambda: next(clock))
    shown: list[Any] = []
    display: Any = type("", (), {"show": lambda _, *given: shown.append(given)})()
    meter = Meter(display, "tokens", Corpus(str(folder)), passes=2)
    meter(meter.total // 4)
    [(phase, _, _, unit, left)] = shown
    assert (phase, unit) == ("tokens", "kB")
    assert left == pytest.approx(12, rel=1e-3)  # a quarter took 4 seconds


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Peak memory of reading 0.6 MB and 28 MB of text with a tokenizer that is there, in fresh processes."""
    small = tmp_path / "small.txt"
    lines = sentences(12_000)  # 50 to a document: where documents begin is kept
    small.write_text("\n".join(" ".join(lines[i : i + 50]) for i in range(0, len(lines), 50)))
    data = text(small, vocabulary=150)
    data.cache = tmp_path / "cache"
    data.setup("fit")
    assert data.tokenizer_json is not None
    (tmp_path / "t.json").write_text(data.tokenizer_json)
    peaks = []
    for name, times in (("one.txt", 1), ("many.txt", 45)):
        with (tmp_path / name).open("w") as file:
            for i in range(times):
                file.write(small.read_text().replace(" ", f" {i} ", 1) + "\n")
        script = (
            "import re; from pathlib import Path; from ssl_ebm.data import Text\n"
            f"d = Text({str(tmp_path / name)!r}, unit='line', tokenizer={str(tmp_path / 't.json')!r}, "
            f"cache={str(tmp_path / 'cache')!r}); d.setup('fit'); d.train_dataset[5]\n"
            # not getrusage, which counts what the parent had before it became another process
            "print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])"
        )
        # one thread: what others hold on to differs from run to run
        alone = {**os.environ, "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        made = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=alone
        )
        peaks.append(int(made.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 5  # MB, of 27 MB more text
