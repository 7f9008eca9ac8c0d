"""Which documents a model of text has been trained on, and whether some of them are measured with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from ssl_ebm.data.documents import Corpus
from ssl_ebm.data.text_files import TextFile

# Of what `ssl_ebm.data.Text` tells of itself: what its splits depend on.
SPLIT_BY = ("path", "unit", "text_column", "val_share", "test_share", "seed")


def with_before(now: dict[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the data of a training tell, with what those told that the model had seen before, if they were
    others or in other splits: as "before".
    """
    if before is None:
        return now
    same = all(before.get(name, now[name]) == now[name] for name in SPLIT_BY)
    earlier = before.get("before") if same else before
    return now if earlier is None else {**now, "before": earlier}


def warn_of_other_splits(trained_on: Mapping[str, Any] | None, corpus: Corpus) -> None:
    """Warns where a model was trained on the documents of a corpus in other splits, and so on some of those
    that are measured.

    Args:
        trained_on: as `with_before` makes it; None: nothing is known.
        corpus: of what is measured.
    """
    while trained_on is not None:
        _warn_of_one(trained_on, corpus)
        trained_on = trained_on.get("before")


def _warn_of_one(trained_on: Mapping[str, Any], corpus: Corpus) -> None:
    """The same of one training."""
    path = trained_on.get("path")
    if not isinstance(path, str) or os.path.abspath(path) != os.path.abspath(corpus.path):
        return
    drawn, plain, columns = {"val", "test"}, False, False
    for source in corpus.sources():
        drawn.discard(str(source.split))
        is_plain = isinstance(source, TextFile) and not source.is_table
        plain, columns = plain or is_plain, columns or not is_plain
    own: dict[str, Any] = {"val_share": corpus.val_share} if "val" in drawn else {}
    own |= {"test_share": corpus.test_share} if "test" in drawn else {}
    own |= {"seed": corpus.seed} | ({"unit": corpus.unit} if plain else {})
    own |= {"text_column": corpus.text_column} if columns else {}  # a split is drawn by the text
    theirs = {name: trained_on.get(name, value) for name, value in own.items()}
    if drawn and theirs != own:
        told = ", ".join(f"{name} {value}" for name, value in theirs.items())
        rank_zero_warn(
            f"{corpus.path}: the model was trained on these documents in other splits ({told}), so it "
            f"may have seen some of {' and '.join(sorted(drawn))}: give the data of both the same"
        )
