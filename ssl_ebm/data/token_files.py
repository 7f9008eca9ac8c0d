"""A corpus as files of token ids, one for each split: written once, with the time that is left on display."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.data.documents import Corpus, fingerprint
from ssl_ebm.data.shards.records import Records
from ssl_ebm.data.special_tokens import SpecialTokens
from ssl_ebm.data.splits import SPLITS
from ssl_ebm.data.tokenizing import PASSES, Kind, encode, train_tokenizer
from ssl_ebm.errors import UserError
from ssl_ebm.progress import Display

EVERY = 0.2  # seconds between two looks of a bar
AT_ONCE = 2**18  # fingerprints that are sorted together
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))  # of sizes of at least ten such


class Meter:
    """Shows how far the reading of a corpus is, and the time left at the mean rate so far.

    Args:
        display: where.
        phase: what it is read for.
        corpus: that is read.
        passes: how often.
    """

    def __init__(self, display: Display, phase: str, corpus: Corpus, passes: int = 1) -> None:
        self.display, self.phase = display, phase
        self.total, self.unit = corpus.size()
        self.total *= passes
        self.scale = 1.0
        if self.unit == "bytes":
            fitting = [one for one in UNITS if self.total >= 10 * one[0]]
            self.scale, self.unit = fitting[0] if fitting else (1.0, "bytes")
        self.done = 0
        self._began = self._shown = time.monotonic()

    def __call__(self, count: int) -> None:
        """So much more has been read."""
        self.done += count
        now = time.monotonic()
        if now - self._shown >= EVERY and self.done < self.total:  # the end is shown once
            self._shown = now
            left = (now - self._began) * (self.total - self.done) / max(self.done, 1)
            self._show(self.done, left)

    def end(self) -> None:
        """All has been read, and made use of."""
        self._show(self.total, 0.0)

    def _show(self, done: int, left: float) -> None:
        self.display.show(self.phase, int(done / self.scale), int(self.total / self.scale), self.unit, left)


def trained_tokenizer(corpus: Corpus, vocabulary: int, kind: Kind, display: Display) -> Any:
    """A tokenizer of the training documents; errors as `train_tokenizer`."""
    meter = Meter(display, "tokenizer", corpus, PASSES.get(kind, 1))

    def texts() -> Iterator[str]:
        return (one.text for one in corpus.documents(seen=meter) if one.split == "train")

    made = train_tokenizer(texts, vocabulary, kind)
    meter.end()
    return made


def write_token_files(
    corpus: Corpus, tokenizer: Any, folder: Path, dtype: str, display: Display
) -> dict[str, Any]:
    """Writes train.bin, val.bin and test.bin: [CLS] a document [SEP] [CLS] the next ...

    Returns:
        Of each split its "documents" and "tokens", and of val and test how many documents are in train, too
        ("shared"); names of the files without text ("blank").

    Raises:
        UserError: a split without documents, or as `Corpus.documents`.
    """
    counts = {name: dict.fromkeys(SPLITS, 0) for name in ("documents", "tokens")}
    blank: list[str] = []
    waiting: deque[tuple[str, int]] = deque()  # of the documents of which there are no tokens yet
    meter = Meter(display, "tokens", corpus)

    def texts() -> Iterator[str]:
        for document in corpus.documents(blank, meter):
            waiting.append((document.split, fingerprint(document.text)))
            yield document.text

    special = SpecialTokens.of(tokenizer)
    files = {split: (folder / f"{split}.bin").open("wb") for split in SPLITS}
    prints = {split: (folder / f"{split}.prints").open("wb") for split in SPLITS}
    try:
        for ids in encode(tokenizer, texts()):
            split, printed = waiting.popleft()
            packed = np.concatenate([[special.cls], ids, [special.sep]])
            files[split].write(packed.astype(dtype).tobytes())
            prints[split].write(printed.to_bytes(8, "little"))
            counts["documents"][split] += 1
            counts["tokens"][split] += len(packed)
    finally:
        for file in (*files.values(), *prints.values()):
            file.close()
    meter.end()
    if empty := [split for split in SPLITS if not counts["documents"][split]]:
        raise UserError(
            f"{corpus.path} has no documents for {', '.join(empty)}: give more text, larger shares, "
            "or smaller documents (unit)"
        )
    shared = {split: _shared(folder, split) for split in SPLITS[1:]}
    for split in SPLITS:
        (folder / f"{split}.prints").unlink()
    return {**counts, "shared": shared, "blank": blank}


def _shared(folder: Path, split: str) -> int:
    """Documents of a split that are in train as well; some fingerprints of both are held at once."""
    train, own = (Records(folder / f"{name}.prints", "<u8") for name in ("train", split))
    count = 0
    for some in own.blocks(AT_ONCE):
        prints, times = np.unique(some, return_counts=True)
        found = np.zeros(len(prints), bool)
        for others in train.blocks():
            places = prints.searchsorted(others)
            inside = places < len(prints)
            places, others = places[inside], others[inside]
            found[places[prints[places] == others]] = True
        count += int(times[found].sum())
    return count
