"""Damages files at random, hands them to the entry points, and keeps those that they do not cope with.

    PYTHONPATH=.:tests python -m fuzz --cases 10000 --out runs/fuzz

Every case is a function of the seed and its number: `--only 4711` repeats one. It is refused (a `UserError`,
of which the command line makes one line and status 2), accepted (with a result that its target has checked),
or failed: a traceback, another result, or no end within a minute. Cases run in child processes, so that one
that hangs, takes all memory, or crashes is a finding and not the end. `fuzz.json` counts what happened;
OUT/failures/NUMBER holds the files of a finding, and what it said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from fuzz import children
from fuzz.children import NO_END, address_space, in_a_child, limit_memory, silence, tell_crashes

BATCH = 100  # cases of a child process


class Campaign:
    """Cases, their outcomes, and the files of those that failed."""

    def __init__(self, out: Path, seed: int, kinds: list[str]) -> None:
        from fuzz.targets import TARGETS

        self.out, self.seed = out, seed
        chosen = {name: TARGETS[name] for name in kinds or TARGETS}
        self.names = list(chosen)
        self.weights = [weight for _, weight in chosen.values()]
        self.targets = {name: target for name, (target, _) in chosen.items()}
        self.journal = out / "journal.jsonl"
        self.started = out / "started"
        self.noise = out / "noise.txt"

    def kind_of(self, case: int) -> str:
        return random.Random(f"{self.seed}/{case}/kind").choices(self.names, self.weights)[0]

    def run(self, cases: range, bases: Path) -> None:
        """In a child: writes an outcome for each case; ends early after one that took much memory.

        Freed memory stays in the process: a library that gets none may crash, and the fault would not be of
        the case in which it does.
        """
        from ssl_ebm.errors import UserError

        silence(self.noise)
        begun_with = limit_memory()
        with self.journal.open("a") as journal:
            for case in cases:
                self.started.write_text(str(case))
                tell_crashes()
                begun, found, said = time.monotonic(), "accepted", ""
                try:
                    self.once(case, bases)
                except UserError as error:
                    found, said = "refused", str(error)
                    if "\n" in said:
                        found = "failed"
                except BaseException:
                    found, said = "failed", traceback.format_exc()
                seconds = round(time.monotonic() - begun, 3)
                row = {"case": case, "kind": self.kind_of(case), "outcome": found, "seconds": seconds}
                journal.write(json.dumps(row | ({"said": said} if found == "failed" else {})) + "\n")
                journal.flush()
                if found == "failed":
                    self.keep(case, said)
                if address_space() - begun_with > children.MEMORY / 2:
                    return

    def once(self, case: int, bases: Path) -> None:
        from fuzz.targets import Place

        here = self.out / "work"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        os.chdir(here)
        self.targets[self.kind_of(case)](Place(bases, here), random.Random(f"{self.seed}/{case}"))

    def try_again(self, cases: range, bases: Path) -> None:
        """What failed has a child of its own, whose memory holds nothing that the cases before it left: that
        is limited, and a library that gets none may crash. What did not end is not repeated."""
        rows = self.rows()
        for row in rows:
            if row["case"] not in cases or row["outcome"] != "failed" or row["said"].startswith(NO_END):
                continue
            shutil.rmtree(self.out / "failures" / str(row["case"]), ignore_errors=True)
            self.journal.unlink()
            alone = range(row["case"], row["case"] + 1)
            self.started.write_text(str(row["case"]))
            ended = in_a_child(lambda alone=alone: self.run(alone, bases), self.silence_of)  # type: ignore[misc]
            if ended is None:
                among_others = row["said"]
                row.clear()
                row |= self.rows()[0] | {"among_others": among_others}
            else:
                row["said"] = self.last_words(ended)
                self.keep(row["case"], row["said"])
        self.journal.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def last_words(self, ended: str) -> str:
        """How a child ended, and the end of what it printed: a crash says where it was."""
        printed = self.noise.read_text(errors="replace") if self.noise.is_file() else ""
        before, crash, where = printed.rpartition("Fatal Python error: ")
        return f"{ended}\n{before[-2000:]}{crash}{where[:4000]}"

    def silence_of(self) -> float:
        """Seconds since a case was begun."""
        return time.time() - self.started.stat().st_mtime

    def keep(self, case: int, said: str) -> None:
        kept = self.out / "failures" / str(case)
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(self.out / "work", kept, dirs_exist_ok=True)
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "said.txt").write_text(f"{self.kind_of(case)}\n{said}")

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()]


def campaign(out: Path, cases: range, seed: int, kinds: list[str]) -> dict[str, Any]:
    """Runs all cases; returns what fuzz.json holds."""
    bases = out / "bases"
    if not bases.is_dir():  # in a child, so that this process stays as it was for those to come
        from fuzz.bases import make

        if (wrong := in_a_child(lambda: make(bases))) is not None:
            raise SystemExit(f"the undamaged files cannot be made: {wrong}")
    campaign = Campaign(out, seed, kinds)
    campaign.journal.unlink(missing_ok=True)
    shutil.rmtree(out / "failures", ignore_errors=True)
    begun, at = time.monotonic(), cases.start
    while at < cases.stop:
        batch = range(at, min(at + BATCH, cases.stop))
        campaign.started.write_text(str(at))
        ended = in_a_child(
            lambda batch=batch: campaign.run(batch, bases),  # type: ignore[misc]
            campaign.silence_of,
        )
        at = int(campaign.started.read_text()) + 1
        if ended is not None:
            case, ended = at - 1, campaign.last_words(ended)
            with campaign.journal.open("a") as journal:
                row = {"case": case, "kind": campaign.kind_of(case), "outcome": "failed", "said": ended}
                journal.write(json.dumps(row) + "\n")
            campaign.keep(case, ended)
        campaign.try_again(range(batch.start, at), bases)
        failed = sum(row["outcome"] == "failed" for row in campaign.rows())
        left = (time.monotonic() - begun) / (at - cases.start) * (cases.stop - at)
        print(
            f"{at - cases.start} of {len(cases)} cases, {failed} failed; about {left:.0f} s left", flush=True
        )
    rows = campaign.rows()
    return {
        "cases": len(rows),
        "outcomes": Counter(row["outcome"] for row in rows),
        "of_each_kind": {
            name: Counter(row["outcome"] for row in rows if row["kind"] == name) for name in campaign.names
        },
        "passed_alone": {
            row["case"]: row["among_others"]
            for row in rows
            if row["outcome"] != "failed" and "among_others" in row
        },
        "longest_seconds": max(row.get("seconds", children.PATIENCE) for row in rows),
        "seconds": round(time.monotonic() - begun, 1),
        "seed": seed,
        "failed": [row["case"] for row in rows if row["outcome"] == "failed"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--only", type=int, help="this case alone")
    parser.add_argument("--kinds", nargs="+", default=[], help="of targets (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    os.environ.pop("SSL_EBM_TRUST_CONFIG", None)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not outlive a fork
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    cases = range(options.cases) if options.only is None else range(options.only, options.only + 1)
    report = campaign(out, cases, options.seed, options.kinds)
    (out / "fuzz.json").write_text(json.dumps(report, indent=1))
    print(json.dumps({name: report[name] for name in ("cases", "outcomes", "failed")}))
    return int(bool(report["failed"]))


if __name__ == "__main__":
    sys.exit(main())
