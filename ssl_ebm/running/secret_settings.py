"""Settings that look like a secret, such as the key of a logger, whose values a run writes nowhere."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence

HIDDEN = "HIDDEN"  # stands for the value
# A text's tokens are none: `mask_token` and `tokens` are settings as any other.
_NAME = (
    r"(?<!\w)(?:(?:\w+_)?(?:api_?key|access_?key|secret_?key|private_?key|password|passwd|secret|credentials?)"
    r"|(?:(?:api|auth|access|bearer|hf|hub|wandb)_?)?token)"
)
_FLAG = re.compile(rf"--(?:[\w-]+\.)*{_NAME}\+?", re.I)
# As YAML, JSON or name=value.
_SET = re.compile(
    rf"""({_NAME})(['"]?\s*[:=]\s*)(?!null\b)(?:(["'])(?:\\.|(?!\3)[^\\])*\3|[^\s,}}\]'"]+)""", re.I
)


def secrets_in(text: str) -> list[str]:
    """Names of the settings in a text of YAML or JSON that look like secrets, and have a value."""
    return sorted({found[1] for found in _SET.finditer(text)})


def without_secrets(text: str) -> str:
    """The text with `HIDDEN` in place of the values of `secrets_in`."""
    return _SET.sub(rf"\1\2\3{HIDDEN}\3", text)


def command_without_secrets(words: Sequence[str]) -> list[str]:
    """A command with `HIDDEN` in place of such values: ``--a.api_key VALUE``, ``--a.api_key=VALUE``, and
    within settings that are given as YAML or JSON."""
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        is_value = _FLAG.fullmatch(before) and not word.startswith("--")
        kept.append(HIDDEN if is_value else without_secrets(word))
    return kept


@contextlib.contextmanager
def shown_without_secrets() -> Iterator[None]:
    """A block in which other code finds no secret on this process's command line, which wandb keeps."""
    before = sys.argv
    sys.argv = command_without_secrets(before)
    try:
        yield
    finally:
        sys.argv = before
