"""Peak memory of preparing a corpus, and one 100 times larger, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssl_ebm.report.benchmarks.rows import Row

TIMES = 100
DOCUMENTS = 1400  # of the smaller corpus: 1 MB
WORDS = 3000  # different ones
GROWTH = 0.1  # of the peak, that is promised at most
CASE = "peak memory of tokenising"
SCRIPT = """
import sys
from pathlib import Path
from ssl_ebm.data import Text

data = Text(sys.argv[1], vocabulary=4096, cache=sys.argv[2])
data.setup()
data.train_dataset[0]
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(peak)
"""
STATUS = Path("/proc/self/status")  # getrusage counts what the parent had before the process became another


def memory_rows(suite: str, times: int = TIMES, documents: int = DOCUMENTS) -> Iterator[Row]:
    """Peak memory of a process that trains a tokenizer on a generated corpus, tokenises it, and reads a
    sequence: of so many documents of 100 words, and of `times` as many. Nothing where the system is no Linux.
    """
    if not STATUS.is_file():
        return
    for many in (1, times):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "documents.txt"
            write_documents(path, documents, many)
            size = path.stat().st_size / 1e6
            yield Row(suite, f"{CASE}, {size:.0f} MB of text", "uint16", peak(path, Path(name)), "MB")


def peak(path: Path, cache: Path) -> float:
    """Of a process that prepares the corpus, in MB."""
    command = [sys.executable, "-c", SCRIPT, str(path), str(cache)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e6


def write_documents(path: Path, count: int, times: int = 1) -> None:
    """Paragraphs of 100 made-up words, so many, and all again so many times with another number before."""
    noise = np.random.default_rng(0)
    words = ["".join(noise.choice(list("abcdefghiklmnoprstu"), 6)) for _ in range(WORDS)]
    texts = [" ".join(noise.choice(words, 100)) for _ in range(count)]
    with path.open("w") as file:
        for number in range(times):
            file.writelines(f"{number} {text}\n\n" for text in texts)


def summary(rows: Sequence[Row]) -> list[str]:
    """What is promised, and what was measured."""
    found = [row for row in rows if row.case.startswith(CASE)]
    if len(found) != 2:
        return []
    small, large = found
    growth = large.ours / small.ours - 1
    return [
        f"{large.case}: {large.ours:.0f} MB, {growth:+.1%} of the {small.ours:.0f} MB of "
        f"{small.case.rpartition(', ')[2]} (promised: at most {GROWTH:+.0%})"
    ]
