"""TF-IDF with logistic regression: what counting words says of the class of a document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize

from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.labelled_text import LabelledText
from ssl_ebm.data.special_tokens import SpecialTokens
from ssl_ebm.evaluation.probing.logistic import fit_logistic, logits
from ssl_ebm.evaluation.probing.probes import choose_penalty
from ssl_ebm.tasks.classification import Vote

WORD = re.compile(r"\b\w\w+\b")
WORDS = 20_000  # at most: the most frequent ones
LEAST = 2  # documents that have a word
LABELS = 5_000  # at most: the counts of their words are in memory several times, some 100 kB each time
PENALTIES = (1e-2, 1e-3, 1e-4)
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

    def knows(self, text: str) -> bool:
        """Whether it has a known word."""
        return any(word in self._place for word in _words(text))

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


@dataclass(frozen=True)
class Counted:
    """What TF-IDF with logistic regression finds.

    Attributes:
        votes: of "val" and "test".
        penalty: of the regression, chosen on training labels.
    """

    votes: dict[str, Vote]
    penalty: float


def counted_words(data: LabelledShare, units: Mapping[str, Tensor]) -> Counted | None:
    """What TF-IDF with logistic regression finds of documents of val and test.

    It learns from the same labels as a fine-tuning on `data`, and from the same tokens: no more of a document
    than a model is shown. Words and their rarity are those of all training documents, for a pre-training may
    have seen these, too. The penalty is chosen on one in five of the labels; where a class has too few for
    that it is that of scikit-learn's C = 1.

    Args:
        data: after its `setup`.
        units: of "val" and "test", which documents to look at: their numbers in the split, (U,) int64.

    Returns:
        None: these are no documents; or, with a message, more than 5,000 labels, or half of the training
        documents without a known word (Chinese, which has no spaces).
    """
    train: Any = data.train_dataset
    documents = train.dataset
    if not isinstance(documents, LabelledText) or data.tokenizer_json is None:
        return None
    if len(train) > LABELS:
        rank_zero_info(
            f"TF-IDF is left out: it takes at most {LABELS:,} labels, and these are {len(train):,}"
        )
        return None
    read = _Reader(data.tokenizer_json)
    known = read(documents.tokens)
    features = TfIdf(known)
    if 2 * sum(features.knows(text) for text in known) < len(known):
        rank_zero_info("TF-IDF is left out: most documents have no word of two letters that another one has")
        return None
    x, y = features([known[place] for place in train.places]), documents.labels[train.places]
    used = x.any(0)  # weights of the others are 0 at the minimum
    x = x[:, used]
    penalty = choose_penalty(x, y, len(data.classes), PENALTIES, few=1 / len(x))
    weights = fit_logistic(x, y, len(data.classes), penalty)
    votes = {}
    for split, unit in units.items():
        measured: LabelledText = getattr(data, f"{split}_dataset")
        predicted = [
            logits(features(read(measured.tokens[some]))[:, used], weights).argmax(1)
            for some in unit.split(CHUNK)
        ]
        votes[split] = Vote(unit, measured.labels[unit], torch.cat(predicted), unit)
    return Counted(votes, penalty)


class _Reader:
    """Token ids to text: (N, T), or (N, W, T) in windows -> N texts, without special tokens."""

    def __init__(self, tokenizer_json: str) -> None:
        self._tokenizer: Any = Tokenizer.from_str(tokenizer_json)
        vocabulary = self._tokenizer.get_vocab_size()
        self._ordinary = SpecialTokens.of(self._tokenizer).ordinary(vocabulary)

    def __call__(self, tokens: Tensor) -> list[str]:
        rows = [row[self._ordinary[row]].tolist() for row in tokens.flatten(1)]
        texts: list[str] = self._tokenizer.decode_batch(rows)
        return texts
