"""Data that a command is given: ``--data CLASS_OR_YAML --data.folder DIR``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from ssl_ebm.errors import UserError
from ssl_ebm.running.arguments import read_arguments
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.config_files import read_settings
from ssl_ebm.tasks.secret_settings import refuse_hidden


def data_description(data: str) -> dict[str, Any]:
    """A DataModule by class_path and init_args.

    Args:
        data: a class path, or a YAML file that describes a DataModule (or a whole config with one).

    Raises:
        UserError: a file that cannot be read, or that describes no data.
    """
    if Path(data).suffix not in (".yaml", ".yml"):
        return {"class_path": data}
    content = read_settings(data)
    found = content.get("data", content) if isinstance(content, dict) else None
    if not isinstance(found, dict) or "class_path" not in found:
        raise UserError(f"{data} describes no data: it needs class_path and init_args")
    return dict(found)


def make_data(data: str, settings: Sequence[str]) -> LightningDataModule:
    """The DataModule of a description (see `data_description`) and settings from the command line.

    Args:
        settings: as in ``--data.folder DIR``.

    Raises:
        UserError: as `data_description`; a setting that it does not have, or of something else, or one that
            was left out of a run's settings as a secret.
    """
    described = data_description(data)
    given = dict(described.get("init_args") or {})
    for one in read_arguments(settings):
        name, *words = one.words
        if not name.startswith("--data.") or len(words) != 1:
            raise UserError(f"unrecognized arguments: {' '.join(one.words)} (settings begin with --data.)")
        given[name.removeprefix("--data.")] = words[0]  # of the type that the setting has
    refuse_hidden({"data": given})
    return build({"class_path": described["class_path"], "init_args": given}, LightningDataModule, "data")
