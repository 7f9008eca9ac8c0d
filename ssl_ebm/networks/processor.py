"""Which processor this is: its vendor and family decide whose products are the faster."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

AMD = "AuthenticAMD"
ZEN_5 = 26  # AMD's family


@dataclass(frozen=True)
class Processor:
    """What the system tells of the processor.

    Attributes:
        name: for people, such as ``AMD EPYC 9B45``; may be empty.
        vendor: as the processor spells it, such as ``GenuineIntel``; empty: not told.
        family, model: the vendor's numbers of it; 0: not told.
    """

    name: str = ""
    vendor: str = ""
    family: int = 0
    model: int = 0

    @property
    def is_amd_since_zen_5(self) -> bool:
        """Those multiply 512 bits at a time."""
        return self.vendor == AMD and self.family >= ZEN_5

    def __str__(self) -> str:
        numbers = f", family {self.family}, model {self.model}" if self.family else ""
        return f"{self.name} ({self.vendor}{numbers})" if self.vendor else self.name


@cache
def this_processor() -> Processor:
    """Told by a file on Linux, and by Python elsewhere."""
    try:
        return of_linux(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        return of_python(platform.processor() or platform.machine())


def of_linux(text: str) -> Processor:
    """From the first processor in /proc/cpuinfo. ARM's have none of the fields, and the name is then the
    machine's kind."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return Processor(
        fields.get("model name", platform.machine()),
        fields.get("vendor_id", ""),
        _number(fields.get("cpu family", "")),
        _number(fields.get("model", "")),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def of_python(name: str) -> Processor:
    """From `platform.processor()`: on Windows ``AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD``."""
    found = re.search(r"Family (\d+) Model (\d+) .*, (\w+)$", name)
    return Processor(name, found[3], int(found[1]), int(found[2])) if found else Processor(name)
