"""Labelled documents: folders for classes, as reviews of films come, and documents to predict for."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.functional import pad

from ssl_ebm.data import LabelledDocuments, LabelledShare, Text
from ssl_ebm.data.documents import Corpus
from ssl_ebm.data.tokenizing import train_tokenizer
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing import Frozen
from ssl_ebm.evaluation.probing.counted_words import counted_words
from ssl_ebm.evaluation.probing.features import RawInputs, extract
from ssl_ebm.evaluation.probing.logistic import fit_logistic, logits
from ssl_ebm.report.data_arguments import make_data
from ssl_ebm.tasks import MaskedText

WORDS = {"pos": ["good", "fine", "great"], "neg": ["bad", "poor", "awful"]}
TOKENIZER = train_tokenizer(lambda: iter([" ".join([*WORDS["pos"], *WORDS["neg"]])] * 20), 45).to_str()


def review(label: str, number: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS[label], 6)) + f" {number}"


def write(folder: Path, split: str, count: int, first: int = 0) -> None:
    """Reviews as in the folders of IMDb's set: SPLIT/pos/0_9.txt."""
    for label in WORDS:
        place = folder / split / label if split else folder / label
        place.mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            (place / f"{i}_{9 if label == 'pos' else 2}.txt").write_text(review(label, i))


def labelled(folder: Path, stage: str | None = None) -> LabelledDocuments:
    data = LabelledDocuments(str(folder), batch_size=5)
    data.use_tokenizer(TOKENIZER, 16)
    data.setup(stage)
    return data


def test_a_folder_for_each_class_in_folders_for_splits(tmp_path: Path) -> None:
    write(tmp_path, "train", 30)
    write(tmp_path, "test", 10, first=100)
    (tmp_path / "README.txt").write_text("one line\n\nand another")
    (tmp_path / "train" / "urls.txt").write_text("http://")
    with pytest.warns(UserWarning, match=r"skipped 2 file\(s\) that have no labels: README.txt; train/urls"):
        documents = list(Corpus(str(tmp_path), "file", label_column="label").documents())
    count = Counter((one.split == "test", one.label) for one in documents)
    assert count == {(False, "pos"): 30, (False, "neg"): 30, (True, "pos"): 10, (True, "neg"): 10}
    assert {one.split for one in documents} == {"train", "val", "test"}  # validation is a share of train
    assert all(one.text.split()[0] in WORDS[str(one.label)] for one in documents)
    with pytest.warns(UserWarning, match="no labels"):
        data = labelled(tmp_path)
    assert data.classes == ["neg", "pos"]
    assert data.test_dataset.labels.tolist() == [0] * 10 + [1] * 10
    assert data.test_dataset[12]["label"] == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "val_share 0.05, test_share 0.05, seed 0, unit paragraph"),
        ({"val_share": 0.1, "test_share": 0.2}, "test_share 0.2, seed 0, unit paragraph"),
        ({"val_share": 0.1, "test_share": 0.2, "unit": "file", "seed": 1}, "seed 1"),
        ({"val_share": 0.1, "test_share": 0.2, "unit": "file"}, None),
    ],
)
def test_a_model_that_has_seen_what_is_measured_is_warned_of(
    settings: dict[str, Any], told: str | None, tmp_path: Path
) -> None:
    write(tmp_path / "reviews", "", 60)
    text = Text(str(tmp_path / "reviews"), **settings)
    data = LabelledDocuments(str(tmp_path / "reviews"))
    seen = {one.text for one in text.corpus.documents() if one.split == "train"}
    measured = {one.text for one in data.corpus.documents() if one.split != "train"}
    assert (told is None) <= seen.isdisjoint(measured)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.check_splits(text.describe())
        data.check_splits(None)
        data.check_splits({**text.describe(), "path": "others"})
        data.check_splits({**text.describe(), "path": "others", "before": text.describe()})
    assert len(caught) == (0 if told is None else 2)  # and of the training before
    assert told is None or told in str(caught[0].message)


