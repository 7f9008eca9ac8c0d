"""TF-IDF with logistic regression, against scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

from ssl_ebm.data import FontDigits, LabelledDocuments, LabelledShare
from ssl_ebm.data.tokenizing import train_tokenizer
from ssl_ebm.evaluation.probing import counted_words as module
from ssl_ebm.evaluation.probing.counted_words import TfIdf, counted_words

WORDS = [a + b for a in ("ba", "ko", "mi", "tu", "re", "sa") for b in ("ba", "ko", "mi", "tu", "re", "sa")]


def documents(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts and classes: each class prefers other words, and some words are everywhere."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        label = int(draw.integers(3))
        weight = np.ones(len(WORDS))
        weight[label * 8 : label * 8 + 8] = 3
        words = draw.choice(WORDS, int(draw.integers(5, 15)), p=weight / weight.sum())
        made.append((" ".join(words), "abc"[label]))
    return made


def share_of(tmp_path: Path, per_class: int, length: int = 64, seed: int = 0) -> LabelledShare:
    """400 documents, a few of which keep their labels."""
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in documents(400)]
    path.write_text("\n".join(lines))
    data = LabelledDocuments(str(path))
    texts = [text for text, _ in documents(400)]
    data.use_tokenizer(train_tokenizer(lambda: iter(texts), 60).to_str(), length)
    share = LabelledShare(data, per_class=per_class, seed=seed)
    share.setup()
    return share


def test_features_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["The cat, the CAT; a dog's life.", "a cat é zebra", "zebra zebra dog x 42", "dog 42 alone", ""]
    peer = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(texts)
    ours = TfIdf(texts)
    new = [*texts, "dog dog dog unknown", "nothing known"]
    np.testing.assert_allclose(ours(new).numpy(), peer.transform(new).toarray(), atol=1e-6)
    monkeypatch.setattr(module, "WORDS", 2)  # cat 3, dog 3, zebra 3, 42 twice: by frequency, then by name
    peer = TfidfVectorizer(sublinear_tf=True, vocabulary=["cat", "dog"]).fit(texts)
    np.testing.assert_allclose(TfIdf(texts)(new).numpy(), peer.transform(new).toarray(), atol=1e-6)


def test_votes_are_scikit_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENALTIES", (1e-3,))
    share = share_of(tmp_path, 12)
    votes = counted_words(share)
    assert votes is not None
    train, rest = share.data.train_dataset, share.train_dataset

    tokenizer = Tokenizer.from_str(share.tokenizer_json or "")

    def texts(tokens: torch.Tensor) -> list[str]:
        decoded: list[str] = tokenizer.decode_batch(tokens.tolist())
        return decoded

    known = texts(train.tokens)
    assert set(known) <= {text for text, _ in documents(400)}  # nothing is cut off
    peer = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(known)
    x = peer.transform([known[place] for place in rest.places])
    y = train.labels[rest.places].numpy()
    model = LogisticRegression(C=1 / (36 * 1e-3), tol=1e-8, max_iter=2000).fit(x, y)
    for split in ("val", "test"):
        own = getattr(share, f"{split}_dataset")
        assert torch.equal(votes[split].label, own.labels)
        assert votes[split].unit.tolist() == list(range(len(own)))
        wanted = model.predict(peer.transform(texts(own.tokens)))
        assert (votes[split].predicted.numpy() == wanted).mean() > 0.98  # ties of two classes apart
    assert votes["test"].right.double().mean() > 0.5  # chance is a third


def test_no_word_at_all_too_many_labels_and_no_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST", 1000)
    votes = counted_words(share_of(tmp_path, 5))
    assert votes is not None  # without a word it takes one class for all
    assert len(votes["test"].predicted.unique()) == 1
    monkeypatch.setattr(module, "LABELS", 14)
    assert counted_words(share_of(tmp_path, 5)) is None
    digits = LabelledShare(FontDigits(train_images=60, val_images=20, test_images=20, size=16), per_class=2)
    digits.setup()
    assert counted_words(digits) is None
