"""Masked text against enumeration: energies, joints, and what a softmax of each place cannot say."""

from __future__ import annotations

import warnings
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader

from ssl_ebm.data import LabelledDocuments, Text
from ssl_ebm.data.special_tokens import CLS, MASK, PAD, SEP, SPECIAL
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import MaskedText, load_task
from ssl_ebm.tasks.checkpoints import take_weights
from ssl_ebm.tasks.fillings import complete, gibbs

V = 9  # four words: 5, 6, 7, 8
NETWORK: dict[str, Any] = {
    "class_path": "ssl_ebm.networks.text.TextEncoder",
    "init_args": {"vocabulary": V, "width": 32, "depth": 2, "heads": 2, "length": 8},
}
HALF: dict[str, Any] = {"class_path": "ssl_ebm.data.corruption.TokenMasking", "init_args": {"ratio": 0.5}}


def task(**settings: Any) -> MaskedText:
    torch.manual_seed(0)
    made = MaskedText(NETWORK, **settings).eval()
    for weight in made.network.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


def tokenizer(words: str) -> str:
    """Of words of one letter, as JSON."""
    names = [*SPECIAL, *words]
    model = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL[1])
    return str(Tokenizer(model).to_str())


class Pairs(LightningDataModule):
    """[CLS] 5 6 [SEP] or [CLS] 7 8 [SEP], equally often, two of them in a sequence."""

    def __init__(self, size: int = V, words: str = "abcdefgh") -> None:
        super().__init__()
        self.tokenizer_json = tokenizer(words[: size - 5])
        self.word_starts = torch.arange(size) % 2 == 0

    def train_dataloader(self) -> DataLoader[Any]:
        one, two = [CLS, 5, 6, SEP], [CLS, 7, 8, SEP]
        texts = torch.tensor([a + b for a, b in product((one, two), repeat=2)] * 8)
        return DataLoader([{"tokens": text} for text in texts], batch_size=32)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def fit(made: MaskedText, folder: Path, steps: int, data: LightningDataModule | None = None) -> Trainer:
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(made.train(), data or Pairs())
    made.eval()
    return trainer


def test_an_energy_is_that_of_a_token_hidden_alone() -> None:
    made = task()
    tokens = torch.tensor([[CLS, 5, 8, 6, SEP], [CLS, 7, SEP, PAD, PAD]])
    found = made.token_energies(tokens)
    for row, place in product(range(2), range(5)):
        token = int(tokens[row, place])
        if token < 5:
            assert found[row, place] == 0
            continue
        alone = tokens[row][tokens[row] != PAD].clone()
        alone[place] = MASK
        with torch.no_grad():
            logits = made.network.logits(made.network(alone[None]))[0, place, 5:]
        expected = torch.logsumexp(logits, 0) - logits[token - 5]
        torch.testing.assert_close(found[row, place], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.pseudo_log_likelihood(tokens), -found.sum(1))


def test_the_loss_is_the_mean_energy_of_hidden_tokens() -> None:
    made = task(masking=HALF)
    tokens = torch.tensor([[CLS, 5, 8, 6, 7, SEP], [CLS, 7, SEP, PAD, PAD, PAD]])
    hidden = made.hide(tokens, torch.Generator().manual_seed(0))
    energy, right = made.energies(hidden)
    p = torch.zeros(2, 6, 4)
    with torch.no_grad():
        for row, size in enumerate((6, 3)):  # without padding
            scores = made.network.logits(made.network(hidden.tokens[row : row + 1, :size]))
            p[row, :size] = scores[0, :, 5:].log_softmax(-1)
    assert hidden.counts.sum() == 4
    for row, m in product(range(2), range(3)):
        if not hidden.counts[row, m]:
            assert energy[row, m] == 0
            assert not right[row, m]
            continue
        here, truth = p[row, hidden.positions[row, m]], int(hidden.truth[row, m])
        torch.testing.assert_close(energy[row, m], -here[truth - 5], atol=1e-5, rtol=1e-5)
        assert right[row, m] == (here.argmax() == truth - 5)