@pytest.mark.parametrize(("column", "told"), [("title", "text_column title"), ("text", None)])
def test_another_column_of_a_table_has_other_splits(column: str, told: str | None, tmp_path: Path) -> None:
    rows = [f"title {number},text {number} of it,{'ab'[number % 2]}" for number in range(100)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["title,text,label", *rows]))
    text = Text(str(path), text_column=column, val_share=0.1, test_share=0.2)
    data = LabelledDocuments(str(path))
    seen = {one.name for one in text.corpus.documents() if one.split == "train"}
    measured = {one.name for one in data.corpus.documents() if one.split != "train"}
    assert (told is None) == seen.isdisjoint(measured)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.check_splits(text.describe())
    assert [str(told) in str(one.message) for one in caught] == ([] if told is None else [True])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an older model it is not known
        LabelledDocuments(str(path)).check_splits(
            {name: value for name, value in text.describe().items() if name != "text_column"}
        )


def test_of_splits_that_are_drawn_the_shares_are_compared(tmp_path: Path) -> None:
    write(tmp_path, "train", 40)
    write(tmp_path, "test", 10, first=100)
    text = Text(str(tmp_path), unit="file", val_share=0.1)  # its test_share is another one, and of no use
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LabelledDocuments(str(tmp_path)).check_splits(text.describe())
    with pytest.warns(UserWarning, match=r"other splits \(val_share 0.2, seed 0, unit file\).* some of val:"):
        LabelledDocuments(str(tmp_path)).check_splits(
            Text(str(tmp_path), unit="file", val_share=0.2).describe()
        )


