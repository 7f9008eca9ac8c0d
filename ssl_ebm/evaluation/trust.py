"""What a config file may name: reading one from a stranger imports no code but that of a few packages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.arguments import read_arguments

TRUSTED = ("ssl_ebm", "lightning.pytorch", "lightning.fabric", "torch.nn", "torch.optim", "torchmetrics")
FILES = ("-c", "--config", "--model", "--data", "--trainer")  # arguments that may be files of settings
LARGEST = 1_000_000  # bytes of a file of settings; larger ones are data
FLAG = "--trust_config"
VARIABLE = "SSL_EBM_TRUST_CONFIG"  # for a machine whose configs are one's own


def check_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments without the flag that trusts the config files.

    Without the flag, and without the variable in the environment, files may name nothing to import outside of
    the trusted packages. What stands on the command line is the user's own word, and may.

    Raises:
        UserError: a file names a module of another package that is there to be imported.
    """
    kept = [word for word in arguments if word != FLAG]
    if len(kept) < len(arguments) or os.environ.get(VARIABLE) == "1":
        return kept
    for one in read_arguments(kept):
        if one.name in FILES and one.value is not None:
            _check_file(Path(one.value), set())
    return kept


def _check_file(path: Path, seen: set[Path]) -> None:
    """A file that cannot be read is the parser's to complain of."""
    path = path.resolve()
    if path in seen:
        return
    seen.add(path)
    content: Any = None
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        content = yaml.safe_load(path.read_text())
    for text in _strings(content):
        if names_foreign_code(text):
            raise UserError(
                f"{path.name} names {text}, which is not of this package, Lightning or PyTorch: if you trust "
                f"the file, add {FLAG} to the command"
            )
        for folder in (path.parent, Path()):  # a value may be another file, with settings of its own
            with contextlib.suppress(OSError, ValueError):
                if (inner := folder / text).is_file() and inner.stat().st_size <= LARGEST:
                    _check_file(inner, seen)


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
