"""The command ``ssl-ebm``: parses arguments, calls what does the work, reports errors in one line.

Nothing heavy is imported until a command needs it: ``ssl-ebm --help`` answers at once.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from ssl_ebm.cli import commands
from ssl_ebm.cli.parser import TAKE_SETTINGS, TRAINER_COMMANDS, make_parser
from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.running.failures import ending_for_hanging_reads
from ssl_ebm.running.launching import refuse_several_processes
from ssl_ebm.running.output import lossy_output

BEGIN_ANEW = ("lecture", "benchmark")  # commands that an interruption does not resume
PACKAGE = Path(__file__).resolve().parent.parent
_usual_format = warnings.formatwarning


def dispatch(arguments: Sequence[str]) -> None:
    """Runs one command; mistakes of the user are raised as ``UserError`` or ``argparse.ArgumentError``."""
    if arguments and arguments[0] in TRAINER_COMMANDS:
        commands.run_trainer(arguments[0], arguments[1:])
        return
    parser = make_parser()
    options, settings = parser.parse_known_args(arguments)
    if settings and options.command not in TAKE_SETTINGS:
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    options.settings = settings
    if options.command is None:
        parser.print_help()
        return
    refuse_several_processes(options.command)
    run: Callable[[argparse.Namespace], None] = options.run
    run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command. Returns the exit status: 0, 2 for a mistake of the user, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    warnings.formatwarning = _format_warning
    if arguments and arguments[0] in TRAINER_COMMANDS:  # which leave files; of others this is the answer
        with lossy_output():
            return _status(arguments)
    return _status(arguments)


def _status(arguments: Sequence[str]) -> int:
    try:
        with ending_for_hanging_reads():
            dispatch(arguments)
    except (UserError, argparse.ArgumentError) as error:
        print(f"ssl-ebm: error: {in_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return _interrupted(arguments, stop)
    except SystemExit as stop:
        # Lightning answers Ctrl-C with an exit of its own.
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted(arguments, stop)
        raise
    except BrokenPipeError:  # `ssl-ebm ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of this package is for the user: a line, without the place in the code that it comes from."""
    if Path(filename).is_relative_to(PACKAGE):
        return f"ssl-ebm: warning: {' '.join(str(message).split())}\n"
    return _usual_format(message, category, filename, lineno, line)


def _interrupted(arguments: Sequence[str], stop: BaseException) -> int:
    if notes := getattr(stop, "__notes__", []):
        how = notes[0]
    elif arguments and arguments[0] in TRAINER_COMMANDS:
        how = "--ckpt_path last goes on from the last checkpoint"
    elif arguments and arguments[0] in BEGIN_ANEW:
        how = "what was whole is in its folder; the same command begins anew"
    else:  # what is whole is kept by those that take long
        how = "the same command goes on with what is not whole yet"
    print(f"ssl-ebm: interrupted; {how}", file=sys.stderr)
    return 130
