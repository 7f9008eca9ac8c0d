"""What `predict` writes: everything that the model said, and a table of it."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ssl_ebm.data.loading import StreamData
from ssl_ebm.files import whole

NAMES_OF_CLASSES = "classes"  # entry of an output that says what its classes are called
CLASSES = ("class", "label")  # columns of which it does
PROBABILITY = "probability"  # of every class
NUMBERS = ("index", "clip", "start")  # entries of a batch that say which items these are
NO_TEXT = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # half a character, and no byte of a file's name


class Predictions(Callback):
    """Writes predictions of the test items to two files in the folder of the run:

        predictions.pt: a list with what `predict_step` returned for each batch.
        predictions.csv: a row for each item, with its batch and its place in it, its number in the split
            ("index"; of clips "clip", and the first frame, "start"), the name of its file where there is one,
            and everything of which an item has one number: of a tensor (B,) "prediction", of a dictionary of
            tensors those that are (B,), and of a "probability" (B, K) the largest. Classes are written as
            their names (a half of a character in one as \\ud800).

    Each of several processes writes what it predicted, to predictions.RANK.pt and .csv.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: list[dict[str, list[Any]]] = []  # of each batch, its columns

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Gathers the columns of a batch."""
        said = outputs if isinstance(outputs, Mapping) else {"prediction": outputs}
        items = next((len(one) for one in said.values() if isinstance(one, Tensor) and one.ndim), 0)
        if not items:  # nothing that a table could have
            return
        given = batch if isinstance(batch, Mapping) else {}
        data = getattr(trainer, "datamodule", None)
        names = data.names_in_batch("test", given) if isinstance(data, StreamData) else None
        table: dict[str, list[Any]] = {"batch": [batch_idx] * items, "place": [*range(items)]}
        if names is not None and len(names) == items:
            table["name"] = names
        for name, values in ({name: given[name] for name in NUMBERS if name in given} | dict(said)).items():
            if isinstance(values, Tensor) and name == PROBABILITY and values.ndim == 2:
                values = values.amax(1)
            if isinstance(values, Tensor) and values.shape == (items,):
                table[name] = _readable(name, values, said.get(NAMES_OF_CLASSES))
        self._tables.append(table)

    def write(self, predictions: Any, trainer: Trainer) -> None:
        """Writes both files, and says where.

        Args:
            predictions: what the Trainer returned.

        Raises:
            UserError: a file cannot be written; what was there before stays.
        """
        rank = f".{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"predictions{rank}.pt"
        with whole(path) as partial, open(partial, "wb") as file:  # torch's own file hides what went wrong
            torch.save(predictions, file)
        table = path.with_suffix(".csv")
        with (
            whole(table) as partial,
            open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as text,
        ):
            columns = [*dict.fromkeys(name for one in self._tables for name in one)]
            writer = csv.writer(text)
            writer.writerow(columns)
            for one in self._tables:
                missing = [""] * len(one["place"])
                writer.writerows(zip(*(one.get(name, missing) for name in columns), strict=True))
        print(f"predictions: {path}, and a table of them: {table}")


def _readable(name: str, values: Tensor, classes: Any) -> list[Any]:
    """Values (B,) as a table has them."""
    found: list[Any] = values.tolist()
    if name in CLASSES and isinstance(classes, list):
        names = (classes[number] if 0 <= number < len(classes) else "" for number in found)
        return [NO_TEXT.sub(_escaped, str(one)) for one in names]
    return [f"{one:.6g}" if isinstance(one, float) else one for one in found]


def _escaped(half: re.Match[str]) -> str:
    return f"\\u{ord(half[0]):x}"
