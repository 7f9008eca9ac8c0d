"""Damaged texts and tokenizers."""

from __future__ import annotations

import json
import random
from pathlib import Path

from fuzz.bases import SENTENCES
from fuzz.mutations import changed, damaged
from fuzz.outcomes import Place, WrongError, check_finite, checkpoint_of, run

from ssl_ebm.data import Text
from ssl_ebm.data.documents import Corpus
from ssl_ebm.data.tokenizing import encode, load_tokenizer, word_starts
from ssl_ebm.tasks.checkpoints import read_checkpoint


def documents(place: Place, rng: random.Random) -> None:
    """What is read of a text is what stands there."""
    source = rng.choice(sorted((place.bases / "texts").iterdir()))
    path = place.here / source.name
    content = damaged(source.read_bytes(), rng)[0]
    path.write_bytes(content)
    label = rng.choice((None, "label"))
    corpus = Corpus(str(path), rng.choice(("file", "paragraph", "line")), "text", label)
    found = list(corpus.documents())
    if not all(document.text.strip() for document in found):
        raise WrongError("an empty document")
    if source.suffix == ".txt":
        truth = "".join(content.decode("utf-8").removeprefix("\ufeff").split())
        if truth != "".join("".join(document.text for document in found).split()):
            raise WrongError("text was lost")


def corpus(place: Place, rng: random.Random) -> None:
    """A tokenizer is trained on a damaged text, or a damaged tokenizer is given."""
    path = place.here / "plain.txt"
    content = (place.bases / "texts" / "plain.txt").read_bytes()
    tokenizer = None
    if rng.random() < 0.5:
        tokenizer = str(_tokenizer(place, rng))
    else:
        content = damaged(content, rng)[0]
    path.write_bytes(content)
    kind, vocabulary = rng.choice((("wordpiece", 60), ("bpe", 270)))
    data = Text(
        str(path), "line", tokenizer=tokenizer, kind=kind, vocabulary=vocabulary, length=8, val_share=0.3,
        test_share=0.3, cache=str(place.here / "cache"),
    )  # fmt: skip
    data.setup()
    for dataset in (data.train_dataset, data.val_dataset, data.test_dataset):
        for index in range(len(dataset)):
            tokens = dataset[index]["tokens"]
            if not 0 <= int(tokens.min()) <= int(tokens.max()) < len(data.word_starts):
                raise WrongError("a token that is none")
        if not int(dataset.all_tokens().sum()):
            raise WrongError("all tokens are [PAD]")


def _tokenizer(place: Place, rng: random.Random) -> Path:
    content = read_checkpoint(checkpoint_of(place, "text"))["tokenizer"]
    path = place.here / "tokenizer.json"
    if rng.random() < 0.5:
        path.write_bytes(damaged(content.encode(), rng)[0])
    else:
        made = json.dumps(changed(json.loads(content), rng), default=str, skipkeys=True)
        path.write_bytes(made.encode("utf-8", "replace"))
    return path


def tokenizer(place: Place, rng: random.Random) -> None:
    """A damaged tokenizer.json."""
    found = load_tokenizer(_tokenizer(place, rng))
    word_starts(found)
    for ids in encode(found, SENTENCES):
        if len(ids) and int(ids.max()) >= found.get_vocab_size():
            raise WrongError("a token that is none")


def text_argument(place: Place, rng: random.Random) -> None:
    """`fill` and `score` of a text with anything in it, as a shell hands it on."""
    text = (
        damaged(b"the [MASK] bap was [MASK]", rng)[0].replace(b"\0", b"").decode("utf-8", "surrogateescape")
    )
    command, more = rng.choice(("fill", "score")), rng.choice(([], ["--json"]))
    printed = run(command, "--ckpt", str(checkpoint_of(place, "text")), *more, "--", text)
    if more:
        check_finite([one.get("probability", one.get("perplexity")) for one in json.loads(printed)])
