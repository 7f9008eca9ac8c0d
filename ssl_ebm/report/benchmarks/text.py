"""Suite "text": training steps of a masked text autoencoder beside Hugging Face's, tokenising and loading.

A step is forward, loss on the hidden tokens, backward and AdamW, on one batch that is in memory, with hidden
tokens that are given. Both are BERT of the same sizes with the same fused optimizer; neither is compiled.
Of hidden tokens alone ours computes the last block and the projection to the vocabulary.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm.data import Text
from ssl_ebm.data.corruption import Corrupted, TokenMasking
from ssl_ebm.data.special_tokens import SPECIAL
from ssl_ebm.networks.bert import bert_config
from ssl_ebm.networks.text import TextEncoder
from ssl_ebm.report.benchmarks import corpus_memory
from ssl_ebm.report.benchmarks.corpus_memory import memory_rows, write_documents
from ssl_ebm.report.benchmarks.loading_rates import WORKERS, Loading
from ssl_ebm.report.benchmarks.rows import Row
from ssl_ebm.report.benchmarks.steps import Loss, dtype_name, promises, step_row, stepping
from ssl_ebm.report.benchmarks.suites import Part
from ssl_ebm.report.benchmarks.timing import Effort, Work, has_bfloat16
from ssl_ebm.tasks.memory import keep_freed_memory

SUITE = "text"
PEER = "transformers"
BATCH = 32
SIZES: dict[str, Any] = {"vocabulary": 8192, "width": 256, "depth": 4, "heads": 4, "length": 128}
GAIN = {"float32": 1.5, "bfloat16": 1.8}  # times the rate of the peer
DOCUMENTS = 2000  # of the generated corpus
CASE = "training step, 4 layers, width 256, 128 tokens, vocabulary 8,192, 15 % hidden, batch 32"


def parts(effort: Effort) -> list[Part]:
    """What the suite measures, in order."""
    keep_freed_memory()
    dtypes = [torch.float32, *([torch.bfloat16] if has_bfloat16(effort.device) else [])]
    seconds = 3 * (effort.repeats * (effort.seconds + 1.0) + 2)
    steps = [Part(f"steps, {dtype_name(one)}", seconds, partial(step_rows, effort, one)) for one in dtypes]
    loading = Part("tokenising and loading", seconds, partial(text_loading_rows, effort))
    return [*steps, loading, Part("memory", 60, partial(memory_rows, SUITE))]


def step_rows(
    effort: Effort, dtype: torch.dtype, sizes: dict[str, Any] = SIZES, batch: int = BATCH
) -> Iterator[Row]:
    """Tokens per second of our training step, beside the peer's where it is installed."""
    tokens = batch * sizes["length"]
    hidden = example(sizes, batch, effort.device)
    peer = peer_loss(sizes, hidden) if find_spec(PEER) else None
    name = f"BertForMaskedLM, {PEER} {version(PEER)}" if peer else None
    row = partial(Row, SUITE, CASE, dtype_name(dtype))
    yield step_row(row, effort, dtype, our_loss(sizes, hidden), peer, name, tokens, "tokens/s")


def example(sizes: dict[str, Any], batch: int, device: torch.device) -> Corrupted:
    """Random tokens, 15 % of them hidden."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(SPECIAL), sizes["vocabulary"], (batch, sizes["length"]), generator=generator)
    hidden = TokenMasking().hide(tokens, sizes["vocabulary"], generator=generator)
    return Corrupted(*(one.to(device) for one in hidden))


def _network(sizes: dict[str, Any]) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(**sizes, positions="learnt", norm="post")


def our_loss(sizes: dict[str, Any], hidden: Corrupted) -> tuple[nn.Module, Loss]:
    """Our network, and its cross-entropy on the hidden tokens."""
    network = _network(sizes).to(hidden.tokens.device)

    def loss() -> Tensor:
        scores = network.logits(network(hidden.tokens, at=hidden.positions).flatten(0, 1))
        return nn.functional.cross_entropy(scores.float(), hidden.truth.flatten())

    return network, loss


def peer_loss(sizes: dict[str, Any], hidden: Corrupted) -> tuple[nn.Module, Loss]:
    """Hugging Face's BERT of the same sizes, as it comes but without dropout, and its loss."""
    peer: Any = import_module(PEER)
    settings = bert_config(_network(sizes))
    network = peer.BertForMaskedLM(peer.BertConfig(**settings)).to(hidden.tokens.device)
    labels = torch.full_like(hidden.tokens, -100).scatter(1, hidden.positions, hidden.truth)
    return network, lambda: network(hidden.tokens, labels=labels).loss


def text_loading_rows(effort: Effort) -> Iterator[Row]:
    """Tokens per second of tokenising, once, and of the loader; the peer is our float32 step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_documents(folder / "documents.txt", DOCUMENTS)
        length, vocabulary = SIZES["length"], 4096

        def make(workers: int, cache: str = "cache") -> Text:
            return Text(
                str(folder / "documents.txt"), vocabulary=vocabulary, length=length, batch_size=BATCH,
                workers=workers, cache=str(folder / cache),
            )  # fmt: skip

        first = make(0)
        first.setup()
        assert first.tokenizer_json is not None
        (folder / "tokenizer.json").write_text(first.tokenizer_json)
        total = sum(first.info["tokens"].values())

        def tokenise(units: int) -> None:
            for _ in range(units):
                data = make(0, f"cache{time.monotonic_ns()}")
                data.given = str(folder / "tokenizer.json")
                data.prepare_data()

        loading = {workers: Loading(make, workers) for workers in WORKERS}
        step = stepping(*our_loss(SIZES, example(SIZES, BATCH, effort.device)), torch.float32)
        works = {f"workers {workers}": one.work for workers, one in loading.items()}
        rates = effort.rates({"step": step, "tokenise": Work(tokenise), **works})
        per_batch = BATCH * length
        cases = {"tokenise": ("tokenise a corpus, once", total)}
        for workers in WORKERS:
            plural = "" if workers == 1 else "s"
            cases[f"workers {workers}"] = (f"load, {workers} worker{plural}", per_batch)
        for work, (case, tokens) in cases.items():
            ours, step_rate = rates[work] * tokens, rates["step"] * per_batch
            ratio = rates.ratio(work, "step")
            yield Row(
                SUITE,
                case,
                "int64",
                ours,
                "tokens/s",
                step_rate,
                "training step",
                ratio.times(tokens / per_batch),
            )


def summary(rows: Sequence[Row]) -> list[str]:
    """What is promised of this suite, and what was measured."""
    return [*promises(rows, CASE, GAIN, PEER), *corpus_memory.summary(rows)]
