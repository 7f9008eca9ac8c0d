"""Reading files of settings, which may be damaged, or made to exhaust whoever reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ssl_ebm.errors import UserError

LARGEST = 1_000_000  # bytes of a file of settings; larger ones are data
DEEPEST = 50  # levels of nesting; those who read settings call themselves once for each, several times over
LONGEST = 2 * LARGEST  # characters, where each use of an alias counts as what it stands for


class NoSettingsError(UserError):
    """A file that cannot be a file of settings; the message says which and why."""


def read_settings(path: str | Path) -> Any:
    """What a YAML file says; None where it is no YAML, which the parser says with the place.

    Raises:
        NoSettingsError: it cannot be read, is no text in UTF-8, or too large, nested too deeply, or has
            aliases that stand for too much, or for themselves.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise NoSettingsError(f"{path} has more than {LARGEST:,} bytes: it is no file of settings")
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoSettingsError(f"{path} is not UTF-8, at byte {error.start}: mend it") from error
    except OSError as error:
        raise NoSettingsError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        _check_size(text, path)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # a date or a number that is none
        return None


def _check_size(text: str, path: Path) -> None:
    """Walks through the file without building anything of it."""
    meant: dict[str, int] = {}  # characters that an alias stands for
    around: list[tuple[str | None, int]] = []  # lists and mappings: anchor, characters before them
    length = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            around.append((event.anchor, length))
            length += 1
            if len(around) > DEEPEST:
                raise NoSettingsError(
                    f"{path} is nested over {DEEPEST} levels deep: it is no file of settings"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = around.pop()
            if anchor is not None:
                meant[anchor] = length - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in around):
                raise NoSettingsError(f"in {path} *{event.anchor} stands for something that it is a part of")
            length += meant.get(str(event.anchor), 0)
        elif isinstance(event, yaml.ScalarEvent):
            length += 1 + len(event.value)
            if event.anchor is not None:
                meant[event.anchor] = 1 + len(event.value)
        if length > LONGEST:
            raise NoSettingsError(
                f"the aliases of {path} stand for over {LONGEST:,} characters: write them out"
            )
