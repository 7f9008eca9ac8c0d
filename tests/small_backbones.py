"""The smallest tasks of each kind that fine-tuning starts from, with inputs and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from tokenizers import Tokenizer
from torch import Tensor
from two_futures import SMALL, trainer

from ssl_ebm.data.tokenizing import train_tokenizer
from ssl_ebm.tasks import FramePrediction, Inpainting, MaskedText

PATCHES = {
    "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
    "init_args": {
        "size": 16, "patch": 4, "channels": 1, "width": 24, "depth": 3, "heads": 2, "decoder_width": 16,
        "decoder_depth": 1, "decoder_heads": 2, "parts": 4,
    },
}  # fmt: skip
CONVOLUTIONAL = {
    "class_path": "ssl_ebm.networks.completion.ConvolutionalCompletion",
    "init_args": {"channels": 1, "parts": 4, "width": 8, "levels": 2, "features": 16},
}
WORDS = [f"{a}{b}" for a in ("gla", "sa", "mu", "tor", "ni") for b in ("d", "rok", "lim", "pen")]


def text_network(**settings: Any) -> dict[str, Any]:
    sizes = {"vocabulary": 90, "width": 16, "depth": 3, "heads": 2, "length": 12}
    return {"class_path": "ssl_ebm.networks.text.TextEncoder", "init_args": {**sizes, **settings}}


MAKERS: dict[str, Callable[[], Any]] = {
    "patches": lambda: Inpainting(network=PATCHES, codes=5),
    "convolutional": lambda: Inpainting(network=CONVOLUTIONAL, codes=5),
    "frames": lambda: FramePrediction(**SMALL),
    "frames in detail": lambda: FramePrediction(**SMALL, detail=8),
    "text": lambda: MaskedText(text_network()),
    "bert": lambda: MaskedText(text_network(positions="learnt", norm="post"), pooling="first"),
}


def tokenizer() -> str:
    """Of `WORDS`, as JSON."""
    made: Tokenizer = train_tokenizer(lambda: iter([" ".join(WORDS)] * 20), 60)
    return str(made.to_str())


def make(name: str, seed: int = 0) -> Any:
    """A task of that name; one of text has a tokenizer."""
    torch.manual_seed(seed)
    task = MAKERS[name]()
    if isinstance(task, MaskedText):
        task.tokenizer_json = tokenizer()
    return task


def batch_for(name: str, count: int = 8, seed: int = 1) -> dict[str, Tensor]:
    """A labelled batch that the task reads."""
    generator = torch.Generator().manual_seed(seed)
    batch = {"label": torch.arange(count) % 3, "index": torch.arange(count)}
    if name in ("text", "bert"):
        return batch | {"tokens": torch.randint(5, 80, (count, 10), generator=generator)}
    shape = (count, 3, 1, 16, 16) if name.startswith("frames") else (count, 1, 16, 16)
    return batch | {"video" if name.startswith("frames") else "image": torch.rand(shape, generator=generator)}


def saved(task: Any, path: Path) -> Path:
    """A checkpoint of the task, as a Trainer writes it."""
    run: Trainer = trainer(1)
    task.trainer = run
    run.strategy.connect(task)
    run.save_checkpoint(path)
    return path
