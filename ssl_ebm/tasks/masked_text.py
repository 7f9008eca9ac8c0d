"""Masked text: what is hidden is one of finitely many tokens, so a softmax holds all answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_ebm.data.corruption import Corrupted, TokenMasking
from ssl_ebm.data.seen_text import with_before
from ssl_ebm.data.special_tokens import SpecialTokens
from ssl_ebm.data.text import Text
from ssl_ebm.data.tokenizing import read_tokenizer
from ssl_ebm.errors import UserError
from ssl_ebm.networks.onednn import linear
from ssl_ebm.networks.text import TextEncoder, pooled, pooled_windows
from ssl_ebm.networks.transformer import take
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.divergence import WatchedTask
from ssl_ebm.tasks.inputs import Inputs
from ssl_ebm.tasks.optimization import TrainingOptimizer, check_optimizer, optimizer_with_cosine
from ssl_ebm.tasks.sharing import item_generator, mean_of_all

Batch = dict[str, Tensor]
Description = dict[str, Any]
CHUNK = 256  # sequences in one pass, where one text becomes many


class MaskedText(WatchedTask):
    """A masked autoencoder of text.

        E(x, y) = -log softmax(logits(x))_y

    x is the text with some tokens hidden, y a hidden token. E is its negative log-likelihood, so its Gibbs
    distribution at beta = 1 is the softmax, and least squares' average never arises. Of several hidden tokens
    the softmaxes are the marginals alone: `ssl_ebm.tasks.fillings` is about their joint.

    With `bag_of_words` a training adds the energy of the same tokens given their document's vector alone:

        loss = mean E(x, y) + bag_of_words * mean E_bag(x, y),    E_bag(x, y) = -log softmax(W g(v) + b)_y

    v is the mean of the features of the document's visible tokens, W and b are those of the logits, and g is
    a layer that serves nothing else. So the mean, which is what represents a document, has to know what the
    document is about; without it nothing asks that of it.

    Batches are dictionaries with "tokens" (B, T) int64, [PAD] where a text ends. A checkpoint holds the
    tokenizer, if the data has one.

    Args:
        network: a `ssl_ebm.networks.text.TextEncoder`, by class_path and init_args.
        masking: a `ssl_ebm.data.corruption.TokenMasking`, the same way. Null: BERT's 15 % of tokens.
        lr: peak learning rate.
        weight_decay: on matrices.
        warmup_steps: optimizer steps of linear warm-up; a cosine to zero follows.
        second_momentum: beta2 of AdamW.
        pooling: what represents a document: the mean of its tokens' features, or the first one.
        bag_of_words: weight of E_bag, 0 or more; 0: g is not made. It needs the mean as pooling.
        optimizer: adamw, or muon for the matrices of transformer blocks (`optimizer_with_cosine`).

    Raises:
        UserError: a setting out of its range, or a description of nothing that exists.

    Source: Devlin et al., "BERT" (2019); lecture (NYU Deep Learning 2020, week 7-2). A document's vector from
    its words in any order: Le and Mikolov, "Distributed representations of sentences and documents" (2014),
    whose vectors are free parameters where v is computed.
    """

    can_be_sharded = True
    begins_afresh = "bag."  # what a fit need not find in the weights that it starts from

    word_starts: Tensor
    ordinary: Tensor

    def __init__(
        self,
        network: Description,
        masking: Description | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        second_momentum: float = 0.98,
        pooling: Literal["mean", "first"] = "mean",
        bag_of_words: float = 0.0,
        optimizer: TrainingOptimizer = "adamw",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in ("weight_decay", "warmup_steps"):
            if not self.hparams[name] >= 0:
                raise UserError(f"{name} is {self.hparams[name]}: use at least 0")
        if not 0 < lr < float("inf"):
            raise UserError(f"lr is {lr}: use a number above 0")
        check_optimizer(optimizer)
        if pooling not in ("mean", "first"):
            raise UserError(f"pooling is {pooling!r}: use mean or first")
        if not 0 <= bag_of_words < float("inf"):
            raise UserError(f"bag_of_words is {bag_of_words}: use a number of 0 or more")
        if bag_of_words and pooling != "mean":
            raise UserError(
                "bag_of_words trains the mean of a document: set pooling to mean, or leave it out"
            )
        self.network: TextEncoder = build(network, TextEncoder, "network")
        self.masking = TokenMasking() if masking is None else build(masking, TokenMasking, "masking")
        width = self.network.width
        self.bag = (
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)) if bag_of_words else None
        )
        self._tokenizer_json: str | None = None
        # What `Text` tells of itself; by "before", the same of a training whose weights this one began with.
        self.trained_on: Mapping[str, Any] | None = None
        self.special = SpecialTokens()
        starts = torch.ones(self.network.vocabulary, dtype=torch.bool)
        self.register_buffer("word_starts", starts)
        # Which tokens stand for text, (V,): the tokenizer tells, so a checkpoint need not.
        self.register_buffer("ordinary", self.special.ordinary(self.network.vocabulary), persistent=False)

    @property
    def objective_name(self) -> str:
        return "masked text"

    # -- data --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Takes the tokenizer of the data; warns of a training on shorter sequences than the network reads.

        Raises:
            UserError: it is another one than the checkpoint's, or as `tokenizer_json` and `WatchedTask`.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        tokenizer = getattr(data, "tokenizer_json", None)
        length = self.network.length
        if stage == "fit" and isinstance(data, Text):
            self.trained_on = with_before(data.describe(), self.trained_on)
            if data.length < length:
                rank_zero_warn(
                    f"the data has sequences of {data.length} tokens and the network reads {length}: its "
                    f"places from {data.length} on are not trained: set model.network.length to "
                    f"{data.length}, or data.length to {length}"
                )
        if tokenizer is None:
            return
        if self.tokenizer_json not in (None, tokenizer):
            raise UserError(
                "the data has another tokenizer than the checkpoint: set data.tokenizer to the one of the "
                "training"
            )
        self.tokenizer_json = tokenizer
        starts = data.word_starts  # type: ignore[union-attr]
        self.word_starts[: len(starts)] = starts.to(self.word_starts.device)

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizer, as JSON of the `tokenizers` library; it says which tokens are special.

        Raises:
            UserError: where it is set: as `read_tokenizer`, or it has more tokens than the network.
        """
        return self._tokenizer_json

    @tokenizer_json.setter
    def tokenizer_json(self, content: str | None) -> None:
        if content is not None:
            tokenizer = read_tokenizer(content)
            known, room = tokenizer.get_vocab_size(), self.network.vocabulary
            if known > room:
                raise UserError(
                    f"the tokenizer has {known} tokens and the network {room}: set the network's vocabulary "
                    "to at least as many"
                )
            self.special = SpecialTokens.of(tokenizer)
            self.ordinary.copy_(self.special.ordinary(room, known))
        self._tokenizer_json = content

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["tokenizer"] = self.tokenizer_json
        if before := (self.trained_on or {}).get("before"):
            checkpoint["data"] = {**checkpoint.get("data", {}), "before": before}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.tokenizer_json = checkpoint.get("tokenizer")
        self.trained_on = checkpoint.get("data")

    # -- features and energies ---------------------------------------------------------------------------

    def inputs(self, batch: Batch) -> Tensor:
        """What `representation` takes of a batch: the tokens, (B, T), or (B, W, T) of W windows each."""
        return batch["tokens"]

    def takes(self, data: Mapping[str, Any]) -> Inputs:
        """What `representation` takes."""
        unit = "token ids, [PAD] where a document ends"
        length, vocabulary = self.network.length, self.network.vocabulary
        return Inputs("tokens", ("length",), (length,), ("length",), unit, vocabulary, self.special.pad)

    def representation(self, tokens: Tensor) -> Tensor:
        """Features of whole documents, nothing hidden: (B, T) int64, [PAD] where they end -> (B, width).

        Of documents in several windows, (B, W, T), some of which may be [PAD] alone, it is the mean over all
        their tokens; or, where `pooling` is first, over the first ones of windows. None sees another.
        """
        pooling, seen = self.hparams["pooling"], tokens != self.special.pad
        if tokens.ndim != 3:
            return pooled(self.features(tokens), seen, pooling)
        rows = seen.flatten(0, 1)
        looked_at = rows | ~rows.any(1, keepdim=True)  # attention to nothing at all would be no number
        features = self.network(tokens.flatten(0, 1), looked_at).unflatten(0, tokens.shape[:2])
        return pooled_windows(features, seen, pooling)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of every token at every place: (B, T) -> (B, T, V). Special tokens have none: -inf."""
        return self._scores(self.features(tokens))

    def _scores(self, features: Tensor) -> Tensor:
        return self._of_words(self.network.logits(features))

    def _of_words(self, scores: Tensor) -> Tensor:
        """A hidden token is never a special one: (..., V) -> (..., V)."""
        return scores.float().masked_fill(~self.ordinary, -torch.inf)

    @torch.no_grad()
    def token_energies(self, tokens: Tensor) -> Tensor:
        """E of each token given all others, (B, T) -> (B, T) float, in nats; 0 for special tokens.

        One pass for each token: with the others as they are, this one hidden.

        Source: Salazar et al., "Masked language model scoring" (2020).
        """
        energies = torch.zeros(tokens.shape, device=tokens.device)
        rows, places = self.ordinary[tokens].nonzero(as_tuple=True)
        for some in torch.arange(len(rows), device=rows.device).split(CHUNK):
            row, place = rows[some], places[some]
            hidden = tokens[row].scatter(1, place[:, None], self.special.mask)
            truth = tokens[row, place]
            energies[row, place] = -self.log_p(hidden, place).gather(1, truth[:, None])[:, 0]
        return energies

    def pseudo_log_likelihood(self, tokens: Tensor) -> Tensor:
        """-sum of the tokens' energies: (B, T) -> (B,), in nats."""
        return -self.token_energies(tokens).sum(1)

    def log_p(self, texts: Tensor, place: int | Tensor) -> Tensor:
        """log p of every token at a place of each text, which should be hidden there: (N, T) -> (N, V).

        Args:
            place: one for all texts, or (N,) int64.
        """
        at = torch.as_tensor(place, device=texts.device).expand(len(texts))[:, None]
        return self._scores(self.features(texts, at)[:, 0]).log_softmax(1)

    # -- training ----------------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Notes which sequences are padded, "padded" (B,) bool, where one is: the device would be waited for.

        Attention without a mask is faster, and packed sequences need none.
        """
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if isinstance(batch, dict) and "tokens" in batch:
            padded = (batch["tokens"] == self.special.pad).flatten(1).any(1)
            if padded.device.type != "cpu" or bool(padded.any()):
                batch["padded"] = padded
        return batch

    def hide(self, tokens: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        """A batch with tokens hidden, (B, T) int64, as `masking` does it."""
        special = self.special
        return self.masking.hide(
            tokens, self.ordinary, self.word_starts, generator, special.mask, special.pad
        )

    def features(self, tokens: Tensor, at: Tensor | None = None, padded: bool = True) -> Tensor:
        """What the network makes of tokens, of which none looks at padding: (B, T) -> (B, T, width).

        Args:
            at: (B, M) int64, places that are asked for, (B, M, width); None: all.
            padded: False where none of the tokens is padding, which is faster.
        """
        features: Tensor = self.network(tokens, tokens != self.special.pad if padded else None, at)
        return features

    def hidden_scores(self, hidden: Corrupted, features: Tensor | None = None, padded: bool = True) -> Tensor:
        """Scores of every token at each hidden place, (B M, V): no other is projected to the vocabulary.

        Args:
            features: (B, T, width), what the network makes of the tokens; None: it is asked, for the hidden
                places alone.
            padded: as in `features`.
        """
        if features is None:
            asked = self.features(hidden.tokens, hidden.positions, padded)
        else:
            asked = take(features, hidden.positions)
        return self._scores(asked.flatten(0, 1))

    def energies(
        self, hidden: Corrupted, features: Tensor | None = None, padded: bool = True
    ) -> tuple[Tensor, Tensor]:
        """E of the truth at each hidden place, and whether it is the likeliest token: (B, M) each.

        Places that do not count are 0.

        Args:
            features, padded: as in `hidden_scores`.
        """
        return _energies_of(self.hidden_scores(hidden, features, padded), hidden)

    def bag_energies(self, hidden: Corrupted, features: Tensor) -> Tensor:
        """E_bag of the truth at each hidden place: features (B, T, width) -> (B, M); 0 where none counts.

        A sequence may hold parts of several documents: each has a vector of its own.

        Raises:
            UserError: `bag_of_words` is 0.
        """
        if self.bag is None:
            raise UserError("this model has no energy of bags: train it with bag_of_words above 0")
        part = (hidden.tokens == self.special.cls).cumsum(1)  # (B, T): which document
        unseen = torch.zeros_like(hidden.tokens, dtype=torch.bool).scatter(1, hidden.positions, hidden.counts)
        visible = (hidden.tokens != self.special.pad) & ~unseen
        own = (part.gather(1, hidden.positions)[..., None] == part[:, None]) & visible[:, None]  # (B, M, T)
        vectors = own.to(features) @ features / own.sum(2, keepdim=True).clamp_min(1)
        scores = self._of_words(linear(self.network.scores, self.bag(vectors)))
        return _energies_of(scores.flatten(0, 1), hidden)[0]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        hidden, padded = self.hide(batch["tokens"], self.draws), "padded" in batch
        features = None if self.bag is None else self.features(hidden.tokens, padded=padded)  # bags need all
        energy, right = self.energies(hidden, features, padded)
        count = hidden.counts.sum()
        loss = mean_of_all(self, energy.sum(), count)
        figures = {"train/loss": loss.detach()}
        if features is not None:
            of_bags = mean_of_all(self, self.bag_energies(hidden, features).sum(), count)
            loss = loss + self.hparams["bag_of_words"] * of_bags
            figures["train/bag_of_words"] = of_bags.detach()
        self.divergence.see(loss, self.max_loss)
        if self.logs_this_step():
            figures["train/accuracy"] = mean_of_all(self, right.sum(), count)
            self.log_dict(figures, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "test")

    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> None:
        """Logs the mean energy of hidden tokens (its exponential is the masked perplexity) and the accuracy.

        The tokens that are hidden are the same in every epoch: a generator of its own for each batch.
        """
        tokens, padded = batch["tokens"], "padded" in batch
        hidden = self.hide(tokens, item_generator(self, batch_idx, tokens.device))
        features = None if self.bag is None else self.features(hidden.tokens, padded=padded)  # bags need all
        energy, right = self.energies(hidden, features, padded)
        # A float: Lightning (2.6) rounds the mean of whole numbers over processes down.
        count = float(hidden.counts.sum())
        figures = {"loss": energy.sum() / max(1, count), "accuracy": right.sum() / max(1, count)}
        if features is not None:
            figures["bag_of_words"] = self.bag_energies(hidden, features).sum() / max(1, count)
        named = {f"{split}/{name}": value for name, value in figures.items()}
        self.log_dict(named, batch_size=count, sync_dist=True, prog_bar=True)  # type: ignore[arg-type]

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Features of every sequence of the batch: (B, width)."""
        return self.representation(batch["tokens"])

    def configure_optimizers(self) -> Any:
        settings = self.hparams
        return optimizer_with_cosine(
            self,
            settings["lr"],
            settings["weight_decay"],
            settings["warmup_steps"],
            second_momentum=settings["second_momentum"],
            optimizer=settings["optimizer"],
        )


def _energies_of(scores: Tensor, hidden: Corrupted) -> tuple[Tensor, Tensor]:
    """-log softmax of the truth, and whether it scores best: (B M, V) -> (B, M) each; 0 where none counts."""
    truth, counts = hidden.truth.flatten(), hidden.counts.flatten()
    best = scores.argmax(1)
    # A truth that is special stands at a place that does not count: it has no score.
    energy = cross_entropy(scores, torch.where(counts, truth, best), reduction="none")
    right = (best == truth) & counts
    return (energy * counts).view_as(hidden.truth), right.view_as(hidden.truth)
