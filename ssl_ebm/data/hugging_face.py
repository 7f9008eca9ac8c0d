"""Datasets of Hugging Face as documents, where their library is installed: `pip install datasets`.

What lies on disk needs no network: a folder that `datasets` has saved (`save_to_disk`), a folder of parquet,
arrow, CSV or JSON files, or one such file. Of the Hub only data are loaded, and no code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from ssl_ebm.data.text_files import Row, Seen, ignore
from ssl_ebm.errors import UserError, in_one_line

SAVED = ("dataset_dict.json", "state.json")  # in a folder that `save_to_disk` has written
KINDS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}
AT_ONCE = 1000  # rows that are read together


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` has written it."""
    return any((folder / name).is_file() for name in SAVED)


@dataclass(frozen=True)
class DatasetSplit:
    """A split of a dataset.

    Args:
        dataset: a `datasets.Dataset`.
        name: how messages call it.
        split: "train", "val" or "test", where its name says so.
        texts: columns whose texts are joined by a space.
        label: column of the class; None: there is none.
    """

    measure: ClassVar[str] = "rows"

    dataset: Any
    name: str
    split: str | None
    texts: tuple[str, ...]
    label: str | None

    def __str__(self) -> str:
        return self.name

    def size(self) -> int:
        """In rows."""
        return len(self.dataset)

    def digest(self) -> str:
        """Names the content, by the library's own fingerprint."""
        return f"{self.split} {self.dataset._fingerprint} {len(self.dataset)}"

    def rows(self, seen: Seen = ignore) -> Iterator[Row]:
        """All texts, blank ones among them; `seen` is told how many more rows have been read.

        Raises:
            UserError: a text that is none; it says where.
        """
        columns = [*self.texts, *([] if self.label is None else [self.label])]
        row = 0
        for batch in self.dataset.select_columns(sorted(set(columns))).iter(AT_ONCE):
            seen(len(batch[columns[0]]))
            for i in range(len(batch[columns[0]])):
                name = f"{self.name}, row {row}"
                row += 1
                parts = [batch[column][i] for column in self.texts]
                if not all(isinstance(part, str) for part in parts):
                    raise UserError(f"{name}: {'+'.join(self.texts)} is no text: leave the row out")
                label = None if self.label is None else self._class(batch[self.label][i])
                yield Row(" ".join(parts), name, label)

    def _class(self, value: Any) -> str | None:
        """Name of a class; of a `ClassLabel` -1 is none."""
        feature = self.dataset.features[self.label]
        if hasattr(feature, "int2str"):
            return None if value is None or value < 0 else str(feature.int2str(value))
        return None if value is None else str(value)


def sources(
    name: str, text_column: str, label_column: str | None, *, optional: bool, splits: Mapping[str, str]
) -> list[DatasetSplit]:
    """The splits of a dataset.

    Args:
        name: a folder or a file on disk, or a name on the Hub, with ":" and the name of a configuration.
        text_column: with the text; "premise+hypothesis" joins two.
        label_column: with the class, null: there is none. Without one, where labels are wanted: an error.
        optional: documents without a label are read, too, and so are splits without the column.
        splits: what their names stand for: {"validation": "val", ...}; another one fixes none.

    Raises:
        UserError: the library is not installed; the dataset or a column is not there, or it cannot be read.
    """
    found = load(name)
    made = []
    for part, dataset in found.items():
        where, columns = f"{name}, {part}", list(dataset.column_names)
        texts = (text_column,) if text_column in columns else tuple(text_column.split("+"))
        label = label_column
        if label not in (None, *columns) and optional:
            label = None
        for setting, wanted in (("text_column", texts), ("label_column", () if label is None else (label,))):
            for column in wanted:
                if column not in columns:
                    raise UserError(
                        f"{where} has no column {column!r}, it has {', '.join(columns)}: set {setting} to "
                        "one of these"
                    )
        made.append(DatasetSplit(dataset, where, splits.get(part.lower()), texts, label))
    return made


def load(name: str) -> dict[str, Any]:
    """The splits of a dataset by name, mapped from disk; errors as `sources`."""
    if find_spec("datasets") is None:
        raise UserError(f"to read hf:{name}, datasets must be installed: pip install datasets")
    library: Any = import_module("datasets")
    config = ""
    if not Path(name).exists():
        name, _, config = name.partition(":")
    path = Path(name)
    try:
        if is_saved(path):
            found = library.load_from_disk(name)
        elif path.is_file():
            if path.suffix.lower() not in KINDS:
                raise UserError(f"{path} is no dataset: use {', '.join(KINDS)}")
            found = library.load_dataset(KINDS[path.suffix.lower()], data_files=name)
        else:
            found = library.load_dataset(name, config or None)
    except UserError:
        raise
    except Exception as error:  # one type for each way in which a dataset can be missing or wrong
        raise UserError(f"cannot read the dataset hf:{name}: {in_one_line(error)}") from error
    return dict(found) if isinstance(found, dict) else {"all": found}
