"""Work and measurements in processes of their own, which meet nothing of what this process has set."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch

from ssl_ebm.report.benchmarks.timing import Work

Found = TypeVar("Found")


class Neighbour:
    """A fresh process for every block of a work: how memory lies differs between two, and with it the speed.

    Args:
        make: makes the work, in that process: a function of a module, or a partial of one.

    Raises:
        RuntimeError: the work failed there.
    """

    def __init__(self, make: Callable[[], Work]) -> None:
        self._make = make
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    @property
    def work(self) -> Work:
        return Work(self._run, self._start, self._end)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._make, theirs, torch.get_num_threads()))
        self._process.start()
        theirs.close()

    def _run(self, units: int) -> None:
        assert self._pipe is not None
        self._pipe.send(units)
        try:
            failure = self._pipe.recv()
        except EOFError:
            failure = "its process ended"
        if failure is not None:
            self._end()
            raise RuntimeError(f"a peer failed: {failure}")

    def _end(self) -> None:
        assert self._pipe is not None
        assert self._process is not None
        self._pipe.close()
        self._process.join()


def in_processes(measure: Callable[[], Found], count: int) -> Iterator[Found]:
    """What a measurement finds in each of `count` fresh processes, one after the other.

    Args:
        measure: a function of a module, or a partial of one; it has as many threads there as we have here.
            What it raises there is raised here.
    """
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    for _ in range(count):
        with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as pool:
            yield pool.submit(measure).result()


def _serve(make: Callable[[], Work], pipe: Connection, threads: int) -> None:
    torch.set_num_threads(threads)
    work: Work | None = None
    while True:
        try:
            units = pipe.recv()
        except EOFError:
            return
        try:
            work = work or make()
            work.run(units)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            pipe.send(None)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
