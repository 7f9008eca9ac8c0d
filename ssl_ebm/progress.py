"""How far a long command is, for a person (a bar) and for a log (a line now and then)."""

import sys
import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


class Display:
    """One bar for each phase where the stream is a terminal; else a plain line at most every ``seconds``.

    Args:
        seconds: between two lines.
        stream: default: standard output.
    """

    def __init__(self, seconds: float = 10.0, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.seconds = seconds
        self._printed = float("-inf")
        self._tasks: dict[str, Any] = {}
        self._bars: Progress | None = None
        if self.stream.isatty():
            self._bars = Progress(
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=30),
                TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
                TextColumn("{task.fields[detail]}"),
                TextColumn("[bold]{task.fields[left]}"),
                console=Console(file=self.stream),
            )

    def __enter__(self) -> "Display":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Prints a line, above the bars where there are some."""
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self.stream, flush=True)

    def show(
        self, phase: str, done: int, total: int, unit: str, left: float | None, detail: str = ""
    ) -> None:
        """``done`` of ``total`` units; ``left`` seconds until the whole command ends, None where unknown."""
        ending = "" if left is None else f"time left {clock(left)}"
        if self._bars is not None:
            if phase not in self._tasks:
                self._tasks[phase] = self._bars.add_task(phase, total=total, unit="", detail="", left="")
            for other, task in self._tasks.items():
                self._bars.update(task, left=ending if other == phase else "")
            self._bars.update(self._tasks[phase], completed=done, total=total, unit=unit, detail=detail)
            return
        now = time.monotonic()
        first = phase not in self._tasks
        self._tasks[phase] = None
        if first or done == total or now - self._printed >= self.seconds:
            parts = [f"{phase} {done}/{total} {unit}", detail, ending]
            print("  ".join(part for part in parts if part), file=self.stream, flush=True)
            self._printed = now
