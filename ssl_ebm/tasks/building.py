"""Objects from their description in a YAML file, {"class_path": ..., "init_args": {...}}.

A task keeps the description among its settings, so that a checkpoint can rebuild it and holds plain values
alone.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace

from ssl_ebm.errors import UserError, in_one_line, user_error_behind
from ssl_ebm.tasks.config_files import NoYamlError, parse_settings
from ssl_ebm.tasks.construction import of_bearable_size, refuse_nulls

Built = TypeVar("Built")

TRUSTED = ("ssl_ebm", "torch.nn")  # packages whose classes may be made because a file names them


def build(description: Mapping[str, Any], kind: type[Built], name: str) -> Built:
    """The object that is described, with all objects among its arguments.

    Types are checked as LightningCLI checks them. A class outside of this package and torch.nn is made only
    if its module has been imported: a checkpoint from a stranger runs no code that was not there before.

    Args:
        description: {"class_path": ..., "init_args": {...}}, nested.
        kind: the class it must be one of.
        name: of the setting, for the error.

    Raises:
        UserError: no such class or argument, a value of a wrong type or out of range, a module that was not
            imported.
    """
    if not isinstance(description, Mapping | Namespace) or "class_path" not in description:
        raise UserError(f"{name}: describe it by class_path and init_args, got {description!r}")
    plain = _plain(description)
    for path in _dotted_names(plain):
        module = path.rpartition(".")[0]
        trusted = any(module == one or module.startswith(f"{one}.") for one in TRUSTED)
        if trusted and leads_elsewhere(path, TRUSTED):
            raise UserError(f"{name}: {path} is of another package than {module}: name it as that has it")
        known = module in sys.modules and module.partition(".")[0] not in sys.stdlib_module_names
        if not trusted and not known:
            raise UserError(f"{name}: import {module} before {path} is made from a file")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=kind, required=True)  # which, other than a subclass, reads no files
    try:
        parsed = parser.parse_object({name: plain})
        _refuse_nulls(parsed.as_dict()[name], name)
        with of_bearable_size():
            found = parser.instantiate(parsed)
    except argparse.ArgumentError as error:
        raise UserError(in_one_line(error)) from error
    except Exception as error:
        raise user_error_behind(error) or UserError(f"{name}: {in_one_line(error)}") from error
    built: Built = found[name]
    return built


def leads_elsewhere(name: str, trusted: Sequence[str]) -> bool:
    """Whether a dotted name in a trusted package stands for what its modules have imported from another one,
    as `ssl_ebm.files.os.system` does. Imports modules on the way to it, of that package alone.

    Args:
        trusted: packages.
    """
    parts, found = name.split("."), None
    for end, part in enumerate(parts, 1):
        if hasattr(found, part):
            found = getattr(found, part)
        elif found is None or isinstance(found, ModuleType):
            try:
                found = importlib.import_module(".".join(parts[:end]))
            except Exception:  # which is the parser's to complain of
                return False
        else:
            return False
        owner = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", None)
        if isinstance(owner, str) and not _is_of_one(owner, trusted):
            return True
    return False


def _is_of_one(module: str, trusted: Sequence[str]) -> bool:
    """Whether a module is in a trusted package, or one around it, or has torch's functions in C."""
    related = (f"{module}.".startswith(f"{one}.") or f"{one}.".startswith(f"{module}.") for one in trusted)
    return any(related) or module.startswith("torch._C")


def _plain(value: Any) -> Any:
    """Dictionaries and lists alone."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _refuse_nulls(value: Any, name: str) -> None:
    """In all descriptions inside, whose classes the parser has imported."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        settings = value.get("init_args") or {}
        refuse_nulls(value["class_path"], settings, name)
        for argument, inner in settings.items():
            _refuse_nulls(inner, f"{name}.{argument}")


def _dotted_names(value: Any) -> Iterator[str]:
    """All strings that could name something to import: jsonargparse takes them as values, too, and reads
    those that are YAML once more. What is a file or folder here, and no module, is the name of that, as
    reviews.csv."""
    if isinstance(value, str):
        name = value.strip()
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            if not (Path(name).exists() and find_spec(name.partition(".")[0]) is None):
                yield name
            return
        with suppress(NoYamlError):
            said = parse_settings(value, "a setting")
            if said != value:
                yield from _dotted_names(said)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _dotted_names(one)
    elif isinstance(value, list):
        for one in value:
            yield from _dotted_names(one)
