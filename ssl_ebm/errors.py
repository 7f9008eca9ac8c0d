"""The one exception that stands for a mistake of the user."""


class UserError(Exception):
    """A mistake that the user can mend: its message is one line that says what is wrong and what to do.

    The command line prints it as ``ssl-ebm: error: <message>`` and ends with exit status 2, no traceback.
    """
