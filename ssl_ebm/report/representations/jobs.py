"""The runs of one task, in an order in which everything is there when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule

from ssl_ebm.data.labelled_share import LabelledShare
from ssl_ebm.data.labelled_text import LabelledDocuments
from ssl_ebm.evaluation.probing.features import chosen_items
from ssl_ebm.report.representations.recipes import Recipe
from ssl_ebm.report.representations.runs import Result, Watch, features_of, pretrain, probe, tune, weights_of
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.saving import last_checkpoint

ORDER = ("raw", "untrained")  # rows that need no pre-training, before the pretexts
SCRATCH = "scratch"
TRAININGS = ("pretrain", "tune")  # stages whose work is counted in steps


@dataclass(frozen=True)
class Job:
    """A run of the study.

    Attributes:
        task, stage, row, share, seed: which; stages are pretrain, probe, regress and tune.
        size: of the work, in optimizer steps, or 1.
        made_from: what its result depends on; asked when those before it are done.
        do: makes the result.
    """

    task: str
    stage: str
    row: str
    share: float | None
    seed: int
    size: int
    folder: Path
    made_from: Callable[[], dict[str, Any]]
    do: Callable[[Watch], Result]

    @property
    def name(self) -> str:
        """For a person."""
        labels = "" if self.share is None else f", {100 * self.share:g} % of the labels"
        return f"{self.stage} {self.row}{labels}, seed {self.seed}"


class TaskStudy:
    """All runs of one recipe. Data is made when a run first needs it, and once.

    Args:
        recipe: what to do.
        seeds: of weights, labels and order.
        folder: of this task.
    """

    def __init__(self, recipe: Recipe, seeds: Sequence[int], folder: Path) -> None:
        self.recipe, self.seeds, self.folder = recipe, list(seeds), folder
        self._data: Any = None
        self._labelled: Any = None
        self._shares: dict[tuple[float, int], LabelledShare] = {}

    # -- data --------------------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """What pretexts are trained on."""
        if self._data is None:
            self._data = build(self.recipe.data, LightningDataModule, "data")
            self._data.setup("fit")
        return self._data

    @property
    def labelled(self) -> Any:
        """The items with labels, all splits."""
        if self._labelled is None:
            made: Any = build(self.recipe.labelled, LightningDataModule, "data")
            if isinstance(made, LabelledDocuments):
                self.data.prepare_data()
                made.use_tokenizer(self.data.tokenizer_json, self.data.length)
            made.setup()
            self._labelled = made
        return self._labelled

    def share(self, share: float, seed: int) -> LabelledShare:
        """So many of the training labels."""
        if (share, seed) not in self._shares:
            made = LabelledShare(self.labelled, share, seed=seed)
            made.setup("fit")
            self._shares[share, seed] = made
        return self._shares[share, seed]

    @property
    def tested(self) -> list[int]:
        """Test items, the same for all."""
        return chosen_items(self.labelled.test_dataset, self.recipe.tested, seed=0)

    # -- runs --------------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[str]:
        """Of the table."""
        return [*ORDER, *self.recipe.pretexts, SCRATCH]

    def checkpoint(self, pretext: str, seed: int) -> Path:
        return last_checkpoint(self.folder / "pretrain" / pretext / f"seed_{seed}")

    def jobs(self) -> list[Job]:
        """What is to be done, in an order in which everything is there when it is needed."""
        recipe, found = self.recipe, []
        for seed in self.seeds:
            found += [self._pretrain(pretext, seed) for pretext in recipe.pretexts]
            for row in (*ORDER, *recipe.pretexts):
                found += [self._probe(row, share, seed, ()) for share in recipe.shares]
                if recipe.targets:
                    found.append(self._probe(row, recipe.shares[-1], seed, recipe.targets))
            for row in (*recipe.pretexts, SCRATCH):
                found += [self._tune(row, place, seed) for place in range(len(recipe.shares))]
        return found

    def _pretrain(self, pretext: str, seed: int) -> Job:
        recipe, folder = self.recipe, self.folder / "pretrain" / pretext / f"seed_{seed}"

        def made_from() -> dict[str, Any]:
            described = {"task": recipe.pretexts[pretext], "data": recipe.data, "seed": seed}
            return described | {"how": asdict(recipe.pretraining)}

        def do(watch: Watch) -> Result:
            def task() -> LightningModule:
                return build(recipe.pretexts[pretext], LightningModule, "model")

            return pretrain(task, self.data, recipe.pretraining, seed, folder, made_from(), watch)

        steps = recipe.pretraining.steps
        return Job(recipe.name, "pretrain", pretext, None, seed, steps, folder, made_from, do)

    def _began_from(self, row: str, seed: int) -> dict[str, Any]:
        """A pre-trained network by its weights, another one by its settings."""
        pretext = row if row in self.recipe.pretexts else next(iter(self.recipe.pretexts))
        described = {"task": self.recipe.pretexts[pretext], "labelled": self.recipe.labelled, "seed": seed}
        if row in self.recipe.pretexts:
            described["weights"] = weights_of(self.checkpoint(row, seed))
        return described

    def _source(self, row: str, seed: int) -> Path:
        """A checkpoint of the row's network; of one that is not trained the settings alone are used."""
        return self.checkpoint(row if row in self.recipe.pretexts else next(iter(self.recipe.pretexts)), seed)

    def _probe(self, row: str, share: float, seed: int, targets: tuple[str, ...]) -> Job:
        recipe, stage = self.recipe, "regress" if targets else "probe"
        folder = self.folder / stage / row / f"labels_{share:g}" / f"seed_{seed}"

        def made_from() -> dict[str, Any]:
            reads = {"raw": [recipe.raw, "TF-IDF"]} if row == "raw" else {"layer": asdict(recipe.layer)}
            how = {**reads, "share": share, "targets": list(targets)}
            return self._began_from(row, seed) | how | {"items": [recipe.probed, recipe.tested]}

        def do(watch: Watch) -> Result:
            model = features_of(row, self._source(row, seed), seed, recipe.layer, recipe.raw)
            found = self.share(share, seed)
            return probe(model, found, self.tested, recipe.probed, targets, folder, made_from())

        return Job(recipe.name, stage, row, share, seed, 1, folder, made_from, do)

    def _tune(self, row: str, place: int, seed: int) -> Job:
        recipe, share = self.recipe, self.recipe.shares[place]
        how = (recipe.scratch if row == SCRATCH else recipe.tuned)[place]
        folder = self.folder / "tune" / row / f"labels_{share:g}" / f"seed_{seed}"

        def made_from() -> dict[str, Any]:
            return self._began_from(row, seed) | {"how": asdict(how), "share": share, "items": recipe.tested}

        def do(watch: Watch) -> Result:
            mode = "scratch" if row == SCRATCH else "full"
            found, source = self.share(share, seed), self._source(row, seed)
            return tune(source, mode, found, self.tested, how, seed, folder, made_from(), watch)

        return Job(recipe.name, "tune", row, share, seed, how.steps, folder, made_from, do)
