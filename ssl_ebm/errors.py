"""The one exception that stands for a mistake of the user."""

import argparse
import re

LONGEST = 1000  # characters of a message that are shown: a value can be a whole file


class UserError(Exception):
    """A mistake that the user can mend: its message is one line that says what is wrong and what to do.

    The command line prints it as ``ssl-ebm: error: <message>`` and ends with exit status 2, no traceback.
    """


def user_error_behind(error: BaseException | None) -> UserError | None:
    """The mistake of the user that an error was raised from, where there is one: jsonargparse wraps them."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def in_one_line(error: BaseException) -> str:
    """The message of an error without line breaks.

    Where jsonargparse lists all types that it tried in vain, what stays is the setting, what was wrong, and
    the value. Where a module is missing, it says what to do.
    """
    text = error.message if isinstance(error, argparse.ArgumentError) else str(error)
    union = re.match(r"(?P<setting>.*?)Does not validate against any.*?Errors:(?P<reasons>.*)", text, re.S)
    if union:
        reasons, _, value = union["reasons"].partition("Given value type:")
        tried = [" ".join(reason.split()) for reason in re.split(r"\n\s*- ", reasons) if reason.strip()]
        kept = [reason for reason in tried if "NoneType" not in reason]
        text = union["setting"] + "; ".join(kept)
        if all(reason.startswith("Expected a") for reason in kept):
            text += f", got {value.partition('Given value:')[2]}"
    if re.search(r"No module named '[^']+'$", text):
        text += ": install it, or set PYTHONPATH to its folder"
    text = " ".join(text.split())
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]} [{len(text) - LONGEST:,} characters left out] {text[-(LONGEST // 2) :]}"
