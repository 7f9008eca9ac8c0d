"""Hidden tokens: how many, which, and what stands in their place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssl_ebm.data.corruption import TokenMasking
from ssl_ebm.data.special_tokens import CLS, MASK, PAD, SEP
from ssl_ebm.errors import UserError

V = 1000


def text(batch: int = 64, length: int = 40) -> torch.Tensor:
    tokens = torch.randint(5, V, (batch, length), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, 20], tokens[:, -3:] = CLS, SEP, PAD
    return tokens


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_are_those_of_bert() -> None:
    tokens = text(2000)
    made = TokenMasking(0.15).hide(tokens, V, generator=generator())
    assert made.positions.shape == (2000, 6)  # 0.15 * 40
    assert made.counts.all()
    assert (made.truth >= 5).all()
    assert torch.equal(made.truth, tokens.gather(1, made.positions))
    assert (made.positions.sort(1).values.diff(dim=1) > 0).all()
    seen = made.tokens.gather(1, made.positions)
    masked, same = (seen == MASK).double().mean(), (seen == made.truth).double().mean()
    assert masked == pytest.approx(0.8, abs=0.015)  # 12,000 tokens: 4 standard deviations
    assert same == pytest.approx(0.1, abs=0.011)
    assert (seen >= MASK).all()
    untouched = torch.ones_like(tokens, dtype=torch.bool).scatter(1, made.positions, False)
    assert torch.equal(made.tokens[untouched], tokens[untouched])
    # every place that can be hidden is hidden equally often
    often = torch.zeros(40).index_add(0, made.positions.flatten(), torch.ones(made.positions.numel()))
    assert often[[0, 20, 37, 38, 39]].sum() == 0
    assert (often[often > 0] / 2000 - 6 / 35).abs().max() < 0.034


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_the_seed_decides(unit: Any) -> None:
    starts = torch.arange(V) % 3 == 0
    masking = TokenMasking(0.3, unit)
    one, two, three = (masking.hide(text(), V, starts, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.tokens, three.tokens)


def test_words_are_hidden_whole() -> None:
    tokens = text()
    starts = torch.arange(V) % 3 == 0
    made = TokenMasking(0.3, "word", masked=1.0, random=0.0).hide(tokens, V, starts, generator())
    hidden = (made.tokens == MASK) & (tokens != MASK)
    assert hidden.sum() == made.counts.sum() > 0.9 * 64 * 11  # 0.3 of 37 places without padding
    for row, gone in zip(tokens.tolist(), hidden.tolist(), strict=True):
        word: list[bool] = []
        for i, token in enumerate([*row, PAD]):
            free = token >= 5
            if not free or starts[token] or (i and row[i - 1] < 5):  # a new word: the last one is over
                assert len(set(word)) <= 1
                word = []
            if free:
                word.append(gone[i])


def test_the_rest_of_a_word_is_a_word_of_its_own() -> None:
    tokens = torch.tensor([[8, 8, 6, 8, 6, 8, 6, 8]] * 400)  # words begin with 6; the first one began before
    starts = torch.arange(V) == 6
    made = TokenMasking(0.5, "word", masked=1.0, random=0.0).hide(tokens, V, starts, generator())
    hidden = made.tokens == MASK
    words = hidden[:, ::2]
    assert torch.equal(words, hidden[:, 1::2])
    assert (words[:, 0] != words[:, 1]).double().mean() == pytest.approx(2 / 3, abs=0.1)  # two of four words


def packed(batch: int, length: int) -> torch.Tensor:
    """Two documents in a sequence, the first of which began before."""
    tokens = torch.randint(5, V, (batch, length), generator=generator())
    tokens[:, length // 3], tokens[:, length // 3 + 1] = SEP, CLS
    return tokens


@pytest.mark.parametrize("length", [64, 256])
def test_of_words_the_share_that_is_asked_for_is_hidden_long_ones_as_often_as_short_ones(length: int) -> None:
    tokens = packed(3000, length)
    starts = torch.arange(V) % 5 < 3  # words of 5 / 3 tokens
    made = TokenMasking(0.15, "word", masked=1.0, random=0.0).hide(tokens, V, starts, generator())
    wanted = round(0.15 * length)
    assert made.positions.shape == (3000, wanted + 7)
    number = made.counts.sum(1).double()
    assert float(number.mean()) == pytest.approx(wanted, abs=4 * float(number.std()) / 3000**0.5)
    free = tokens >= 5
    begins = starts[tokens] & free
    begins[:, 0] = True
    begins[:, 1:] |= free[:, 1:] & ~free[:, :-1]
    ends = torch.cat([begins[:, 1:] | ~free[:, 1:], torch.ones(3000, 1, dtype=torch.bool)], 1)[free]
    size = torch.diff(ends.nonzero()[:, 0], prepend=torch.tensor([-1]))  # of each word, one after another
    hidden = (made.tokens == MASK)[begins]
    share = wanted / (length - 2)
    for some in (size == 1, size == 2, size > 3):
        deviation = (share * (1 - share) / int(some.sum())) ** 0.5
        assert float(hidden[some].double().mean()) == pytest.approx(share, abs=4 * deviation)


def test_a_word_of_more_tokens_than_are_hidden_is_hidden_in_parts() -> None:
    tokens = packed(2000, 64)
    starts = torch.zeros(V, dtype=torch.bool)
    made = TokenMasking(0.15, "word", masked=1.0, random=0.0).hide(tokens, V, starts, generator())
    number = made.counts.sum(1).double()
    assert float(number.mean()) == pytest.approx(10, abs=4 * float(number.std()) / 2000**0.5)


@pytest.mark.parametrize(("ratio", "length"), [(0.15, 64), (0.15, 256), (0.5, 64)])
def test_spans_have_the_mean_length_that_is_promised_and_the_share(ratio: float, length: int) -> None:
    count, tokens = 4000, packed(4000, length)
    made = TokenMasking(ratio, "span", masked=1.0, random=0.0).hide(tokens, V, generator=generator())
    wanted = round(ratio * length)
    assert made.positions.shape == (count, wanted)
    assert made.counts.all()
    hidden, free, parts = made.tokens == MASK, length - 2, 2
    often = hidden[:, tokens[0] >= 5].double().mean(0)
    share = wanted / free
    assert (often - share).abs().max() < 5 * (share * (1 - share) / count) ** 0.5
    # spans before the ends of the two parts cut some: each end lies inside of one that often
    before = wanted * (1 / 3.8 - parts / free) / (1 - parts / free)
    assert before + parts * (wanted - before) / free == pytest.approx(wanted / 3.8)
    cuts = torch.arange(wanted)
    p = torch.distributions.Binomial(wanted - 1, torch.tensor((before - 1) / (wanted - 1))).log_prob(cuts)
    visible, spans = free - wanted, 1 + cuts  # in a ring, a span is followed by another one, or by a gap
    runs = float((p.exp() * spans * visible / (spans + visible - 1)).sum())
    runs += parts * (wanted - runs) / free
    found = (hidden[:, 1:] & ~hidden[:, :-1]).sum(1) + hidden[:, 0]
    assert float(found.double().mean()) == pytest.approx(
        runs, abs=4 * float(found.double().std()) / count**0.5
    )


def test_spans_have_the_geometric_mean_length() -> None:
    tokens = torch.full((3000, 128), 7)
    made = TokenMasking(0.15, "span", masked=1.0, random=0.0).hide(tokens, V, generator=generator())
    hidden = made.tokens == MASK
    runs = (hidden[:, 1:] & ~hidden[:, :-1]).sum() + hidden[:, 0].sum()
    # spans that touch make one run: with 15 % hidden a run holds 1 / (1 - 0.15) spans or so
    assert float(hidden.sum() / runs) == pytest.approx(3.8 / (1 - 0.15), rel=0.15)


def test_a_text_with_nothing_to_hide() -> None:
    tokens = torch.tensor([[CLS, 9, SEP, PAD, PAD, PAD, PAD, PAD]])
    made = TokenMasking(0.5).hide(tokens, V, generator=generator())
    assert made.counts.sum() == 1
    assert made.truth[made.counts].tolist() == [9]
    assert torch.equal(made.tokens[:, 2:], tokens[:, 2:])


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_padding_hides_no_more_of_a_short_document(unit: Any) -> None:
    sizes = torch.tensor([20, 128, 64, 4] * 50)
    tokens = torch.randint(5, V, (200, 128), generator=generator())
    tokens[:, 0] = CLS
    tokens[torch.arange(128) >= sizes[:, None]] = PAD
    starts = torch.ones(V, dtype=torch.bool)
    made = TokenMasking(0.15, unit).hide(tokens, V, starts, generator())
    assert made.counts.sum(1).tolist() == [3, 19, 10, 1] * 50
    assert torch.equal(made.truth, tokens.gather(1, made.positions))
    left = made.tokens.gather(1, made.positions)[~made.counts]
    assert torch.equal(left, made.truth[~made.counts])
    often = torch.zeros(20).index_add(
        0, made.positions[::4][made.counts[::4]], torch.ones(150)
    )  # of the short ones
    assert ((often[1:] / 50 - 3 / 19).abs() < 4 * (3 / 19 * 16 / 19 / 50) ** 0.5).all()


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_nothing_but_text_is_hidden_beside_padding(unit: Any) -> None:
    sizes = torch.tensor([30, 64, 9, 0] * 500)  # the last ones are padding alone
    tokens = torch.randint(5, V, (2000, 64), generator=generator())
    tokens[:, 0] = CLS
    tokens[torch.arange(64) >= sizes[:, None]] = PAD
    starts = torch.rand(V, generator=generator()) < 0.6  # words of several tokens
    made = TokenMasking(0.3, unit).hide(tokens, V, starts, generator())
    hidden = made.tokens != tokens
    assert not (hidden & (tokens < 5)).any()
    counts = made.counts.sum(1).view(500, 4).double()
    assert counts[:, 3].sum() == 0
    wanted = torch.tensor([9.0, 19.0, 3.0], dtype=torch.float64)
    error = counts[:, :3].std(0) / 500**0.5
    assert ((counts[:, :3].mean(0) - wanted).abs() <= 4 * error + 1e-9).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ratio": 0.0}, "above 0"),
        ({"masked": 0.9, "random": 0.2}, "in all"),
        ({"unit": "line"}, "word or span"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TokenMasking(**settings)


def test_words_need_their_starts() -> None:
    with pytest.raises(UserError, match="word_starts"):
        TokenMasking(unit="word").hide(text(), V)
