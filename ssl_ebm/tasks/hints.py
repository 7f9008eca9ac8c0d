"""What a message about a setting that is not there is given along: the settings that are."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

_OF_A_CLASS = re.compile(r"class_path '([\w.]+)': Option '([^']+)' is not accepted")
_OF_A_COMMAND = re.compile(r"unrecognized arguments: (--\S+)|does not accept option '([^']+)'")
PARTS = "settings of the task begin with --model., of the data with --data., of the Trainer with --trainer."


def with_hint(message: str, options: Collection[str] = ()) -> str:
    """The parser's message, with what may have been meant.

    Args:
        message: in one line.
        options: of the command, such as ``--trainer.max_steps``.
    """
    if found := _OF_A_CLASS.search(message):
        known = [one for one in _arguments(found[1]) if not one.startswith("_")]
        near = get_close_matches(found[2], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
        return f"{message}; {hint}" if known else message
    if found := _OF_A_COMMAND.search(message):
        name = f"--{(found[1] or found[2]).removeprefix('--').partition('=')[0]}"
        near = get_close_matches(name, options, 1, cutoff=0.8)
        if near:
            return f"{message}; did you mean {near[0]}?"
        return message if "." in name else f"{message}; {PARTS}"
    return message


def _arguments(class_path: str) -> list[str]:
    """The names of a class's arguments; none of one that has not been imported: a file may have forged the
    message."""
    module, _, name = class_path.rpartition(".")
    found: Any = getattr(sys.modules.get(module), "__dict__", {}).get(name)  # a module's own may import it
    names: dict[str, None] = {}
    with suppress(Exception):
        for one in found.__mro__[:-1] if inspect.isclass(found) else ():
            if "__init__" in vars(one):
                kinds = inspect.signature(vars(one)["__init__"]).parameters
                names |= dict.fromkeys(list(kinds)[1:])
                if not any(kind.kind is inspect.Parameter.VAR_KEYWORD for kind in kinds.values()):
                    break
    return [name for name in names if name not in ("args", "kwargs")]
