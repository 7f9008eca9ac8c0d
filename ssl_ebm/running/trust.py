"""What a config file may name: reading one from a stranger makes no objects but those that
`ssl_ebm.tasks.naming` allows."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from jsonargparse import set_parsing_settings

from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.running.arguments import Argument, read_arguments
from ssl_ebm.tasks.config_files import (
    NoSettingsError,
    NoYamlError,
    parse_settings,
    read_settings,
    read_text,
)
from ssl_ebm.tasks.naming import (
    FLAG,
    FLAGS,
    PACKAGES,
    ForeignNameError,
    NoSuchNameError,
    is_address,
    look_up,
    of_a_stranger,
    of_the_user,
)

FOREIGN = "which is none of the classes of this package, Lightning or PyTorch that a file may name"
CONFIG = ("-c", "--config")
PARTS = ("model", "data", "trainer")  # settings that may be files, or have such among their own
SUFFIXES = (".yaml", ".yml", ".json")  # of files of settings
VARIABLE = "SSL_EBM_TRUST_CONFIG"  # for a machine whose configs are one's own

# Where a value stands: the type of that argument, or one of these.
SETTINGS = object()  # where the parser would read a file of settings
UNKNOWN = object()  # an argument of a class that is not known
CLASS = object()  # a class_path
KEY = object()  # the name of a setting
AT_THE_TOP = {"run_dir": str, "start_from": str, "ckpt_path": str}  # settings of a run that name data


def read_local_files_alone() -> None:
    """The parser opens no addresses: Lightning's command line lets a config name another by https://."""
    set_parsing_settings(config_read_mode_fsspec_enabled=False)


def trusts(arguments: Sequence[str]) -> bool:
    """Whether files may name what they like: by the flag, or by the variable in the environment."""
    return any(flag in arguments for flag in FLAGS) or os.environ.get(VARIABLE) == "1"


class Checked(NamedTuple):
    """Arguments of a run whose files have been checked.

    Attributes:
        arguments: without the flag that trusts the config files.
        barred: what the parser must not import; None: it may import whatever it meets.
        own: what the user himself names.
        flags: the flag that trusts the config files, where it was given.
    """

    arguments: list[str]
    barred: set[str] | None
    own: set[str]
    flags: tuple[str, ...] = ()


def check_configs(arguments: Sequence[str]) -> Checked:
    """Checks what the config files among the arguments name.

    Without the flag, and without the variable in the environment, files may name what
    `ssl_ebm.tasks.naming.of_a_stranger` allows, and no addresses. What stands on the command line is the
    user's own word, and may; files that it names may not.

    Raises:
        UserError: a file names anything else that is there to be imported, or cannot be read as a file of
            settings.
    """
    kept, trusted = [word for word in arguments if word not in FLAGS], trusts(arguments)
    found = [one for one in read_arguments(kept) if one.value is not None]
    contents = [
        read_settings(path)  # trusted or not: the parser would stumble over it
        for one in found
        if _is_for_settings(one)
        for path in _files(str(one.value), Path())
        if not (trusted and path.is_fifo())
    ]
    if trusted:
        return Checked(kept, None, set(), tuple(word for word in arguments if word in FLAGS))
    check = _Check(_chosen_classes(found, contents))
    with _bearable_depth():
        for one in found:
            check.argument(one)
        check.names_without_a_dot()
    return Checked(kept, check.barred - check.own, check.own)


def check_description(described: Mapping[str, Any], path: Path, is_chosen: bool = False) -> set[str]:
    """What the parser must not import of an object that a file describes by class_path and init_args.

    Args:
        is_chosen: the class is the user's own word.

    Raises:
        UserError: see `check_configs`.
    """
    check = _Check({})
    with _bearable_depth():
        check.described(described, path, SETTINGS, is_chosen)
        check.names_without_a_dot()
    return check.barred


@contextlib.contextmanager
def _bearable_depth() -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise UserError("the settings are nested too deeply: they are no settings") from error


