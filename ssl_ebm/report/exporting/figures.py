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
        versions = (self.folder / "metrics").glob("version_*")
        numbered = sorted((int(one.name[8:]), one) for one in versions if one.name[8:].isdigit())
        if not self.settings or not numbered or not self._of_this_run(numbered[-1][1] / "metrics.csv"):
            return None
        last = None
        with (numbered[-1][1] / "metrics.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                figures = {name: value for name, value in row.items() if name.startswith("val/") and value}
                if figures and (steps is None or int(row["step"]) < steps):
                    last = Validation(
                        int(row["step"]) + 1, {name: float(value) for name, value in figures.items()}
                    )
        return last

    def results(self) -> dict[str, dict[str, str]]:
        """Names and values of the figures in each JSON file of the folder; of long ones none."""
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
            figures = dict(_flat(content, "")) if isinstance(content, dict) else {}
            if 0 < len(figures) <= MOST:
                found[path.name] = figures
        return found


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Names such as ``trigram.perplexity`` and what they are; [value, low, high] is a value with an interval.

    Other lists are left out.
    """
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and len(value) == 3 and all(isinstance(one, int | float) for one in value):
        if value[1] <= value[0] <= value[2]:
            yield name, f"{number(value[0])} ({number(value[1])} to {number(value[2])})"
    elif isinstance(value, bool | str):
        yield name, str(value)
    elif isinstance(value, int | float):
        yield name, number(value)


def number(value: float) -> str:
    """Six digits, as of a float32."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