def test_splits_that_folders_fix_are_the_same_for_all(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path, split, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LabelledDocuments(str(tmp_path)).check_splits({"path": str(tmp_path), "val_share": 0.5})


def test_a_folder_for_each_class_alone_is_split_by_the_text(tmp_path: Path) -> None:
    write(tmp_path, "", 60)
    data = labelled(tmp_path)
    sizes = [len(one) for one in (data.train_dataset, data.val_dataset, data.test_dataset)]
    assert sum(sizes) == 120
    assert sizes[0] > sizes[2] > sizes[1] > 0
    assert data.classes == ["neg", "pos"]


def test_pre_training_reads_the_same_folder_without_labels(tmp_path: Path) -> None:
    write(tmp_path, "train", 3)
    write(tmp_path, "test", 2, first=50)
    documents = list(Corpus(str(tmp_path)).documents())
    assert len(documents) == 10
    assert {one.label for one in documents} == {None}


def test_pre_training_on_a_labelled_table_never_sees_what_is_tested(tmp_path: Path) -> None:
    """With the same shares and seed, a document is on the same side with its label and without."""
    rows = [f'"{review("pos", i)}",pos' for i in range(300)]
    (tmp_path / "all.csv").write_text("\n".join(["text,label", *rows]))
    shares = {"val_share": 0.1, "test_share": 0.2}
    pre_training = Text(str(tmp_path / "all.csv"), **shares).corpus
    labelled_data = LabelledDocuments(str(tmp_path / "all.csv"), **shares).corpus
    sides = [{one.text: one.split for one in corpus.documents()} for corpus in (pre_training, labelled_data)]
    assert sides[0] == sides[1]
    assert set(sides[0].values()) == {"train", "val", "test"}


def test_batches_are_as_long_as_their_longest_document(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        rows = [f"{' '.join(['good'] * (1 + i % 29))},{'pos' if i % 2 else 'neg'}" for i in range(40)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    data = LabelledShare(LabelledDocuments(str(tmp_path), batch_size=4, workers=0), per_class=20)
    data.data.use_tokenizer(TOKENIZER, 28)  # type: ignore[attr-defined]
    data.setup()
    network = {"vocabulary": 60, "width": 16, "depth": 1, "heads": 2, "length": 28, "positions": "learnt"}
    task = MaskedText({"class_path": "ssl_ebm.networks.text.TextEncoder", "init_args": network}).eval()
    assert data.data.train_dataset.tokens.dtype == torch.int32
    seen = set()
    for split in ("train", "val", "test"):
        dataset = getattr(data.data, f"{split}_dataset")
        batches = list(getattr(data, f"{split}_dataloader")())
        if split == "test":
            batches += list(data.predict_dataloader())
        for batch in batches:
            items = torch.stack([dataset[i]["tokens"] for i in batch["index"]])
            longest = int((items != 0).sum(1).max())
            size = min(-(-longest // 8) * 8, 28)
            assert batch["tokens"].dtype == torch.int64
            assert torch.equal(batch["tokens"], items[:, :size])
            with torch.no_grad():
                features = task.representation(batch["tokens"])
                torch.testing.assert_close(features, task.representation(items))
            seen.add(size)
    assert {16, 28} < seen


def long_reviews(folder: Path) -> dict[str, list[str]]:
    """Tables of the splits: documents of 1 to 58 words, of which the last one alone tells the class. Words of
    more than a token are among them."""
    draw, texts = np.random.default_rng(0), {}
    for split, count in (("train", 120), ("val", 20), ("test", 60)):
        labels = ["pos" if i % 2 else "neg" for i in range(count)]
        fillers = [draw.choice(["fine", "poor"], draw.integers(30, 58)) for _ in labels]
        ends = ["great" if label == "pos" else "awful" for label in labels]
        texts[split] = [" ".join([*words, end]) for words, end in zip(fillers, ends, strict=True)]
        if split == "test":
            texts[split][2:4] = ["awful", "great"]
        rows = [f"{text},{label}" for text, label in zip(texts[split], labels, strict=True)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    return texts


def in_windows(folder: Path, windows: int) -> LabelledShare:
    data = LabelledDocuments(str(folder), windows=windows, batch_size=7)
    data.use_tokenizer(TOKENIZER, 16)
    share = LabelledShare(data)
    share.setup()
    return share


def test_a_long_document_is_read_in_windows(tmp_path: Path) -> None:
    texts, reader = long_reviews(tmp_path), Tokenizer.from_str(TOKENIZER)
    longest = max(len(reader.encode(text).ids) for those in texts.values() for text in those)
    data = in_windows(tmp_path, 12)
    sizes = set()
    for split, those in texts.items():
        dataset = getattr(data.data, f"{split}_dataset")
        batches = list(getattr(data, f"{split}_dataloader")())
        sizes |= {tuple(batch["tokens"].shape[1:]) for batch in batches}
        for place, text in enumerate(those):
            assert dataset.tokens[place][dataset.tokens[place] > 4].tolist() == reader.encode(text).ids
        for batch in batches:
            for place, tokens in zip(batch["index"].tolist(), batch["tokens"], strict=True):
                whole = dataset[place]["tokens"]
                assert torch.equal(whole[: len(tokens)], tokens)
                assert not whole[len(tokens) :].any()
    assert {size[1] for size in sizes} == {16}
    assert max(size[0] for size in sizes) == -(-longest // 14) > 4


def test_what_is_left_out_of_documents_is_counted(tmp_path: Path) -> None:
    texts, reader = long_reviews(tmp_path), Tokenizer.from_str(TOKENIZER)
    lengths = np.array([len(reader.encode(text).ids) for text in texts["test"]])
    for windows, place in ((1, "16 tokens"), (3, "3 windows of 16 tokens")):
        over = lengths - 14 * windows
        share = over.clip(0).sum() / lengths.sum()
        told = (
            f"{(over > 0).sum()} of the 60 documents of test are longer than {place}; what follows, "
            rf"{share:.1%} of all, is left out \(windows {-(-lengths.max() // 14)} would hold the longest\)"
        )
        with pytest.warns(UserWarning, match=told):
            in_windows(tmp_path, windows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_windows(tmp_path, 12)


def test_what_stands_at_the_end_is_read(tmp_path: Path) -> None:
    """By features of the words themselves, and by counted words: with one window both guess."""
    long_reviews(tmp_path)
    network = {"vocabulary": 60, "width": 32, "depth": 1, "heads": 2, "length": 16}
    torch.manual_seed(0)
    task = MaskedText({"class_path": "ssl_ebm.networks.text.TextEncoder", "init_args": network})
    torch.nn.init.normal_(task.network.tokens.weight)
    task.tokenizer_json = TOKENIZER
    rows: list[int] = []
    task.network.tokens.register_forward_hook(lambda _m, given, _made: rows.append(len(given[0])))
    for windows, least, most in ((12, 0.95, 1.0), (1, 0.3, 0.75)):
        data = in_windows(tmp_path, windows)
        train, test = data.data.train_dataset, data.data.test_dataset  # type: ignore[attr-defined]
        counted = counted_words(data, {"test": torch.arange(60)})
        assert counted is not None
        assert least <= counted.votes["test"].right.float().mean() <= most
        for features in (Frozen(task, "network.tokens"), RawInputs(task)):
            x, y = (extract(features, some, range(len(some)), batch_size=32) for some in (train, test))
            weights = fit_logistic(x.features, x.target, 2, 1e-4)
            right = logits(y.features, weights).argmax(1) == y.target
            assert least <= right.float().mean() <= most
    assert max(rows) <= 32  # windows take no more memory than documents of one


def test_a_pre_training_takes_one_window(tmp_path: Path) -> None:
    write(tmp_path, "", 30)
    data = LabelledDocuments(str(tmp_path), windows=2)
    network = {"vocabulary": 60, "width": 16, "depth": 1, "heads": 2, "length": 64}
    task = MaskedText({"class_path": "ssl_ebm.networks.text.TextEncoder", "init_args": network})
    task.tokenizer_json = TOKENIZER
    data.trainer = SimpleNamespace(lightning_module=task, world_size=1, global_rank=0)  # type: ignore[assignment]
    with pytest.raises(UserError, match="windows is 2, but a model of text is trained on one window"):
        data.setup("fit")
    with pytest.raises(UserError, match="windows is 0: use at least 1"):
        LabelledDocuments(str(tmp_path), windows=0)


def test_what_a_pre_training_hides_does_not_depend_on_the_other_documents(tmp_path: Path) -> None:
    write(tmp_path, "", 30)
    data = labelled(tmp_path)
    other = LabelledDocuments(str(tmp_path), batch_size=5)
    network = {"vocabulary": 60, "width": 16, "depth": 1, "heads": 2, "length": 64}
    task = MaskedText({"class_path": "ssl_ebm.networks.text.TextEncoder", "init_args": network})
    task.tokenizer_json = TOKENIZER
    other.trainer = SimpleNamespace(lightning_module=task, world_size=1, global_rank=0)  # type: ignore[assignment]
    other.setup("test")
    assert {batch["tokens"].shape[1] for batch in other.test_dataloader()} == {64}
    assert {batch["tokens"].shape[1] for batch in data.test_dataloader()} <= {8, 16}


def test_texts_without_classes_are_no_labelled_data(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    for path in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(UserError, match="has no labels: give a table, or put the texts in a folder"):
            labelled(path)


def test_a_class_that_a_split_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train", 30)
    write(tmp_path, "test", 5, first=100)
    (tmp_path / "train" / "unsup").mkdir()
    (tmp_path / "train" / "unsup" / "1.txt").write_text("fine")
    with pytest.warns(UserWarning, match="test has no document of unsup"):
        labelled(tmp_path, "test")


def test_documents_of_the_test_that_are_in_train_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "train", 30)
    write(tmp_path, "test", 5, first=100)
    (tmp_path / "test" / "pos" / "copy.txt").write_text(f"\n{review('pos', 3)}\n")
    with pytest.warns(UserWarning, match="1 of the 11 documents of test are in train as well"):
        labelled(tmp_path, "test")


@pytest.mark.parametrize("kind", ["folder", "csv", "jsonl", "file"])
def test_predictions_need_no_labels(tmp_path: Path, kind: str) -> None:
    texts = [review("pos", i) for i in range(7)]
    path = tmp_path / "new"
    if kind == "folder":
        path.mkdir()
        for i, text in enumerate(texts):
            (path / f"{i}.txt").write_text(text)
    else:
        path = path.with_suffix(".txt" if kind == "file" else f".{kind}")
        made = {
            "csv": "\n".join(["number,text", *(f"{i},{text}" for i, text in enumerate(texts))]),
            "jsonl": "\n".join(json.dumps({"text": text}) for text in texts),
            "file": texts[0],
        }
        path.write_text(made[kind])
        texts = texts[:1] if kind == "file" else texts
    data = labelled(path, "predict")
    batches = list(data.predict_dataloader())
    assert all("label" not in batch for batch in batches)
    found = torch.cat([pad(batch["tokens"], (0, 16 - batch["tokens"].shape[1])) for batch in batches])
    assert len(found) == len(texts)  # all of them, not only a share for tests
    assert data.classes == []
    other = labelled(path, "predict").test_dataset
    assert torch.equal(found, torch.stack([other[i]["tokens"] for i in range(len(other))]))
    if kind in ("csv", "jsonl"):
        with pytest.raises(UserError, match="label"):
            labelled(path, "fit")


def test_predictions_are_of_what_has_no_label_and_else_of_the_test(tmp_path: Path) -> None:
    rows = [f"{review(label, i)},{label}" for i in range(20) for label in WORDS]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows[:6]]))
    data = labelled(tmp_path, "predict")
    assert len(data.test_dataset) == 6
    assert all("label" in batch for batch in data.predict_dataloader())
    (tmp_path / "test.csv").write_text("\n".join(["text", *(review("pos", 100 + i) for i in range(8))]))
    data = labelled(tmp_path, "predict")
    assert len(data.test_dataset) == 8
    assert data.classes == ["neg", "pos"]
    assert all("label" not in batch for batch in data.predict_dataloader())
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows[:6], f"{review('neg', 99)},"]))
    assert len(labelled(tmp_path, "predict").test_dataset) == 1  # an empty cell


def test_columns_are_numbers_on_the_command_line(tmp_path: Path) -> None:
    lines = [f"{label},{number},{review(label, number)}" for number in range(40) for label in WORDS]
    (tmp_path / "reviews.csv").write_text("\n".join(lines) + "\n")
    path = str(tmp_path / "reviews.csv")
    settings = ["--data.path", path, "--data.text_column", "3", "--data.label_column", "1"]

    labelled = make_data("ssl_ebm.data.LabelledDocuments", settings)
    assert isinstance(labelled, LabelledDocuments)
    labelled.use_tokenizer(TOKENIZER, 16)
    labelled.setup("fit")
    assert labelled.classes == ["neg", "pos"]

    octal = make_data("ssl_ebm.data.Text", [*settings[:3], "010"])
    assert isinstance(octal, Text)
    assert octal.corpus.text_column == "010"

    unlabelled = make_data("ssl_ebm.data.Text", settings[:4])
    assert isinstance(unlabelled, Text)
    texts = {document.text for document in unlabelled.corpus.documents()}
    assert texts == {review(label, number) for number in range(40) for label in WORDS}


def test_a_first_line_that_names_the_label_is_no_document(tmp_path: Path) -> None:
    """Also where the text's column is given by its number."""
    rows = [f"{n},text number {n},{'good' if n % 2 else 'bad'}" for n in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["id,text,label", *rows]))
    data = LabelledDocuments(str(tmp_path / "a.csv"), text_column=2, label_column="label")
    found = list(data.corpus.documents())
    assert len(found) == 60
    assert {one.label for one in found} == {"good", "bad"}
