"""Settings that look like a secret, such as the key of a logger, whose values a run writes nowhere.

What counts is the name: values below one that looks like a secret's are hidden, and in an address the value
of such a name in its query; null, true, false and empty texts are no secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ssl_ebm.errors import UserError

HIDDEN = "HIDDEN"  # stands for the value
# A text's tokens are none: `mask_token` and `tokens` are settings as any other.
_NAMES = (
    r"(?:(?:\w+_)?(?:api_?key|access_?key|secret_?key|private_?key|password|passwd|secret|credentials?)"
    r"|(?:(?:api|auth|access|bearer|hf|hub|wandb)_?)?token)"
)
_NAME = re.compile(_NAMES, re.I)
_QUERY = re.compile(rf"(?<=[?&;])({_NAMES})=[^&;#\s]+", re.I)  # of an address


class Shown(NamedTuple):
    """Attributes:
    settings: with `HIDDEN` in place of each secret; mappings and lists otherwise as they were.
    hidden: names of the settings where that is so, with those that they lie in: "data.api_key".
    """

    settings: Any
    hidden: list[str]


def without_secrets(settings: Any) -> Shown:
    """Settings, or anything else of plain values, as they may be written.

    Below the name of a secret all values are hidden: what remains are names, and the class of an object. A
    number that is called a token is none: it counts a text's, or stands for one.
    """
    hidden: dict[str, None] = {}

    def hide(value: Any, name: str, is_secret: bool) -> Any:
        if not is_secret and not isinstance(value, str):
            return value
        kept = HIDDEN if is_secret else _QUERY.sub(rf"\1={HIDDEN}", value)
        if is_secret or kept != value:
            hidden[name] = None
        return kept

    return Shown(_changed(settings, hide), list(hidden))


def shown_description(data: Any) -> dict[str, Any] | None:
    """What a DataModule says of itself by `describe`, as it may be written; None where it says nothing."""
    describe = getattr(data, "describe", None)
    return None if describe is None else without_secrets(describe()).settings


def hide_from_loggers(*owners: Any) -> None:
    """Hides secrets among the hyper-parameters that Lightning hands to loggers when training begins: those
    that tasks and DataModules have kept by `save_hyperparameters`. Their own `hparams` stay as they are."""
    for one in owners:
        initial = getattr(one, "hparams_initial", {})
        shown = without_secrets(initial)
        if shown.hidden:
            one._hparams_initial = type(initial)(shown.settings)


def hidden_in(settings: Any) -> list[str]:
    """Names of the settings where `HIDDEN` stands for a secret: of what a run has written, read again."""
    hidden: list[str] = []

    def note(value: Any, name: str, is_secret: bool) -> Any:
        queried = [one[0] for one in _QUERY.finditer(value)] if isinstance(value, str) else []
        if (is_secret and value == HIDDEN) or any(one.endswith(f"={HIDDEN}") for one in queried):
            hidden.append(name)
        return value

    _changed(settings, note)
    return hidden


def refuse_hidden(settings: Any) -> None:
    """Raises UserError where `HIDDEN` stands for a secret."""
    for name in hidden_in(settings):
        raise UserError(
            f"{name} is {HIDDEN}, which stands for what was left out of a file: give it (--{name} VALUE)"
        )


def _changed(
    settings: Any,
    change: Callable[[Any, str, bool], Any],
    names: tuple[str, ...] = (),
    is_secret: bool = False,
) -> Any:
    """Settings of which each value is what `change` makes of it, its name, and whether it is a secret."""
    if isinstance(settings, Mapping):
        made = {}
        for name, value in settings.items():
            own = (str(name),) if not is_secret and name != "init_args" else ()  # else that of the secret
            is_count = str(name).lower() == "token" and isinstance(value, int | float)
            is_own = name != "class_path" if is_secret else names_secret(str(name)) and not is_count
            made[name] = _changed(value, change, names + own, is_own)
        return made
    if isinstance(settings, list | tuple):
        values = [_changed(value, change, names, is_secret) for value in settings]
        return values if isinstance(settings, list) else tuple(values)
    is_empty = settings is None or isinstance(settings, bool) or (isinstance(settings, str) and not settings)
    return change(settings, ".".join(names), is_secret and not is_empty)


def names_secret(name: str) -> bool:
    """Whether a setting, or one that it lies in, has the name of a secret."""
    return any(_NAME.fullmatch(part) for part in name.replace("-", "_").split("."))
