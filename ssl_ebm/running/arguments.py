"""Arguments of a run before they are parsed: YAML files, and settings of a part of what they describe."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_ebm.tasks.config_files import NoSettingsError, parse_settings, read_settings


class Argument(NamedTuple):
    """`--name value` or `--name=value`; `value` is None at the end of the line."""

    name: str
    value: str | None
    words: tuple[str, ...]  # as they stand on the command line


def read_arguments(arguments: Sequence[str]) -> Iterator[Argument]:
    """The arguments in order; a word that belongs to none is one by itself.

    `-cFILE` is `-c FILE`, and never the value of the argument before.
    """
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith("-c") and name != "-c":
            name, equals, value = "-c", "=", word.removeprefix("-c")
        if not name.startswith("-"):
            yield Argument(word, None, (word,))
        elif equals:
            yield Argument(name, value, (word,))
        elif words and not words[0].startswith(("--", "-c")):
            value = words.pop(0)
            yield Argument(name, value, (word, value))
        else:
            yield Argument(name, None, (word,))


def names_a_task(arguments: Sequence[str]) -> bool:
    """Whether an argument, or a YAML file among them, chooses the class of the model."""
    found = list(read_arguments(arguments))
    chosen = any(one.name in ("--model", "--model.class_path") for one in found)
    return chosen or any("class_path" in model for model in _models(found))


def merge_parts(arguments: Sequence[str]) -> list[str]:
    """Settings of a part of an object that a YAML file describes are merged into its description.

    In a file, `model.energy` may be {"class_path": ..., "init_args": {"width": 64}}. Then
    `--model.energy.width 128` (or `--model.energy.init_args.width`) stands for the description with that
    width: the parser alone would take it for a description with nothing else. Another `class_path` starts
    from no arguments.
    """
    found = list(read_arguments(arguments))
    described: dict[str, Any] = {}
    for model in _models(found):
        settings = model.get("init_args") or {k: v for k, v in model.items() if k != "class_path"}
        if isinstance(settings, dict):
            described |= {k: copy.deepcopy(v) for k, v in settings.items() if _is_description(v)}
    kept: list[str] = []
    changed: dict[str, None] = {}  # in order
    for one in found:
        field, *path = _place(one)
        if not one.name.startswith("--model.") or one.value is None:
            kept += one.words
        elif path and field in described:
            _set(described[field], path, _value(one))
            changed[field] = None
        elif not path and one.value.startswith("{") and _is_description(whole := _value(one)):
            described[field] = whole  # what follows is a part of this one
            changed[field] = None
        else:
            kept += one.words
    merged = {field: json.dumps(described[field], default=str) for field in changed}
    return kept + [word for field, text in merged.items() for word in (f"--model.{field}", text)]


def with_given(
    settings: Mapping[str, Any], arguments: Sequence[str], parsed: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a model, as of a checkpoint, with those that the command line itself gives in their place:
    what a file among the arguments says does not count.

    Args:
        parsed: what the parser makes of the arguments.

    Raises:
        UserError: a value is no YAML.
    """
    found = copy.deepcopy(dict(settings))
    for one in read_arguments(arguments):
        field, *path = _place(one)
        if not one.name.startswith("--model.") or one.value is None:
            continue
        if path and not one.name.endswith("+") and _is_description(found.get(field)):
            _set(found[field], path, _value(one))
        elif (field := field.rstrip("+")) in parsed:
            found[field] = parsed[field]
    return found


def _place(argument: Argument) -> list[str]:
    """The argument of the model that is set, and where inside of it."""
    return argument.name.removeprefix("--model.").removeprefix("init_args.").split(".")


def _value(argument: Argument) -> Any:
    """What a value means as YAML.

    Raises:
        UserError: it is none.
    """
    return parse_settings(argument.value or "", f"{argument.name} {argument.value}")


def _models(found: Sequence[Argument]) -> Iterator[dict[str, Any]]:
    """What each YAML file says of the model; one that cannot be read is the parser's to complain of."""
    for one in found:
        if one.name in ("-c", "--config") and one.value is not None:
            with contextlib.suppress(NoSettingsError, ValueError, KeyError, TypeError):
                model = read_settings(one.value)["model"]
                if isinstance(model, dict):
                    yield model


def _is_description(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _set(description: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets an entry deep inside; below a description, a name is one of its arguments."""
    here: dict[str, Any] = description
    names = list(path)
    while names:
        name = names.pop(0)
        if _is_description(here) and name not in ("class_path", "init_args"):
            here = here.setdefault("init_args", {})
        if not names:
            if name == "class_path" and here.get(name) != value:
                here.pop("init_args", None)
            here[name] = value
        else:
            if not isinstance(here.get(name), dict):
                here[name] = {}
            here = here[name]
