"""Objects from their description in a YAML file, {"class_path": ..., "init_args": {...}}.

A task keeps the description among its settings, so that a checkpoint can rebuild it and holds plain values
alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from textwrap import shorten
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, Namespace

from ssl_ebm.errors import UserError, in_one_line, user_error_behind
from ssl_ebm.tasks.config_files import NoYamlError, parse_settings
from ssl_ebm.tasks.construction import of_bearable_size, refuse_nulls
from ssl_ebm.tasks.hints import with_hint
from ssl_ebm.tasks.naming import (
    FLAG,
    ForeignNameError,
    NoSuchNameError,
    importing,
    in_our_words,
    is_address,
    is_dotted,
    of_a_checkpoint,
    trusts_all,
)

SHOWN = 80  # characters of a wrong description in a message

Built = TypeVar("Built")


def build(description: Mapping[str, Any], kind: type[Built], name: str) -> Built:
    """The object that is described, with all objects among its arguments.

    Types are checked as LightningCLI checks them. What is made is one of the classes that
    `ssl_ebm.tasks.naming` lets a checkpoint name: one from a stranger runs no code of his.

    Args:
        description: {"class_path": ..., "init_args": {...}}, nested.
        kind: the class it must be one of.
        name: of the setting, for the error.

    Raises:
        UserError: no such class or argument, a value of a wrong type or out of range, a name that a file may
            not have.
    """
    plain = _plain(description)
    if not isinstance(plain, dict) or not isinstance(plain.get("class_path"), str):
        raise UserError(
            f"{name}: describe it by class_path and init_args, the class by its name (module.Class; of a "
            f"notebook or script: __main__.Class), got {shorten(repr(description), SHOWN)}"
        )
    barred = set[str]()
    for path, is_class in _names(plain):
        if is_address(path) and not trusts_all():
            raise UserError(f"{name}: {path} is an address, which a file may not name")
        try:
            barred |= of_a_checkpoint(path, is_class)
        except NoSuchNameError as error:
            raise UserError(f"{name}: {error}") from error
        except ForeignNameError as error:
            reason = f"{name}: {path} is none of the classes that a file may name"
            if is_dotted(path) and (module := path.rpartition(".")[0]) not in sys.modules:
                reason += f"; if it is your own, add {FLAG}, or in Python import {module} before"
            raise UserError(reason) from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=kind, required=True)  # which, other than a subclass, reads no files
    try:
        with importing(None if trusts_all() else barred), of_bearable_size():
            parsed = parser.parse_object({name: plain})
            _refuse_nulls(parsed.as_dict()[name], name)
            found = parser.instantiate(parsed)
    except argparse.ArgumentError as error:
        raise UserError(with_hint(in_our_words(in_one_line(error)))) from error
    except Exception as error:
        raise user_error_behind(error) or UserError(f"{name}: {in_our_words(in_one_line(error))}") from error
    built: Built = found[name]
    return built


def _plain(value: Any) -> Any:
    """Dictionaries and lists alone."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple | set) else value


def _refuse_nulls(value: Any, name: str) -> None:
    """In all descriptions inside, whose classes the parser has imported."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        settings = value.get("init_args") or {}
        refuse_nulls(value["class_path"], settings, name)
        for argument, inner in settings.items():
            _refuse_nulls(inner, f"{name}.{argument}")


def _names(value: Any, is_class: bool = False) -> Iterator[tuple[str, bool]]:
    """All strings that could name something to import, and whether as a class: jsonargparse takes any for
    one, and reads those that are YAML once more."""
    if isinstance(value, str):
        name = value.strip()
        yield name, is_class
        if is_dotted(name):
            return
        with suppress(NoYamlError):
            said = parse_settings(value, "a setting")
            if said != value:
                yield from _names(said, is_class)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _names(one, str(key).rpartition(".")[2] == "class_path")
    elif isinstance(value, list):
        for one in value:
            yield from _names(one)
