"""What a config file may name: reading one from a stranger imports no code but that of a few packages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.arguments import read_arguments
from ssl_ebm.evaluation.config_files import NoSettingsError, read_settings

TRUSTED = ("ssl_ebm", "lightning.pytorch", "lightning.fabric", "torch.nn", "torch.optim", "torchmetrics")
FILES = ("-c", "--config", "--model", "--data", "--trainer")  # arguments that may be files of settings
FLAG = "--trust_config"
VARIABLE = "SSL_EBM_TRUST_CONFIG"  # for a machine whose configs are one's own


def check_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments without the flag that trusts the config files.

    Without the flag, and without the variable in the environment, files may name nothing to import outside of
    the trusted packages. What stands on the command line is the user's own word, and may.

    Raises:
        UserError: a file names a module of another package that is there to be imported, or cannot be read as
            a file of settings.
    """
    kept = [word for word in arguments if word != FLAG]
    trusted = len(kept) < len(arguments) or os.environ.get(VARIABLE) == "1"
    for one in read_arguments(kept):
        if one.name in FILES and one.value is not None and _is_file(Path(one.value)):
            content = read_settings(one.value)  # trusted or not: the parser would stumble over it
            if not trusted:
                _check_content(content, Path(one.value).resolve(), set())
    return kept


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that none can have
        return False


def _check_content(content: Any, path: Path, seen: set[Path]) -> None:
    seen.add(path)
    for text in _strings(content):
        if names_foreign_code(text):
            raise UserError(
                f"{path.name} names {text}, which is not of this package, Lightning or PyTorch: if you trust "
                f"the file, add {FLAG} to the command"
            )
        for folder in (path.parent, Path()):  # a value may be another file, with settings of its own
            inner = (folder / text).absolute()
            if inner not in seen and _is_file(inner):
                with contextlib.suppress(NoSettingsError):  # but most are data
                    _check_content(read_settings(inner), inner, seen)


def names_foreign_code(text: str) -> bool:
    """Whether a value could be taken for the dotted name of a class or function outside of what is trusted.

    A dotted name whose first part is no module, such as a file's, imports nothing.
    """
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return False
    if any(text.startswith(f"{one}.") for one in TRUSTED):
        return False
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(parts[0]) is not None
    return True


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _strings(key)
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
