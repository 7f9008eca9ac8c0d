"""The table of a run's metrics: a full disk neither tears nor empties it, and no training stops for it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers.csv_logs import CSVLogger, ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.files import whole


class WholeTable(ExperimentWriter):
    """Lightning's ``metrics.csv``, of which each row is there as a whole, once, or not yet.

    Lightning writes the file over where there is a new column, which loses all rows where that fails; and
    where rows cannot be added, half of them may be there, and again the next time. Hyper-parameters are
    written with the first rows: a start that is refused before leaves no file.
    """

    _told = True  # of the hyper-parameters

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Keeps them for `save_hparams`."""
        self.hparams.update(params)
        self._told = False

    def save_hparams(self) -> None:
        """Writes hparams.yaml, unless it holds them."""
        if not self._told:
            save_hparams_to_yaml(Path(self.log_dir) / self.NAME_HPARAMS_FILE, self.hparams)
            self._told = True

    def save(self) -> None:
        """Writes the rows since the last time.

        Raises:
            OSError, UserError: they cannot be written; they are kept for the next time.
        """
        if not self.metrics:
            return
        self.save_hparams()
        path = Path(self.metrics_file_path)
        keys = sorted(set(self.metrics_keys).union(*self.metrics))
        if path.exists() and keys == self.metrics_keys:
            _append(path, keys, self.metrics)
        else:
            rows: list[Mapping[str, Any]] = [*_rows(path), *self.metrics]
            with whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, keys)
                table.writeheader()
                table.writerows(rows)
        self.metrics_keys, self.metrics = keys, []


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _append(path: Path, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    size = path.stat().st_size
    try:
        with open(path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, keys).writerows(rows)
    except BaseException:  # Ctrl-C among them
        with suppress(OSError):
            os.truncate(path, size)
        raise


class MetricsTable(CSVLogger):
    """Lightning's CSV logger, with a `WholeTable`: where it cannot be written, a warning says so once, rows
    wait in memory for the next time, and training goes on. It stops where a checkpoint cannot be written.
    """

    _warned = False

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes the table."""
        if self._experiment is None:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = WholeTable(self.log_dir)
        assert isinstance(self._experiment, WholeTable)
        return self._experiment

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows since the last time, or warns."""
        try:
            super().save()
        except (OSError, UserError) as error:
            if not self._warned:
                rank_zero_warn(f"metrics wait in memory, to be written later ({in_one_line(error)})")
            self._warned = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the last rows, or says that they are lost; leaves no empty folder of a start that failed."""
        super().finalize(status)
        if not isinstance(self._experiment, WholeTable):
            return
        if rows := len(self._experiment.metrics):
            rank_zero_warn(f"{rows} rows of {self._experiment.metrics_file_path} could not be written")
        with suppress(OSError):  # no room; or the folder is not empty
            if status == "success":
                self._experiment.save_hparams()
            else:
                os.rmdir(self.log_dir)
