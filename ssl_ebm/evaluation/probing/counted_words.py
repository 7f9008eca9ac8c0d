"""TF-IDF with logistic regression: what counting words says of the class of a document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize

from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.labelled_text import LabelledText
from ssl_ebm.evaluation.probing.logistic import fit_logistic, logits
from ssl_ebm.evaluation.probing.probes import choose_penalty
from ssl_ebm.tasks.classification import Vote

WORD = re.compile(r"\b\w\w+\b")
WORDS = 20_000  # at most: the most frequent ones
LEAST = 2  # documents that have a word
LABELS = 5_000  # training labels at most: the words of all of them are in memory, 80 kB for each
PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
CHUNK = 1024  # documents whose words are held at once


class TfIdf:
    """Documents as counted words, in lower case, of two letters or more.

        x_w = (1 + log n_w) (1 + log((1 + N) / (1 + N_w))),  then x / |x|

    n_w is how often the document has the word w (x_w = 0 for none), N_w how many of the N known documents
    have it. scikit-learn's TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=20_000) is the same.

    Args:
        known: texts that the words and N_w are of.

    Source: Salton and Buckley, "Term-weighting approaches in automatic text retrieval" (1988).
    """

    def __init__(self, known: Sequence[str]) -> None:
        total, documents = Counter[str](), Counter[str]()
        for text in known:
            words = _words(text)
            total.update(words)
            documents.update(set(words))
        kept = [word for word in total if documents[word] >= LEAST]
        kept = sorted(sorted(kept, key=lambda word: (-total[word], word))[:WORDS])
        self._place = {word: place for place, word in enumerate(kept)}
        known_by = torch.tensor([float(documents[word]) for word in kept])
        self.rarity = 1 + ((1 + len(known)) / (1 + known_by)).log()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, words) float."""
        counts = torch.zeros(len(texts), len(self._place))
        for row, text in enumerate(texts):
            for word, count in Counter(_words(text)).items():
                if (place := self._place.get(word)) is not None:
                    counts[row, place] = count
        return normalize(torch.where(counts > 0, 1 + counts.clamp_min(1).log(), 0.0) * self.rarity)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def counted_words(data: LabelledShare) -> dict[str, Vote] | None:
    """What TF-IDF with logistic regression finds of the documents of val and test.

    It learns from the same labels as a fine-tuning on `data`, and from the same tokens (no more of a
    document than a model is shown); words and their rarity are those of all training documents, for a
    pre-training has seen these, too. The penalty is chosen on one in five of the labels.

    Args:
        data: after its `setup`.

    Returns:
        Votes of "val" and "test"; None: these are no documents, or more than 5,000 labels.
    """
    train: Any = data.train_dataset
    documents = train.dataset
    if not isinstance(documents, LabelledText) or len(train) > LABELS or data.tokenizer_json is None:
        return None
    tokenizer: Any = Tokenizer.from_str(data.tokenizer_json)
    known = _texts(tokenizer, documents.tokens)
    features = TfIdf(known)
    x, y = features([known[place] for place in train.places]), documents.labels[train.places]
    penalty = choose_penalty(x, y, len(data.classes), PENALTIES)
    weights = fit_logistic(x, y, len(data.classes), penalty)
    votes = {}
    for split in ("val", "test"):
        measured: LabelledText = getattr(data, f"{split}_dataset")
        predicted = [
            logits(features(_texts(tokenizer, some)), weights).argmax(1)
            for some in measured.tokens.split(CHUNK)
        ]
        votes[split] = Vote(torch.arange(len(measured)), measured.labels, torch.cat(predicted))
    return votes


def _texts(tokenizer: Any, tokens: Iterable[Tensor]) -> list[str]:
    return [tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in tokens]
