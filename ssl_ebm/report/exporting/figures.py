"""What the folder of a run says of its checkpoint: settings, and figures that were measured."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ssl_ebm.tasks.saving import checkpoint_folder

MOST = 100  # figures of one file: what has more is a table of its own


class Validation(NamedTuple):
    """Figures of the last validation: after which optimizer step, and its metrics by name."""

    step: int
    figures: dict[str, float]


class RunFolder:
    """The folder that a checkpoint lies in, as ``fit`` leaves it; nothing where it lies elsewhere.

    What is older than the run's config.yaml is of an earlier training in the same folder, and left out.

    Args:
        checkpoint: path of a file.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        path = Path(checkpoint).absolute()
        self.folder = path.parent.parent
        self.settings: dict[str, Any] = {}
        config = self.folder / "config.yaml"
        if path.parent != checkpoint_folder(self.folder) or not config.is_file():
            return
        self._began = config.stat().st_mtime
        try:
            found = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return
        self.settings = found if isinstance(found, dict) else {}

    def _of_this_run(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_mtime >= self._began

    def validation(self, steps: int | None) -> Validation | None:
        """The last validation up to so many optimizer steps, from the CSV file of the newest start."""
        if not self.settings:
            return None
        versions = (self.folder / "metrics").glob("version_*")
        numbered = sorted((int(one.name[8:]), one) for one in versions if one.name[8:].isdigit())
        table = numbered[-1][1] / "metrics.csv" if numbered else self.folder / "metrics.csv"
        if not self._of_this_run(table):
            return None
        try:
            with table.open(newline="", encoding="utf-8") as file:
                found = [_validation(row) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError, csv.Error):  # no table of Lightning's
            return None
        done = [one for one in found if one.figures and (steps is None or one.step <= steps)]
        return done[-1] if done else None

    def results(self, steps: int | None) -> dict[str, dict[str, str]]:
        """Names and values of the figures in each JSON file of the folder; none of long ones, nor of those
        that say that they are of another number of optimizer steps."""
        if not self.settings:
            return {}
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            if not self._of_this_run(path):
                continue
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if not isinstance(content, dict) or (steps is not None and content.get("steps", steps) != steps):
                continue
            figures = dict(_flat(content, ""))
            if 0 < len(figures) <= MOST:
                found[path.name] = figures
        return found


def _validation(row: dict[str, str]) -> Validation:
    """A row's metrics of validation; the table counts steps from 0."""
    values = {name: float(value) for name, value in row.items() if value and str(name).startswith("val/")}
    return Validation(int(row["step"]) + 1, values)


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Names such as ``trigram.perplexity`` and what they are; [value, low, high] is a value with an interval,
    where it holds a float: three whole numbers are a list of something.

    Other lists are left out.
    """
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and len(value) == 3 and all(isinstance(one, int | float) for one in value):
        if value[1] <= value[0] <= value[2] and any(isinstance(one, float) for one in value):
            yield name, f"{number(value[0])} ({number(value[1])} to {number(value[2])})"
    elif isinstance(value, bool | str):
        yield name, str(value)
    elif isinstance(value, int | float):
        yield name, number(value)


def number(value: float) -> str:
    """Six digits, as of a float32."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
