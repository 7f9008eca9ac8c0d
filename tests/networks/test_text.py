"""The text transformer against transformers' BertForMaskedLM, and rotary positions against their law."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssl_ebm.errors import UserError
from ssl_ebm.networks.bert import bert_config, from_bert, to_bert
from ssl_ebm.networks.text import TextEncoder, pooled
from ssl_ebm.networks.transformer import rotary, rotate

SIZES = {"vocabulary": 50, "width": 24, "depth": 3, "heads": 3, "length": 12}


def bert() -> TextEncoder:
    return TextEncoder(**SIZES, positions="learnt", norm="post")  # type: ignore[arg-type]


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(1))
    seen = torch.ones_like(tokens, dtype=torch.bool)
    seen[1, 5:] = False
    return tokens, seen


def test_logits_are_those_of_bert_with_copied_weights() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = bert_config(bert())
    settings |= {"type_vocab_size": 2}
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**settings)).eval()
    for weight in theirs.parameters():  # biases and norms too, and segments
        torch.nn.init.normal_(weight, std=0.3)
    ours = bert().eval()
    from_bert(ours, theirs.state_dict())
    tokens, seen = padded()
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=seen.long()).logits
        found = ours.logits(ours(tokens, seen))
    assert expected.std() > 0.5
    torch.testing.assert_close(found[seen], expected[seen], atol=1e-4, rtol=1e-4)


def test_weights_go_to_bert_as_they_came() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = bert().eval()
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**bert_config(ours))).eval()
    missing, unexpected = theirs.load_state_dict(to_bert(ours), strict=False)
    assert not unexpected
    assert all("decoder" in name for name in missing)
    tokens, seen = padded()
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=seen.long()).logits
        torch.testing.assert_close(ours.logits(ours(tokens, seen))[seen], expected[seen])


def test_what_is_not_bert_does_not_go_there() -> None:
    with pytest.raises(UserError, match="norm: post"):
        to_bert(TextEncoder(50, 24, 2, 3, 12))
    with pytest.raises(UserError, match="same sizes"):
        from_bert(bert(), {})


def test_a_bert_of_more_layers_is_not_cut() -> None:
    deep = TextEncoder(**(SIZES | {"depth": 4}), positions="learnt", norm="post")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"same sizes: .*bert\.encoder\.layer\.3\."):
        from_bert(bert(), to_bert(deep))


def test_scores_of_their_own_are_not_dropped() -> None:
    weights = to_bert(bert())
    scores = "cls.predictions.decoder.weight"
    from_bert(bert(), weights | {scores: weights["bert.embeddings.word_embeddings.weight"].clone()})
    with pytest.raises(UserError, match=scores):
        from_bert(bert(), weights | {scores: torch.zeros(50, 24)})


def test_what_bert_has_beside_its_words_is_left_out() -> None:
    others = ("bert.embeddings.position_ids", "bert.pooler.dense.weight", "cls.seq_relationship.bias")
    ours, theirs = bert(), bert()
    from_bert(ours, to_bert(theirs) | {name: torch.zeros(1) for name in others})
    assert torch.equal(ours.blocks[2].mlp.fc1.weight, theirs.blocks[2].mlp.fc1.weight)  # type: ignore[union-attr]


def test_rotary_products_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)
    turn = rotary(10, 8)
    queries = rotate(query.expand(1, 1, 10, 8), turn)[0, 0]
    keys = rotate(key.expand(1, 1, 10, 8), turn)[0, 0]
    products = queries @ keys.T
    for distance in (-3, 0, 4):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    # by complex numbers: (a + bi) e^(it w)
    pairs = torch.complex(query[:4], query[4:]) * torch.exp(1j * 7 * 10_000 ** (-torch.arange(4) / 4))
    torch.testing.assert_close(torch.cat([pairs.real, pairs.imag]), queries[7])


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(50, 24, 2, 3, 12).eval()
    tokens, seen = padded()
    whole = encoder(tokens, seen)
    torch.testing.assert_close(whole[1, :5], encoder(tokens[1:2, :5])[0])
    torch.testing.assert_close(pooled(whole, seen)[1], whole[1, :5].mean(0))
    assert torch.equal(pooled(whole, seen, "first"), whole[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("positions", "norm"), [("rotary", "pre"), ("learnt", "post")])
def test_some_places_have_the_features_and_gradients_that_they_have_among_all(
    positions: Any, norm: Any, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(50, 32, 2, 4, 16, positions=positions, norm=norm)
    for parameter in encoder.parameters():  # biases, too, are to matter
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(5, 50, (3, 12))
    seen = torch.arange(12) < torch.tensor([12, 9, 7])[:, None]
    at = torch.tensor([[0, 3, 11], [8, 2, 2], [6, 0, 1]])
    rows, weight = torch.arange(3)[:, None], torch.randn(3, 3, 32)
    found = []
    for some in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            features = encoder(tokens, seen, at) if some else encoder(tokens, seen)[rows, at]
        (features * weight).sum().backward()
        used = [p.grad for p in encoder.blocks.parameters()] + [encoder.tokens.weight.grad]
        found.append([features.detach(), *used])
    near = {"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    for all_places, some_places in zip(*found, strict=True):
        torch.testing.assert_close(some_places, all_places, **near)


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"width": 0}, "at least 1"), ({"width": 25}, "multiple"), ({"width": 9, "heads": 3}, "twice")],
)
def test_settings_out_of_range(settings: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TextEncoder(**({"vocabulary": 50, "heads": 3} | settings))  # type: ignore[arg-type]


def test_a_sequence_that_is_too_long() -> None:
    with pytest.raises(UserError, match="up to 12"):
        TextEncoder(50, 24, 1, 3, 12)(torch.zeros(1, 13, dtype=torch.int64))
