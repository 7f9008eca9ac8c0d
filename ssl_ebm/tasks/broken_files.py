"""Broken files that the processes of a training meet, counted together."""

from __future__ import annotations

from lightning.pytorch import Trainer

from ssl_ebm.data.broken_files import BrokenFiles, counts_of


class FilesOfAll:
    """From `begin` to `end` of a training by several processes none stops by its own count: they would not
    stop together. Whoever asks all processes now and then hands on the `news`, and has all `share` their
    counts where one has any.
    """

    def __init__(self) -> None:
        self._counts: list[BrokenFiles] = []
        self._told = 0

    def begin(self, trainer: Trainer) -> None:
        """Nothing is counted together in one process."""
        data = getattr(trainer, "datamodule", None)
        self._counts = counts_of(data) if trainer.world_size > 1 else []
        self._told = 0
        self._let_decide(False)

    def news(self) -> int:
        """Files that this process has met since the last time that all shared their counts."""
        return sum(int(one.met.sum()) for one in self._counts) - self._told

    def share(self, trainer: Trainer) -> None:
        """All processes must call it.

        Raises:
            UserError: in all of them, more files are broken than `max_broken` allows.
        """
        shared = [one.share(trainer.strategy.root_device) for one in self._counts]
        self._told = sum(int(met.sum()) for met in shared)
        for one, met in zip(self._counts, shared, strict=True):
            one.check(met)

    def end(self, trainer: Trainer) -> None:
        """The last count, which is reported. All processes must call it.

        Raises:
            UserError: as `share`.
        """
        self._let_decide(True)
        self.share(trainer)

    def _let_decide(self, alone: bool) -> None:
        for one in self._counts:
            one.decides.fill_(alone)
