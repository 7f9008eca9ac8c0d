"""Fine-tuning: a pre-trained task's representation, a linear head, labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ssl_ebm.data.loading import StreamData
from ssl_ebm.errors import UserError
from ssl_ebm.files import sha256_of
from ssl_ebm.tasks.backbones import (
    Description,
    make_backbone,
    network_of,
    open_summary,
    trainable_layers,
    width_of,
)
from ssl_ebm.tasks.classification import Vote, Votes, linear_head, mixed_up
from ssl_ebm.tasks.divergence import WatchedTask
from ssl_ebm.tasks.inputs import Inputs
from ssl_ebm.tasks.masked_text import MaskedText
from ssl_ebm.tasks.naming import in_a_new_context
from ssl_ebm.tasks.optimization import optimizer_with_cosine

Batch = dict[str, Tensor]
Mode = Literal["full", "last", "head", "scratch"]

FINE_TUNED_DECAY = 0.75  # of the learning rate per layer, towards the input: MAE's for ViT-L, BEiT's range


class FineTuning(WatchedTask):
    """Classes of pictures, clips or texts, by a linear head on a task's representation r(x).

        logits(x) = W drop(norm(r(x))) + b,    loss = cross-entropy with smoothed labels

    norm is LayerNorm where the backbone learns as well, and batch normalisation without affine parameters
    where the head learns alone, because frozen features have scales of their own (both as in MAE).

    The learning rate of layer k of L + 1 is lr * layer_decay^(L + 1 - k): 0 is the embedding, 1 to L are the
    blocks, L + 1 are the last normalisation (or summary) and the head; see `representation_layers`. What only
    the pretext task needs (decoder, prior) is kept as it was, and not trained.

    Batches: those of the pretext task with "label" (B,) int64. A checkpoint holds the backbone's class and
    settings, the tokenizer of text, and the names of the classes: it needs no other file.

    Args:
        backbone_checkpoint: of Inpainting, FramePrediction or MaskedText; null: random weights.
        backbone: the task by class_path and init_args; null: as in the checkpoint, which prevails.
        classes: their names; null: those of the data.
        mode: what learns: everything ("full"), the last blocks with the head ("last"), the head ("head"), or
            everything from random weights ("scratch").
        last_blocks: how many, in mode "last".
        layer_decay: null: 0.75, and 1 from random weights, where there is nothing to keep.
        drop_out: share of the normalised features set to 0 before the head in training.
        mixup: strength of mixing the inputs, 0: none; not for text, whose tokens do not mix.
        smoothing: share of a label that is spread over all classes.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices and convolutions.
        warmup_steps: optimizer steps of linear warm-up; a cosine to zero follows.
        second_momentum: beta2 of AdamW.
        tokenizer: of text, as JSON; null: that of the checkpoint.

    Attributes:
        votes: "val" and "test" of the last evaluation.
        began_from: SHA-256 of the backbone's checkpoint, which a checkpoint of this task holds too.

    Raises:
        UserError: a setting out of its range, a checkpoint of another task, more last blocks than there are.

    Source: He et al., "Masked autoencoders are scalable vision learners" (2022), appendix A; layer-wise
    decay: Clark et al., "ELECTRA" (2020), Bao et al., "BEiT" (2022).
    """

    sees_labels = True

    def __init__(
        self,
        backbone_checkpoint: str | None = None,
        backbone: Description | None = None,
        classes: list[str] | None = None,
        mode: Mode = "full",
        last_blocks: int = 2,
        layer_decay: float | None = None,
        drop_out: float = 0.1,
        mixup: float = 0.0,
        smoothing: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_steps: int = 50,
        second_momentum: float = 0.99,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        _check(self.hparams)
        # LightningCLI hands the settings of a run to whatever saves its own: the backbone must not see these.
        self.backbone, described = in_a_new_context(
            make_backbone, backbone_checkpoint, backbone, mode == "scratch"
        )
        if isinstance(self.backbone, MaskedText):
            self.backbone.tokenizer_json = self.backbone.tokenizer_json or tokenizer
            if mixup:
                raise UserError(f"mixup is {mixup}, but words do not mix: set it to 0 for text")
        self.began_from = None if backbone_checkpoint is None else sha256_of(backbone_checkpoint)
        # A checkpoint of this task must not need the one it began with.
        self.hparams.update(backbone=described, backbone_checkpoint=None, tokenizer=self.tokenizer_json)
        open_summary(self.backbone)
        self.layers = trainable_layers(self.backbone)
        self._freeze()
        self.head: nn.Module | None = None
        if classes is not None:
            self._make_head(classes)
        self._gathered = Votes()
        self.votes: dict[str, Vote] = {}
        self.train()  # a task that was loaded is in evaluation mode, and a Trainer leaves it there

    @property
    def objective_name(self) -> str:
        return "fine-tuning"

    # -- parts -------------------------------------------------------------------------------------------

    def _freeze(self) -> None:
        """Leaves gradients to what the mode trains."""
        mode, count = self.hparams["mode"], self.hparams["last_blocks"]
        blocks = len(self.layers) - 2
        if mode == "last" and count > blocks:
            raise UserError(f"last_blocks is {count}, but this backbone has {blocks}: use at most as many")
        trained = {"head": [], "last": self.layers[-1 - count :]}.get(mode, self.layers)
        self.backbone.requires_grad_(False)
        for layer in trained:
            for weights in layer:
                weights.requires_grad_(True)

    def _make_head(self, classes: Sequence[str]) -> None:
        if len(classes) < 2:
            raise UserError(f"the classes are {list(classes)}: fine-tuning needs two or more")
        alone = self.hparams["mode"] == "head"
        self.head = linear_head(width_of(self.backbone), len(classes), self.hparams["drop_out"], alone)
        self.hparams["classes"] = list(classes)

    @property
    def network(self) -> nn.Module:
        """Of the backbone: what the representation is made by."""
        return network_of(self.backbone)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return list(self.hparams["classes"] or [])

    @property
    def tokenizer_json(self) -> str | None:
        """Of a backbone of text."""
        return getattr(self.backbone, "tokenizer_json", None)

    def setup(self, stage: str) -> None:
        """Takes the names of the classes from the data.

        Raises:
            UserError: it has none, or others than the checkpoint.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        names = list(getattr(data, "classes", None) or [])
        if self.head is None:
            if not names:
                raise UserError(f"the data has no classes: {_how_to_label(data)}")
            self._make_head(names)
        elif names and names != self.classes:
            raise UserError(
                f"the data has the classes {', '.join(names)}, this model knows {', '.join(self.classes)}: "
                "give data of the same"
            )
        if getattr(data, "tokenizer_json", None) not in (None, self.tokenizer_json):
            raise UserError("the data has another tokenizer than the backbone: use LabelledDocuments")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["began_from"] = self.began_from

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.began_from = checkpoint.get("began_from")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.hparams["mode"] == "head":  # Lightning's warning of what is meant to be
            warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start.*")

    def train(self, mode: bool = True) -> FineTuning:
        super().train(mode)
        if self.hparams["mode"] == "head":
            self.backbone.eval()
        return self

    # -- classes -----------------------------------------------------------------------------------------

    def inputs(self, batch: Batch) -> Tensor:
        """What `representation` takes of a batch: as in the pretext task.

        Raises:
            UserError: the data is of another kind.
        """
        try:
            return self.backbone.inputs(batch)
        except KeyError as error:
            raise UserError(
                f"a backbone of {type(self.backbone).__name__} reads {error}, the data has "
                f"{', '.join(sorted(batch))}: give data of its kind"
            ) from error

    def takes(self, data: Mapping[str, Any]) -> Inputs:
        """What `representation` takes, after a training on data of this description."""
        return self.backbone.takes(data.get("data", data))  # of the data inside of `LabelledShare`

    def representation(self, inputs: Tensor) -> Tensor:
        """Features of the backbone: (B, *X) -> (B, D)."""
        return self.backbone.representation(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits: (B, *X) -> (B, K)."""
        if self.head is None:
            raise UserError("this model has no classes yet: give them, or train it on data that has")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.hparams["mode"] != "head"):
            features = self.representation(inputs)
        logits: Tensor = self.head(features)
        return logits.float() if logits.itemsize < 4 else logits  # a softmax needs more than half precision

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of a training batch, in nats: (B, *X), (B,) -> ().

        Raises:
            UserError: one item alone, where it is to be normalised with its batch.
        """
        if self.training and self.hparams["mode"] == "head" and len(labels) < 2:
            raise UserError("mode head normalises features by the batch: set a batch_size of 2 or more")
        targets = one_hot(labels, len(self.classes)).to(self.dtype)
        if self.hparams["mixup"]:
            inputs, targets = mixed_up(inputs, targets, self.hparams["mixup"])
        return cross_entropy(self(inputs), targets, label_smoothing=self.hparams["smoothing"])

    # -- training ----------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self.inputs(batch), self._labels(batch))
        self.divergence.see(loss, self.max_loss)
        if self.logs_this_step():
            self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "test")

    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> None:
        labels = self._labels(batch)
        logits = self(self.inputs(batch))
        unit = batch["clip"] if "clip" in batch else batch.get("index")
        if unit is None:  # of a user's own data: every item by itself
            place = (batch_idx * self.trainer.world_size + self.global_rank) << 32
            unit = torch.arange(len(labels), device=labels.device) + place
        self._gathered.update(logits.softmax(1), labels, unit, batch.get("group"))
        loss = cross_entropy(logits, labels)
        self.log(f"{split}/loss", loss, batch_size=len(labels), sync_dist=True)

    def _labels(self, batch: Batch) -> Tensor:
        if "label" not in batch:
            data = getattr(self._trainer, "datamodule", None)
            raise UserError(f"the data has no labels: {_how_to_label(data)}")
        labels = batch["label"]
        if labels.device.type == "cpu" and bool((labels < 0).any()):  # elsewhere the step would wait for this
            raise UserError("some items have no label: use ssl_ebm.data.LabelledShare, which leaves them out")
        return labels

    def on_validation_epoch_end(self) -> None:
        self._count("val")

    def on_test_epoch_end(self) -> None:
        self._count("test")

    def _count(self, split: str) -> None:
        vote = self._gathered.compute()
        self._gathered.reset()
        self.votes[split] = Vote(*(part.cpu() for part in vote if part is not None))
        self.log(f"{split}/accuracy", vote.right.float().mean(), prog_bar=True, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """For every item its "probability" (B, K) and "class" (B,), with the "label" (B,) where there is one;
        "classes" names them.
        """
        probability = self(self.inputs(batch)).softmax(1)
        found = {"probability": probability, "class": probability.argmax(1), "classes": self.classes}
        return found | {name: batch[name] for name in ("label", "clip", "index") if name in batch}

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters of each layer, the embedding first, and the factor of their learning rate."""
        decay = self.hparams["layer_decay"]
        if decay is None:
            decay = 1.0 if self.hparams["mode"] == "scratch" else FINE_TUNED_DECAY
        head = [] if self.head is None else list(self.head.parameters())
        layers = [*self.layers[:-1], [*self.layers[-1], *head]]
        return [(layer, decay ** (len(layers) - 1 - k)) for k, layer in enumerate(layers)]

    def configure_optimizers(self) -> Any:
        settings = self.hparams
        return optimizer_with_cosine(
            self, settings["lr"], settings["weight_decay"], settings["warmup_steps"],
            second_momentum=settings["second_momentum"], rates=self.rates(),
        )  # fmt: skip


def _how_to_label(data: Any) -> str:
    return data.how_to_label() if isinstance(data, StreamData) else "put the files in a folder for each class"


def _check(settings: Any) -> None:
    """Raises UserError for a setting that is out of range, naming it."""
    if settings["mode"] not in ("full", "last", "head", "scratch"):
        raise UserError(f"mode is {settings['mode']!r}: use full, last, head or scratch")
    for name, least in (("last_blocks", 1), ("mixup", 0), ("weight_decay", 0), ("warmup_steps", 0)):
        if not settings[name] >= least:
            raise UserError(f"{name} is {settings[name]}: use at least {least}")
    for name in ("drop_out", "smoothing", "second_momentum"):
        if not 0 <= settings[name] < 1:
            raise UserError(f"{name} is {settings[name]}: use a number from 0 to below 1")
    if settings["layer_decay"] is not None and not 0 < settings["layer_decay"] <= 1:
        raise UserError(f"layer_decay is {settings['layer_decay']}: use a number above 0 and at most 1")
    if not 0 < settings["lr"] < float("inf"):
        raise UserError(f"lr is {settings['lr']}: use a number above 0")