class Padded(Pairs):
    """The same, and then documents of unlike length."""

    def train_dataloader(self) -> DataLoader[Any]:
        one, two = [CLS, 5, 6, SEP], [CLS, 7, 8, SEP]
        texts = [one + two] * 4 + [one + two, one + [PAD] * 4] * 2
        return DataLoader([{"tokens": torch.tensor(text)} for text in texts], batch_size=4)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


@pytest.mark.parametrize("bag_of_words", [0.0, 1.0])
def test_padding_is_looked_at_in_no_step_and_packed_batches_need_no_mask(
    bag_of_words: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task(masking=HALF, bag_of_words=bag_of_words)
    seen: list[Any] = []
    forward = made.network.forward

    def watched(tokens: torch.Tensor, mask: torch.Tensor | None = None, at: Any = None) -> torch.Tensor:
        seen.append(mask if mask is None else mask.sum(1).tolist())
        return forward(tokens, mask, at)

    monkeypatch.setattr(made.network, "forward", watched)
    trainer = fit(made, tmp_path, 2, Padded())
    sizes = [8, 4, 8, 4]
    assert seen == [
        None,
        sizes,
        None,
        sizes,
        None,
        sizes,
    ]  # the check before the training, it, and what follows
    trainer.validate(made, Padded(), verbose=False)
    assert seen[6:] == [None, sizes]


def test_the_energy_of_a_bag_is_that_of_the_mean_of_what_is_seen_of_the_document() -> None:
    made = task(masking=HALF, bag_of_words=0.5)
    assert made.bag is not None
    tokens = torch.tensor(
        [
            [6, 8, SEP, CLS, 5, 7, 6, SEP],  # the end of a document, and another
            [CLS, 5, SEP, CLS, 7, SEP, PAD, PAD],  # fewer tokens than places
        ]
    )
    for seed in range(5):
        hidden = made.hide(tokens, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            features = made.network(hidden.tokens)
            found = made.bag_energies(hidden, features)
        assert hidden.counts.sum() == 6
        for row in range(2):
            starts = [place for place in range(8) if tokens[row, place] == CLS]
            gone = {
                int(p) for p, counts in zip(hidden.positions[row], hidden.counts[row], strict=True) if counts
            }
            for m, (place, counts) in enumerate(zip(hidden.positions[row], hidden.counts[row], strict=True)):
                if not counts:
                    assert found[row, m] == 0
                    continue
                first = max([start for start in starts if start <= place], default=0)
                end = min([start for start in starts if start > place], default=8)
                seen = [i for i in range(first, end) if i not in gone and tokens[row, i] != PAD]
                with torch.no_grad():
                    vector = features[row, seen].mean(0)
                    scores = made.network.scores(made.bag(vector))[5:]
                expected = torch.logsumexp(scores, 0) - scores[tokens[row, place] - 5]
                torch.testing.assert_close(found[row, m], expected, atol=1e-4, rtol=1e-4)


def test_a_document_is_told_by_the_mean_of_its_own_tokens(tmp_path: Path) -> None:
    """One word of eight tokens is hidden, and the other word of its document says which."""
    torch.manual_seed(0)
    one = {"class_path": HALF["class_path"], "init_args": {"ratio": 1 / 8, "masked": 1.0, "random": 0.0}}
    made = MaskedText(NETWORK, one, lr=2e-3, warmup_steps=20, bag_of_words=1.0)
    fit(made, tmp_path, 300)
    (tokens,) = [batch["tokens"] for batch in Pairs().train_dataloader()]
    hidden = made.hide(tokens, torch.Generator().manual_seed(0))
    with torch.no_grad():
        energy = made.bag_energies(hidden, made.network(hidden.tokens))
    assert float(energy.mean()) < 0.1  # log 4 where nothing is known, log 2 where only the place of a word is


def test_a_fit_may_start_from_weights_with_and_without_a_bag(tmp_path: Path) -> None:
    plain, bags = task(), task(bag_of_words=1.0)
    for one, other in ((plain, bags), (bags, plain)):
        content = {"task": "MaskedText", "state_dict": one.state_dict()}
        began = task(bag_of_words=other.hparams["bag_of_words"])
        with torch.no_grad():
            began.network.tokens.weight.zero_()
        kept = {name: value.clone() for name, value in began.state_dict().items() if name.startswith("bag.")}
        take_weights(began, content, "one.ckpt")
        for name, value in began.state_dict().items():
            assert torch.equal(value, kept[name] if name in kept else one.state_dict()[name]), name
    lost = {name: value for name, value in plain.state_dict().items() if name != "network.norm.weight"}
    with pytest.raises(UserError, match="does not fit this model"):
        take_weights(bags, {"task": "MaskedText", "state_dict": lost}, "one.ckpt")


def test_a_wide_beam_is_enumeration() -> None:
    made = task()
    text = torch.tensor([CLS, MASK, 7, MASK, SEP])
    texts, log_p = complete(made, text, beam=16)
    assert len(texts) == 16
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        for filled, found in zip(texts, log_p, strict=True):
            first = made(text[None])[0, 1].log_softmax(0)[filled[1]]
            half = text.clone()
            half[1] = filled[1]
            second = made(half[None])[0, 3].log_softmax(0)[filled[3]]
            torch.testing.assert_close(found, first + second, atol=1e-5, rtol=1e-5)
    assert (log_p.diff() <= 0).all()
    narrow, _ = complete(made, text, beam=2)
    assert len(narrow) == 2


def test_the_joint_of_two_masks_is_not_the_product_of_marginals(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Up to three of the four words, for completing asks about fewer and fewer; what is seen is right.
    hard = {"ratio": 3 / 8, "masked": 0.75, "random": 0.0}
    three = {"class_path": HALF["class_path"], "init_args": hard}
    made = MaskedText(NETWORK, three, lr=2e-3, warmup_steps=20)
    fit(made, tmp_path, 600)
    text = torch.tensor([CLS, MASK, MASK, SEP, CLS, 7, 8, SEP])
    with torch.no_grad():
        marginals = made(text[None])[0, 1:3].softmax(1)
    wrong_by_marginals = float(marginals[0, 5] * marginals[1, 8] + marginals[0, 7] * marginals[1, 6])
    assert wrong_by_marginals == pytest.approx(0.5, abs=0.1)  # the exact product: 1/4 + 1/4
    texts, log_p = complete(made, text, beam=16)
    joint = {tuple(words): p for words, p in zip(texts[:, 1:3].tolist(), log_p.exp().tolist(), strict=True)}
    assert joint[5, 6] + joint[7, 8] > 0.98
    assert min(joint[5, 6], joint[7, 8]) > 0.4
    drawn = gibbs(made, text, 64, 3, torch.Generator().manual_seed(0))[:, 1:3].tolist()
    good = [words for words in drawn if words in ([5, 6], [7, 8])]
    assert len(good) > 56  # marginals would give 32 of 64, with a standard deviation of 4
    first = gibbs(made, text, 64, 1, torch.Generator().manual_seed(0))[:, 1:3].tolist()
    for words in (drawn, first):
        assert 16 < words.count([5, 6]) < 48  # half of them, within four standard deviations


@pytest.mark.parametrize("sweeps", [1, 2, 5])
def test_gibbs_draws_what_enumeration_of_its_chain_says(sweeps: int) -> None:
    """Of a network with random weights, whose conditionals belong to no joint distribution."""
    made = task()
    words = range(5, V)
    text = torch.tensor([CLS, MASK, MASK, SEP])

    def conditional(place: int, first: int, second: int) -> torch.Tensor:
        with torch.no_grad():
            scores: torch.Tensor = made(torch.tensor([[CLS, first, second, SEP]]))[0, place]
        return scores.softmax(0)[5:].double()

    first = conditional(1, MASK, MASK)  # (4,)
    given_first = torch.stack([conditional(2, word, MASK) for word in words])  # [first, second]
    given_second = torch.stack([conditional(1, MASK, word) for word in words])  # [second, first]
    law = first[:, None] * given_first
    for _ in range(sweeps - 1):
        law = (law.sum(0) @ given_second)[:, None] * given_first
    draws = 20_000
    drawn = gibbs(made, text, draws, sweeps, torch.Generator().manual_seed(0))[:, 1:3] - 5
    found = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16).reshape(4, 4) / draws
    assert ((found - law).abs() < 4 * (law * (1 - law) / draws).sqrt() + 1e-4).all()


def test_a_checkpoint_holds_the_tokenizer(tmp_path: Path) -> None:
    made = MaskedText(NETWORK)
    trainer = fit(made, tmp_path, 2, Pairs())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = load_task(tmp_path / "one.ckpt", MaskedText)
    assert again.tokenizer_json == tokenizer("abcd")
    assert torch.equal(again.word_starts, torch.arange(V) % 2 == 0)
    tokens = torch.tensor([[CLS, 5, 6, SEP, PAD]])
    assert torch.equal(again.representation(tokens), made.representation(tokens))
    torch.testing.assert_close(again.representation(tokens), again.representation(tokens[:, :4]))
    with pytest.raises(UserError, match="another tokenizer"):
        fit(again, tmp_path, 2, Pairs(words="efgh"))


def test_validation_hides_the_same_tokens_each_time(tmp_path: Path) -> None:
    made = task()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    first = trainer.validate(made, Pairs(), verbose=False)
    torch.manual_seed(5)
    assert trainer.validate(made, Pairs(), verbose=False) == first


def test_places_that_no_training_reaches_are_warned_of(tmp_path: Path) -> None:
    made = MaskedText({**NETWORK, "init_args": {**NETWORK["init_args"], "length": 16}})
    short, whole = (Text(str(tmp_path), length=length) for length in (8, 16))
    labelled = LabelledDocuments(str(tmp_path), length=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data, stage in ((whole, "fit"), (short, "test"), (labelled, "fit")):
            made._trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
            made.setup(stage)
    made._trainer = SimpleNamespace(datamodule=short)  # type: ignore[assignment]
    with pytest.warns(UserWarning, match=r"set model\.network\.length to 8, or data\.length to 16"):
        made.setup("fit")


def test_settings_and_texts_that_do_not_fit(tmp_path: Path) -> None:
    for settings, says in (
        ({"lr": 0.0}, "above 0"),
        ({"warmup_steps": -1}, "at least 0"),
        ({"pooling": "max"}, "mean"),
        ({"bag_of_words": -0.1}, "0 or more"),
        ({"bag_of_words": float("nan")}, "0 or more"),
        ({"bag_of_words": 1.0, "pooling": "first"}, "set pooling to mean"),
    ):
        with pytest.raises(UserError, match=says):
            MaskedText(NETWORK, **settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        complete(task(), torch.tensor([CLS, 5, SEP]))
    plain, tokens = task(), torch.tensor([[CLS, 5, SEP]])
    with pytest.raises(UserError, match="bag_of_words above 0"):
        plain.bag_energies(plain.hide(tokens), plain.network(tokens))
    with pytest.raises(UserError, match="beam"):
        complete(task(), torch.tensor([CLS, MASK, SEP]), beam=0)
    wider = task()
    with pytest.raises(UserError, match=r"the tokenizer has 10 tokens and the network 9.* at least as many"):
        wider.tokenizer_json = tokenizer("abcde")
    assert wider.tokenizer_json is None
    with pytest.raises(UserError, match="at least as many"):
        fit(MaskedText(NETWORK), tmp_path, 1, Pairs(size=V + 1))