class _Check:
    """Walks through settings, and through the files that they name, as the parser would.

    Args:
        classes: of model and data, for settings that do not name theirs.

    Attributes:
        barred: what the parser must not import.
        own: what the user himself names.
    """

    def __init__(self, classes: dict[str, str]) -> None:
        self.classes = classes
        self.barred: set[str] = set()
        self.own: set[str] = set()
        self.short: list[tuple[str, Path, bool]] = []
        self.seen: set[tuple[Path, bool]] = set()

    def argument(self, one: Argument) -> None:
        """The files that an argument of the command line stands for, or names."""
        value = str(one.value)
        part, *path = one.name.removeprefix("--").rstrip("+").replace(".init_args.", ".").split(".")
        if one.name in CONFIG:
            if value == "-":
                raise UserError(f"{one.name} -: write the settings to a file, and give that, or add {FLAG}")
            for file in (files := list(_files(value, Path()))):
                self.file(file, is_config=True)
            if not files:  # settings themselves
                self.value(value, None, SETTINGS)
        elif _is_for_settings(one):
            self.value(value, None, SETTINGS)
        elif part in PARTS and len(path) == 1:
            self.value(value, None, _types_of(self.classes.get(part)).get(path[0], UNKNOWN))
        elif part in PARTS:
            self.value(value, None, UNKNOWN)

    def file(self, path: Path, is_config: bool = False) -> None:
        if (path, is_config) in self.seen:
            return
        self.seen.add((path, is_config))
        text = read_text(path)
        content = parse_settings(text, str(path))
        if is_config and isinstance(content, dict):
            for name, one in self.with_classes(content):
                if name == "$schema":  # for editors
                    continue
                self.value(name, path, KEY)
                self.value(one, path, AT_THE_TOP.get(name, UNKNOWN))
            return
        self.value(content, path, UNKNOWN)
        for line in text.splitlines():  # the parser also takes a file for a list, of a value in each line
            self.value(line, path, UNKNOWN)

    def with_classes(self, content: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """The entries of a config; settings of a part as of the class chosen, and as of the one they name."""
        for name, one in content.items():
            if not isinstance(one, dict) or name not in self.classes:
                yield name, one
                continue
            chosen = {"class_path": self.classes[name]}
            yield name, one | chosen if "init_args" in one else chosen | {"init_args": one}
            if "class_path" in one:
                yield name, one

    def value(self, value: Any, source: Path | None, place: Any) -> None:
        """Args:
        source: the file it stands in; None for the command line, which may name what it likes.
        place: the type of the argument whose value it is, `SETTINGS` or `UNKNOWN`.
        """
        if isinstance(value, str):
            self.text(value, source, place)
        elif isinstance(value, list):
            for one in value:
                self.value(one, source, place)
        elif isinstance(value, dict):
            self.described(value, source, place)

    def described(
        self, value: Mapping[Any, Any], source: Path | None, place: Any, is_chosen: bool = False
    ) -> None:
        """A mapping, which may describe an object; `is_chosen`: by a class that is not to be checked."""
        types = _types_of(value.get("class_path"))
        for name, one in value.items():
            self.value(name, source, KEY)
            if name in ("init_args", "dict_kwargs") and isinstance(one, dict):
                for argument, inner in one.items():
                    self.value(argument, source, KEY)
                    self.value(inner, source, types.get(argument, UNKNOWN))
            elif str(name).rpartition(".")[2] == "class_path" and isinstance(one, str):
                if not is_chosen:
                    self.value(one, source, CLASS)
            else:
                self.value(one, source, place)

    def name(self, name: str, source: Path, is_class: bool) -> None:
        try:
            self.barred |= of_a_stranger(name, is_class)
        except NoSuchNameError as error:
            raise UserError(f"{source.name}: {error}") from error
        except ForeignNameError as error:
            raise UserError(
                f"{source.name} names {name}, {FOREIGN}: if you trust the file, add {FLAG} to the command"
            ) from error

    def names_without_a_dot(self) -> None:
        """To be asked when all others have been judged, whose modules may hold classes that go by them."""
        for short in self.short:
            self.name(*short)

    def text(self, text: str, source: Path | None, place: Any) -> None:
        name = text.strip()
        if source is not None and is_address(name):
            raise UserError(
                f"{source.name} names {name}, an address: if you trust it, add {FLAG} to the command"
            )
        if _is_plain(place):  # of which the parser imports nothing
            return
        if source is None:
            self.own |= of_the_user(name)
        elif "." in name:
            self.name(name, source, place is CLASS)
        else:
            self.short.append((name, source, place is CLASS))
        if place is KEY:
            return
        with contextlib.suppress(NoYamlError):
            said = parse_settings(text, source.name if source else "a setting")
            if said != text:  # the parser reads what stands in quotation marks once more
                self.value(said, source, place)
        folders = [Path()] if source is None else [Path(os.path.abspath(source.parent)), Path()]
        for path in {file for folder in folders for file in _files(text, folder)}:
            if source is None and place is UNKNOWN and path.suffix.lower() not in SUFFIXES:
                continue  # the user's own data
            try:
                self.file(path)
            except NoSettingsError as error:
                raise UserError(
                    f"{in_one_line(error)} (named by {source.name if source else 'the command line'}, where "
                    f"settings may stand; if you trust it, add {FLAG})"
                ) from error


def _is_for_settings(one: Argument) -> bool:
    """Whether the value of an argument may be a file of settings, whatever it is called."""
    name = one.name.rstrip("+")
    return name in CONFIG or name.removeprefix("--") in PARTS or name.startswith("--trainer.")


def _files(text: str, folder: Path) -> Iterator[Path]:
    """The file that the parser would open for a value, if there is one."""
    root = "" if os.name == "nt" else "/"
    path = (folder / re.sub("^file:///?", root, os.path.expanduser(text))).absolute()
    with contextlib.suppress(OSError, ValueError):  # a name that none can have
        if path.is_file() or path.is_fifo():
            yield path


def _chosen_classes(found: Sequence[Argument], contents: Sequence[Any]) -> dict[str, str]:
    """The trusted classes of model and data that files or, above them, the command line choose."""
    chosen: dict[str, str] = {}
    for content in contents:
        for part in ("model", "data"):
            described = content.get(part) if isinstance(content, dict) else None
            named = described.get("class_path") if isinstance(described, dict) else described
            if isinstance(named, str):
                chosen[part] = named
    for one in found:
        part = one.name.removeprefix("--").removesuffix(".class_path")
        if part in ("model", "data"):
            chosen[part] = str(one.value)
    return {part: one for part, one in chosen.items() if _is_trusted(one)}


def _is_trusted(name: str) -> bool:
    with contextlib.suppress(ForeignNameError, NoSuchNameError):
        return name.startswith(PACKAGES) and not of_a_stranger(name, is_class=True)
    return False


def _types_of(class_path: Any) -> dict[str, Any]:
    """The types of a class's arguments; none where it is not one of those that may be named, or not there."""
    if not isinstance(class_path, str) or not _is_trusted(class_path):
        return {}
    types: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # a module that cannot be imported is the parser's to complain of
        for one in look_up(class_path).__mro__:
            types = get_type_hints(one.__init__) | types
    return types


def _is_plain(place: Any) -> bool:
    """Whether values of a type describe no object, so that the parser takes a file's name for a name."""
    if place is None or place is NoneType:
        return True
    if isinstance(place, type) and get_origin(place) is None:
        return issubclass(place, str | int | float | os.PathLike)
    origin, inner = get_origin(place), [one for one in get_args(place) if one is not ...]
    if origin is Literal:
        return True
    is_container = isinstance(origin, type) and issubclass(origin, list | tuple | dict | Sequence)
    return (origin in (Union, UnionType) or is_container) and bool(inner) and all(map(_is_plain, inner))
