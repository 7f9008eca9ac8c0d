"""The command of a run without what looks like a secret (see `ssl_ebm.tasks.secret_settings`)."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ssl_ebm.running.arguments import read_arguments
from ssl_ebm.tasks.config_files import NoSettingsError, parse_settings
from ssl_ebm.tasks.secret_settings import HIDDEN, names_secret, without_secrets


def command_without_secrets(words: Sequence[str]) -> list[str]:
    """A command with `HIDDEN` in place of such values: ``--a.api_key VALUE``, ``--a.api_key=VALUE``, and
    within settings that are given as YAML or JSON, which are written again as JSON."""
    kept: list[str] = []
    for one in read_arguments(words):
        value = one.words[-1] if one.value is None else one.value
        shown = _shown_value("" if one.value is None else one.name, value)
        kept += [*one.words[:-1], one.words[-1].removesuffix(value) + shown]
    return kept


def _shown_value(flag: str, value: str) -> str:
    if flag.startswith("--") and names_secret(flag.removeprefix("--").rstrip("+")):
        return value if value.lower() in ("", "null", "true", "false") else HIDDEN
    said: Any = value
    with contextlib.suppress(NoSettingsError):
        said = parse_settings(value, flag)
    if isinstance(said, str) and said != value:  # in quotation marks, which the parser reads once more
        return value if _shown_value("", said) == said else _shown_value("", said)
    shown = without_secrets(said if isinstance(said, dict | list) else value)
    if not shown.hidden:
        return value
    return shown.settings if isinstance(shown.settings, str) else json.dumps(shown.settings)


@contextlib.contextmanager
def shown_without_secrets() -> Iterator[None]:
    """A block in which other code finds no secret on this process's command line, which wandb keeps."""
    before = sys.argv
    sys.argv = command_without_secrets(before)
    try:
        yield
    finally:
        sys.argv = before
