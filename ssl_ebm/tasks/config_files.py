"""Reading files of settings, which may be damaged, or made to exhaust whoever reads them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from ssl_ebm.errors import UserError, in_one_line

LARGEST = 1_000_000  # bytes of a file of settings; larger ones are data
DEEPEST = 50  # levels of nesting; those who read settings call themselves once for each, several times over
LONGEST = 2 * LARGEST  # characters, where each use of an alias counts as what it stands for

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # what the parser's own is made from


class NoSettingsError(UserError):
    """A file that cannot be a file of settings; the message says which and why."""


class NoYamlError(NoSettingsError):
    """A text that the parser cannot read, either."""


def read_settings(path: str | Path) -> Any:
    """What a YAML file says, as the parser of the command line reads it.

    Raises:
        NoSettingsError: it cannot be read, is no text in UTF-8, no YAML, or too large, nested too deeply, or
            has aliases that stand for too much, or for themselves.
    """
    return parse_settings(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """The text of a file that may be one of settings.

    Raises:
        NoSettingsError: it cannot be read, is no text in UTF-8, or too large.
    """
    path = Path(path)
    try:
        if path.is_fifo():  # which can be read once, and the parser has to read it, too
            raise NoSettingsError(f"{path} is a pipe: write what comes out of it to a file, and give that")
        if path.stat().st_size > LARGEST:
            raise NoSettingsError(f"{path} has more than {LARGEST:,} bytes: it is no file of settings")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoSettingsError(f"{path} is not UTF-8, at byte {error.start}: mend it") from error
    except OSError as error:
        raise NoSettingsError(f"cannot read {path}: {error.strerror or error}") from error


def parse_settings(text: str, name: str) -> Any:
    """What a text says in YAML, as the parser of the command line reads it: a date, say, is text to it.

    Args:
        name: of the text, for errors.

    Raises:
        NoYamlError: it is no YAML.
        NoSettingsError: nested too deeply, or with aliases that stand for too much, or for themselves.
    """
    try:
        _check_size(text, name)
        return get_loader("yaml")(text)
    except NoSettingsError:
        raise
    except Exception as error:  # besides its own errors, those of int() and the like
        raise NoYamlError(f"{name} is no YAML: {in_one_line(error)}") from error


def settings_as_yaml(settings: Any) -> str:
    """Settings as a text that the parser reads as the same: it takes 1e-5 and 1.5e5 for numbers, which PyYAML
    takes for words and writes without quotation marks."""
    text: str = yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Dumper(yaml.SafeDumper):
    """Puts words that the parser would take for numbers in quotation marks."""

    def represent_word(self, word: str) -> yaml.ScalarNode:
        looks_like_number = word[:1] in "+-.0123456789"
        is_number = looks_like_number and isinstance(_read(word), int | float)
        return self.represent_scalar("tag:yaml.org,2002:str", word, style="'" if is_number else None)


_Dumper.add_representer(str, _Dumper.represent_word)


def _read(word: str) -> Any:
    """What the parser takes a word for; None: for nothing."""
    with contextlib.suppress(Exception):  # as in `parse_settings`
        return get_loader("yaml")(word)
    return None


def _check_size(text: str, name: str) -> None:
    """Walks through the file without building anything of it."""
    meant: dict[str, int] = {}  # characters that an alias stands for
    around: list[tuple[str | None, int]] = []  # lists and mappings: anchor, characters before them
    length = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            around.append((event.anchor, length))
            length += 1
            if len(around) > DEEPEST:
                raise NoSettingsError(
                    f"{name} is nested over {DEEPEST} levels deep: it is no file of settings"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = around.pop()
            if anchor is not None:
                meant[anchor] = length - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in around):
                raise NoSettingsError(f"in {name} *{event.anchor} stands for something that it is a part of")
            length += meant.get(str(event.anchor), 0)
        elif isinstance(event, yaml.ScalarEvent):
            length += 1 + len(event.value)
            if event.anchor is not None:
                meant[event.anchor] = 1 + len(event.value)
        if length > LONGEST:
            raise NoSettingsError(
                f"the aliases of {name} stand for over {LONGEST:,} characters: write them out"
            )
