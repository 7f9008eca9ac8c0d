"""TF-IDF with logistic regression, against scikit-learn, and what it must not see."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

from ssl_ebm.data import FontDigits, LabelledDocuments, LabelledShare
from ssl_ebm.data.labelled_text import LabelledText
from ssl_ebm.data.tokenizing import Kind, train_tokenizer
from ssl_ebm.evaluation.probing import counted_words as module
from ssl_ebm.evaluation.probing.counted_words import Counted, TfIdf, counted_words

SYLLABLES = ("ba", "ko", "mi", "tu", "re", "sa")
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]


def documents(count: int, words: list[str]) -> list[tuple[str, str]]:
    """Texts and classes: each class prefers some words, and all have all."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(count):
        label = int(draw.integers(3))
        weight = np.ones(len(words))
        weight[label * 8 : label * 8 + 8] = 3
        chosen = draw.choice(words, int(draw.integers(5, 15)), p=weight / weight.sum())
        made.append((" ".join(chosen), "abc"[label]))
    return made


def share_of(
    folder: Path, per_class: int, kind: Kind = "wordpiece", length: int = 64, words: list[str] = WORDS
) -> LabelledShare:
    """400 documents, a few of which keep their labels."""
    made = documents(400, words)
    path = folder / "documents.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in made))
    data = LabelledDocuments(str(path))
    size = 280 if kind == "bpe" else 60 if words is WORDS else 41
    data.use_tokenizer(train_tokenizer(lambda: iter([text for text, _ in made]), size, kind).to_str(), length)
    share = LabelledShare(data, per_class=per_class)
    share.setup()
    return share


def units(share: LabelledShare) -> dict[str, torch.Tensor]:
    """All documents of val and test."""
    return {split: torch.arange(len(getattr(share, f"{split}_dataset"))) for split in ("val", "test")}


def found(share: LabelledShare) -> Counted:
    counted = counted_words(share, units(share))
    assert counted is not None
    return counted


def test_features_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["The cat, the CAT; a dog's life.", "a cat é zebra", "zebra zebra dog x 42", "dog 42 alone", ""]
    peer = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(texts)
    ours = TfIdf(texts)
    new = [*texts, "dog dog dog unknown", "nothing known"]
    np.testing.assert_allclose(ours(new).numpy(), peer.transform(new).toarray(), atol=1e-6)
    assert [ours.knows(text) for text in new] == [True] * 4 + [False, True, False]
    monkeypatch.setattr(module, "WORDS", 2)  # cat 3, dog 3, zebra 3, 42 twice: by frequency, then by name
    peer = TfidfVectorizer(sublinear_tf=True, vocabulary=["cat", "dog"]).fit(texts)
    np.testing.assert_allclose(TfIdf(texts)(new).numpy(), peer.transform(new).toarray(), atol=1e-6)


@pytest.mark.parametrize(("kind", "length"), [("wordpiece", 64), ("bpe", 64), ("wordpiece", 9)])
def test_votes_are_scikit_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, length: int
) -> None:
    """Of the texts that the tokens stand for, whole ones or their beginnings."""
    monkeypatch.setattr(module, "PENALTIES", (1e-3,))
    share = share_of(tmp_path, 12, kind, length)
    votes = found(share).votes
    tokenizer = Tokenizer.from_str(share.tokenizer_json or "")

    def texts(dataset: LabelledText) -> list[str]:
        decoded: list[str] = tokenizer.decode_batch(dataset.tokens.tolist())
        return [text.strip() for text in decoded]

    documents_of: Any = share.data
    train, chosen = documents_of.train_dataset, share.train_dataset.places
    known = texts(train)
    whole = {text for text, _ in documents(400, WORDS)}
    assert (set(known) <= whole) == (length == 64)
    peer = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(known)
    x, y = peer.transform([known[place] for place in chosen]), train.labels[chosen].numpy()
    model = LogisticRegression(C=1 / (36 * 1e-3), tol=1e-8, max_iter=2000).fit(x, y)
    for split in ("val", "test"):
        own = getattr(share, f"{split}_dataset")
        assert torch.equal(votes[split].label, own.labels)
        wanted = model.predict(peer.transform(texts(own)))
        assert (votes[split].predicted.numpy() == wanted).mean() > 0.98  # ties of two classes apart
    assert votes["test"].right.double().mean() > 0.5  # chance is a third


def test_nothing_of_val_and_test_is_learnt_from(tmp_path: Path) -> None:
    """Whatever stands in one split, the votes of the other stay the same to the bit."""
    share = share_of(tmp_path, 12)
    before = found(share)
    assert before.penalty in module.PENALTIES
    share.test_dataset.tokens = share.test_dataset.tokens.flip(0)[:, :7]
    share.test_dataset.labels = 2 - share.test_dataset.labels
    after = found(share)
    assert after.penalty == before.penalty
    assert torch.equal(after.votes["val"].predicted, before.votes["val"].predicted)
    assert not torch.equal(after.votes["test"].predicted, before.votes["test"].predicted)


def test_only_what_was_evaluated_is_voted_on(tmp_path: Path) -> None:
    share = share_of(tmp_path, 12)
    every, some = found(share).votes["test"], torch.tensor([1, 4, 17])
    counted = counted_words(share, {"test": some})
    assert counted is not None
    for whole, part in zip(every, counted.votes["test"], strict=True):
        assert torch.equal(whole[some], part)


def test_one_label_of_each_class_has_scikit_learns_own_penalty(tmp_path: Path) -> None:
    assert found(share_of(tmp_path, 1)).penalty == pytest.approx(1 / 3)  # C = 1 / (N penalty)


def test_it_is_left_out_where_it_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chinese = [chr(0x4E00 + number) for number in range(36)]  # each a token, and no word of two letters
    share = share_of(tmp_path, 5, words=chinese)
    with caplog.at_level("INFO"):
        assert counted_words(share, units(share)) is None
    assert "no word of two letters" in caplog.text
    monkeypatch.setattr(module, "LABELS", 14)
    share = share_of(tmp_path, 5)
    with caplog.at_level("INFO"):
        assert counted_words(share, units(share)) is None
    assert "at most 14 labels, and these are 15" in caplog.text
    digits = LabelledShare(FontDigits(train_images=60, val_images=20, test_images=20, size=16), per_class=2)
    digits.setup()
    assert counted_words(digits, units(digits)) is None
