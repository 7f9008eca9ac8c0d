"""Documents from files as they come: other people's tables, damaged ones, and one line of 10 MB."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_ebm.data import LabelledText, Text
from ssl_ebm.data.documents import Corpus, split_of_name
from ssl_ebm.data.special_tokens import CLS, SEP
from ssl_ebm.errors import UserError


def counts(corpus: Corpus) -> dict[str, int]:
    return dict(Counter(one.split for one in corpus.documents()))


def test_ag_news_has_numbered_columns_and_notes_beside(shared_data: Path) -> None:
    corpus = Corpus(str(shared_data / "text/ag_news"), text_column="2+3", label_column="1")
    documents = list(corpus.documents())
    split = Counter(one.split for one in documents)
    assert split["test"] == 1600
    assert split["train"] + split["val"] == 6000
    assert Counter(one.label for one in documents) == dict.fromkeys("1234", 1900)
    assert next(one for one in documents if one.split != "test").text.startswith(
        "Fears for T N pension after talks Unions representing workers at Turner"
    )


def test_sst2_and_movie_reviews(shared_data: Path) -> None:
    sst2 = Corpus(str(shared_data / "text/sst2"), text_column="sentence", label_column="label")
    assert counts(sst2) == {"train": 6920, "val": 872, "test": 1821}
    assert sum(one.label == "1" for one in sst2.documents()) == 3610 + 444 + 909
    path = shared_data / "text/movie_reviews/movie_reviews.jsonl"
    reviews = list(Corpus(str(path), label_column="label").documents())
    assert Counter(one.label for one in reviews) == {"pos": 1000, "neg": 1000}
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert reviews[0].text == first["text"].strip()


def test_wikitext_has_no_training_part_here(shared_data: Path) -> None:
    folder = shared_data / "text/wikitext-2"
    with pytest.raises(UserError, match="has test and val but no train: add it"):
        counts(Corpus(str(folder)))
    found = [one.text for one in Corpus(str(folder / "valid.txt")).documents()]
    assert found[0] == "= Homarus gammarus ="
    whole = (folder / "valid.txt").read_text(encoding="utf-8")
    assert found == [one.strip() for one in re.split(r"\n(?:[ \t]*\n)+", whole.strip())]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"\xef\xbb\xbfab\xff", "at byte 5"),  # counted with the byte-order mark
        ("a.txt", "ab".encode("utf-16"), "not UTF-8, at byte 0"),
        ("a.csv", b'text\nfine\n"open\nx\ny\n', "line 5: unexpected end of data: mend it"),
        ("a.csv", b"text\rfine\rx\r", "new-line character seen in unquoted field"),
        ("a.csv", b"1,2\n3,4\n", "no column 'text', its first line names 1, 2: set text_column"),
        ("a.jsonl", b'{"text": "half \\ud800"}\n', "line 1: text is no text"),
        ("a.jsonl", b"5\n", "line 1: no entry 'text'"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as raised:
        list(Corpus(str(tmp_path / name)).documents())
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "x", "label": 0}\n{"text": "y", "label": null}\n{"text": "z", "label": " "}\n'),
        ("a.csv", "text,label\nx,0\ny,\nz, \n"),
    ],
)
def test_rows_without_a_label_are_left_out_and_told_of(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    corpus = Corpus(str(path), label_column="label")
    with pytest.warns(UserWarning, match=r"skipped 2 row\(s\) that have no label: .*:2; .*:3|:3; .*:4"):
        assert [(one.text, one.label) for one in corpus.documents()] == [("x", "0")]
    found = list(Corpus(str(path), label_column="label", optional=True).documents())
    assert [(one.text, one.label) for one in found] == [("x", "0"), ("y", None), ("z", None)]


def test_a_label_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "label": 0}\n{"text": "y"}\n')
    with pytest.raises(UserError, match="line 2: no entry 'text' or 'label'"):
        list(Corpus(str(path), label_column="label").documents())


def test_a_number_is_a_name_where_there_is_one_and_else_within_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("2,1\nx,y\n\nz,w\n")
    assert [one.text for one in Corpus(str(path), text_column="2").documents()] == ["x", "z"]
    assert [one.text for one in Corpus(str(path), text_column="1+2").documents()] == ["2 1", "x y", "z w"]
    with pytest.raises(UserError, match="no column '3'"):
        list(Corpus(str(path), text_column="3").documents())


def text(path: Path, cache: Path, **settings: Any) -> Text:
    defaults = {"unit": "file", "vocabulary": 300, "kind": "bpe", "cache": str(cache), "length": 16}
    return Text(str(path), **(defaults | settings))


def test_files_without_text_are_named_also_from_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    for split in ("train", "val", "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / "a.txt").write_text("to be or not to be " * 40)
    (folder / "train" / "b.txt").write_text("")
    (folder / "val" / "c.txt").write_text(" \n\n")
    for _ in range(2):
        data = text(folder, tmp_path / "cache", vocabulary=265)
        with pytest.warns(UserWarning, match=r"skipped 2 file\(s\) without text: .*b\.txt; .*c\.txt"):
            data.setup()
    assert data.describe()["documents"] == {"train": 1, "val": 1, "test": 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_one_line_of_10_mb(tmp_path: Path, kind: str) -> None:
    words = np.random.default_rng(0).choice(["to", "be", "or", "not", "question"], 100)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, megabytes in (("train", 10), ("val", 1), ("test", 1)):
        line = " ".join(words) + " "
        (folder / f"{split}.txt").write_text(line * (megabytes * 10**6 // len(line)))
    size = 24 if kind == "wordpiece" else 270
    data = text(folder, tmp_path / "cache", unit="line", kind=kind, vocabulary=size)
    data.setup("fit")
    tokens = data.train_dataset.all_tokens()
    assert data.describe()["documents"] == {"train": 1, "val": 1, "test": 1}
    assert (tokens[0], tokens[-1]) == (CLS, SEP)
    assert (tokens == CLS).sum() == (tokens == SEP).sum() == 1
    assert int(data.word_starts[tokens].sum()) == 2 + 100 * (10**7 // len(line))


def test_probes_read_reviews(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "text/sst2"
    data = text(path, tmp_path, vocabulary=400, text_column="sentence")
    data.setup()
    assert data.tokenizer_json is not None
    corpus = Corpus(str(path), text_column="sentence", label_column="label")
    found = LabelledText(corpus, "val", data.tokenizer_json, 32)
    assert (len(found), int(found.labels.sum()), found.classes) == (872, 444, ["0", "1"])
    stream = data.val_dataset.all_tokens()
    starts = np.flatnonzero(stream == CLS)
    for row, start, end in zip(found.tokens.numpy(), starts, [*starts[1:], len(stream)], strict=True):
        kept = min(end - start, 32)
        assert (row[: kept - 1] == stream[start : start + kept - 1]).all()  # the packed document, cut
        assert row[kept - 1] == SEP
        assert (row[kept:] == 0).all()


def test_a_table_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text,label\none,x\n")
    found = [(one.text, one.label) for one in Corpus(str(tmp_path), label_column="label").documents()]
    assert found == [("one", "x")]


def test_plain_text_beside_tables_is_read_unless_labels_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,x\n")
    (tmp_path / "b.txt").write_text("two\n")
    assert [one.text for one in Corpus(str(tmp_path)).documents()] == ["one", "two"]
    with pytest.warns(UserWarning, match=r"skipped 1 file\(s\) that have no labels: b\.txt"):
        labelled = list(Corpus(str(tmp_path), label_column="label").documents())
    assert [(one.text, one.label) for one in labelled] == [("one", "x")]


@pytest.mark.parametrize(
    "name",
    ["train", "train.txt", "train.", ".train", "Val.csv", "test.tar.gz", "dev/x", "a/train", "x.", ".", "…"],
)
def test_split_names_are_stems(name: str) -> None:
    stems = {"train": "train", "val": "val", "dev": "val"}
    assert split_of_name(name) == stems.get(Path(name.split("/")[0]).stem.lower())
