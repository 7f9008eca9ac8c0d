"""What the study does for each task: what is pre-trained, for how long, and how its worth is measured.

Steps are counted, never minutes, so that a busy machine gives the same figures. All settings were chosen on
validation items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssl_ebm.data.documents import HUB
from ssl_ebm.errors import UserError
from ssl_ebm.tasks.features import Pooling

Description = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """How long and how something is trained.

    Attributes:
        steps: optimizer steps.
        precision, clip: of the Trainer; the largest norm of a gradient.
        settings: of `FineTuning`, such as lr.
    """

    steps: int
    precision: str = "32-true"
    clip: float = 10.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def scaled(self, factor: float) -> Training:
        """With that share of the steps, at least one; warm-up is a tenth of them at most."""
        steps = max(1, round(factor * self.steps))
        settings = dict(self.settings)
        if "warmup_steps" in settings:
            settings["warmup_steps"] = min(settings["warmup_steps"], steps // 10)
        return replace(self, steps=steps, settings=settings)


@dataclass(frozen=True)
class Layer:
    """Which features a probe reads; see `Frozen`."""

    name: str | None = None
    pooling: Pooling = "mean"


@dataclass(frozen=True)
class Recipe:
    """One task of the study.

    Attributes:
        name: of the task.
        title: what it is, for a reader.
        pretexts: by name of the objective, the task by class_path and init_args: the same network in all,
            but for what z needs.
        data: that pretexts are trained on, without labels: a DataModule by class_path and init_args.
        labelled: the same items with labels, for probes and fine-tuning.
        pretraining: of each pretext and seed.
        shares: of the training labels, rising.
        tuned, scratch: for each share; they differ in nothing but the learning rate and what goes with it.
        layer: that probes read.
        raw: features of a raw input at most: pixels are averaged over blocks until they are no more.
        targets: of a regression, for all shares' last; empty: none.
        probed, tested: training and test items at most, for probes and for all.
    """

    name: str
    title: str
    pretexts: Mapping[str, Description]
    data: Description
    labelled: Description
    pretraining: Training
    tuned: tuple[Training, ...]
    scratch: tuple[Training, ...]
    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    layer: Layer = Layer()
    raw: int = 4096
    targets: tuple[str, ...] = ()
    probed: int = 10_000
    tested: int = 2_000

    def scaled(self, factor: float) -> Recipe:
        """With that share of all steps: for a first look."""
        return replace(
            self,
            pretraining=self.pretraining.scaled(factor),
            tuned=tuple(one.scaled(factor) for one in self.tuned),
            scratch=tuple(one.scaled(factor) for one in self.scratch),
        )


def _trainings(steps: tuple[int, ...], precision: str, **settings: Any) -> tuple[Training, ...]:
    return tuple(Training(count, precision, 1.0, settings) for count in steps)


def _described(path: str, /, **arguments: Any) -> Description:
    return {"class_path": path, "init_args": arguments}


def frames() -> Recipe:
    """A moving digit: foresee the next frame; the labels are which digit it is, where it is, how it moves."""
    network = {"context_frames": 4, "width": 32, "radius": 3}
    ebm = {"codes": 49, "beta": 3.3, "initial_temperature": 3.0, "anneal": 0.3, "prior_weight": 1.0}
    digits = {"seed": 1, "context_frames": 4, "future_frames": 1, "batch_size": 32}
    return Recipe(
        name="frames",
        title="the next frame of a moving digit",
        pretexts={
            "least_squares": _described(
                "ssl_ebm.tasks.FramePrediction", objective="least_squares", **network
            ),
            "latent_ebm": _described(
                "ssl_ebm.tasks.FramePrediction", objective="latent_ebm", **network, **ebm
            ),
        },
        data=_described("ssl_ebm.data.MovingDigits", **digits, train_uncertain_share=0.6),
        labelled=_described("ssl_ebm.data.MovingDigits", **digits, train_clips=2_500),
        pretraining=Training(500),
        tuned=_trainings((100, 150, 200), "32-true", lr=2e-3, warmup_steps=20),
        scratch=_trainings((100, 150, 200), "32-true", lr=2e-3, warmup_steps=20),
        layer=Layer("unet.down_stages.0", "grid"),
        targets=("position", "velocity"),
        probed=4_000,
        tested=1_000,
    )


def images(folder: str) -> Recipe:
    """Small pictures in class folders: fill in three quarters of the patches."""
    sizes = {
        "size": 32, "patch": 4, "width": 96, "depth": 4, "heads": 3, "decoder_width": 64, "decoder_depth": 1,
        "decoder_heads": 2, "normalised": True,
    }  # fmt: skip
    ebm = {"codes": 16, "beta": 1 / 30, "initial_temperature": 600.0, "prior_weight": 30.0}
    shared = {
        "mask": _described("ssl_ebm.data.masks.RandomPatches", ratio=0.75, patch=4),
        "lr": 2e-3, "weight_decay": 0.05, "warmup_steps": 150, "second_momentum": 0.95,
    }  # fmt: skip

    def inpainting(objective: str, parts: int = 0, **settings: Any) -> Description:
        drawn = {"parts": parts} if parts else {}
        network = _described("ssl_ebm.networks.patch_completion.PatchCompletion", **sizes, **drawn)
        return _described(
            "ssl_ebm.tasks.Inpainting", objective=objective, network=network, **shared, **settings
        )

    pictures = {"folder": str(Path(folder).absolute()), "size": 32, "flip": True, "batch_size": 64}
    return Recipe(
        name="images",
        title="the hidden patches of a picture",
        pretexts={
            "least_squares": inpainting("least_squares"),
            "latent_ebm": inpainting("latent_ebm", parts=16, **ebm),
        },
        data=_described("ssl_ebm.data.ImageFolder", **pictures, crop=0.2),
        labelled=_described("ssl_ebm.data.ImageFolder", **pictures, crop=0.5),
        pretraining=Training(1500, "bf16-mixed"),
        tuned=_trainings((200, 800, 800), "bf16-mixed", lr=1e-3, warmup_steps=50),
        scratch=_trainings((200, 800, 800), "bf16-mixed", lr=1e-3, warmup_steps=50),
        raw=1024,
        probed=5_000,
    )


def _located(path: str) -> str:
    """Absolute, for `build` takes a name such as REVIEWS.csv for a class of a module; a dataset of Hugging
    Face keeps its name."""
    return path if path.startswith(HUB) else str(Path(path).absolute())


def text(
    path: str, text_column: str = "text", label_column: str = "label", corpus: str | None = None
) -> Recipe:
    """Labelled documents: fill in hidden words of their texts, or of a larger corpus.

    Both sets draw their splits alike, so that no labelled document of validation or test is pre-trained on:
    a document is what has a label (unless a corpus of other documents is given), and its text decides.
    """
    unit = "file" if corpus is None else "paragraph"
    path, corpus = _located(path), _located(corpus or path)
    length, vocabulary = 64, 4096
    network = _described(
        "ssl_ebm.networks.text.TextEncoder",
        vocabulary=vocabulary, width=128, depth=2, heads=4, length=length,
    )  # fmt: skip
    masking = _described("ssl_ebm.data.corruption.TokenMasking", ratio=0.3)
    rates = {"lr": 2e-3, "weight_decay": 0.01, "warmup_steps": 200}
    documents = {
        "text_column": text_column, "length": length, "batch_size": 32, "val_share": 0.1, "test_share": 0.2,
    }  # fmt: skip
    return Recipe(
        name="text",
        title="the hidden words of a text",
        pretexts={
            "masked_text": _described("ssl_ebm.tasks.MaskedText", network=network, masking=masking, **rates)
        },
        data=_described("ssl_ebm.data.Text", path=corpus, unit=unit, vocabulary=vocabulary, **documents),
        labelled=_described(
            "ssl_ebm.data.LabelledDocuments", path=path, label_column=label_column, **documents
        ),
        pretraining=Training(2000, "bf16-mixed", 1.0),
        tuned=_trainings((100, 300, 600), "bf16-mixed", lr=1e-3, warmup_steps=30),
        scratch=_trainings((100, 300, 600), "bf16-mixed", lr=1e-3, warmup_steps=30),
    )


@dataclass(frozen=True)
class Sources:
    """Where data is; None: nowhere.

    Attributes:
        images: pictures in class folders.
        text, text_column, label_column: labelled documents; see `LabelledDocuments`.
        corpus: documents to pre-train on; None: those of `text`.
    """

    images: str | None = None
    text: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    corpus: str | None = None


def recipes_for(
    tasks: Sequence[str] | None,
    sources: Sources,
    shares: Sequence[float] = (0.01, 0.1, 1.0),
    steps_share: float = 1.0,
) -> list[Recipe]:
    """The recipes of tasks; None: frames, and those whose data is given.

    Args:
        tasks: their names.
        sources: of data.
        shares: of the training labels, three, rising.
        steps_share: of all optimizer steps.

    Raises:
        UserError: no data for a task, shares that do not rise from above 0 to at most 1, a share of steps
            that is not above 0.
    """
    if len(shares) != 3 or not all(a < b for a, b in pairwise((0.0, *shares))) or shares[-1] > 1:
        raise UserError(f"labels are {list(shares)}: give three shares that rise, above 0 and at most 1")
    if not 0 < steps_share < float("inf"):
        raise UserError(f"steps_share is {steps_share}: use a number above 0")
    found = {"frames": frames()}
    if sources.images is not None:
        found["images"] = images(sources.images)
    if sources.text is not None:
        found["text"] = text(sources.text, sources.text_column, sources.label_column, sources.corpus)
    for name in tasks or ():
        if name not in found:
            raise UserError(f"there is no data for {name}: give it with --{name}")
    chosen = [recipe for name, recipe in found.items() if tasks is None or name in tasks]
    return [replace(recipe.scaled(steps_share), shares=tuple(shares)) for recipe in chosen]
