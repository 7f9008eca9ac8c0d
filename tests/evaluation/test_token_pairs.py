"""Joint and marginals of two hidden words, where the network's conditionals are those of a known table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from ssl_ebm.data.special_tokens import CLS, MASK, SEP, SPECIAL
from ssl_ebm.evaluation.text_examples import whole_words
from ssl_ebm.evaluation.token_pairs import pair_energies
from ssl_ebm.tasks import MaskedText

WORDS = ("cat", "dog", "sees", "hears")
NETWORK: dict[str, Any] = {
    "class_path": "ssl_ebm.networks.text.TextEncoder",
    "init_args": {"vocabulary": 9, "width": 8, "depth": 1, "heads": 1, "length": 8},
}


class Known(MaskedText):
    """What stands at the places 1 and 2 has a given joint distribution, whatever else is there."""

    def __init__(self, joint: Tensor) -> None:
        super().__init__(NETWORK)
        self.joint = joint  # (4, 4)

    def log_p(self, texts: Tensor, place: int | Tensor) -> Tensor:
        rows = []
        for tokens, at in zip(texts, torch.as_tensor(place).expand(len(texts)).tolist(), strict=True):
            table = self.joint if at == 1 else self.joint.T
            other = int(tokens[3 - at])
            p = table.sum(1) if other == MASK else table[:, other - len(SPECIAL)]
            rows.append(torch.cat([torch.zeros(len(SPECIAL)), p / p.sum()]).log())
        return torch.stack(rows)


def known(joint: Tensor) -> Known:
    made = Known(joint)
    names = [*SPECIAL, *WORDS]
    model = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL[1])
    made.tokenizer_json = Tokenizer(model).to_str()
    return made


def apart(tokens: Tensor) -> Tensor:
    """Each sequence as a document of its own."""
    return torch.arange(len(tokens))[:, None].expand_as(tokens).clone()


def test_energies_are_those_of_the_joint_and_of_its_marginals() -> None:
    joint = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)).double() ** 3
    joint /= joint.sum()
    pairs = torch.multinomial(joint.flatten(), 60, True, generator=torch.Generator().manual_seed(1))
    one, two = pairs // 4, pairs % 4
    tokens = torch.stack([torch.full_like(one, CLS), one + 5, two + 5, torch.full_like(one, SEP)], 1)
    with torch.no_grad():
        found = pair_energies(known(joint), tokens, apart(tokens), 50, 0)
    assert found is not None
    expected = float(-joint[one, two].log().mean())
    product = float(-(joint.sum(1)[one] * joint.sum(0)[two]).log().mean())
    assert found["pairs"] == 60
    assert found["joint"][0] == pytest.approx(expected, rel=1e-4)
    assert found["marginals"][0] == pytest.approx(product, rel=1e-4)
    assert found["gain"][0] == pytest.approx(product - expected, rel=1e-3)
    assert found["gain"][1] <= found["gain"][0] <= found["gain"][2]
    # all examples have the same mutual information, which is what their words differ by
    mutual = float((joint * (joint / (joint.sum(1, keepdim=True) * joint.sum(0))).log()).sum())
    for example in found["examples"]:
        assert example["nats"] == pytest.approx(mutual, rel=1e-3)
        energies = [word["energy"] for word in example["words"]]
        assert energies == sorted(energies)
        assert example["truth"] in [word["pair"] for word in example["words"]]
        for word in example["words"]:
            i, j = (WORDS.index(name) for name in word["pair"])
            assert word["probability"] == pytest.approx(float(joint[i, j]), rel=1e-3)
            assert word["energy"] == pytest.approx(-np.log(float(joint[i, j])), rel=1e-3)
            assert word["product"] == pytest.approx(float(joint.sum(1)[i] * joint.sum(0)[j]), rel=1e-3)


def test_independent_words_owe_each_other_nothing() -> None:
    joint = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None] * torch.tensor([0.4, 0.3, 0.2, 0.1])
    tokens = torch.tensor([[CLS, 5 + i % 4, 5 + i // 4, SEP] for i in range(16)])
    with torch.no_grad():
        found = pair_energies(known(joint), tokens, apart(tokens), 50, 0)
    assert found is not None
    assert found["gain"] == pytest.approx([0, 0, 0], abs=1e-5)
    nothing = torch.tensor([[CLS, 5, SEP, CLS]])
    assert pair_energies(known(joint), nothing, apart(nothing), 50, 0) is None


def test_copies_of_a_text_in_its_document_say_no_more_than_one() -> None:
    joint = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None] * torch.tensor([0.4, 0.3, 0.2, 0.1])
    tokens = torch.tensor([[CLS, 5 + i % 4, 5 + i // 4, SEP] for i in range(16)])
    copies = tokens.repeat_interleave(5, 0)
    documents = apart(tokens).repeat_interleave(5, 0)
    documents[:, 3] = -1  # the next document's: no pair stands there
    with torch.no_grad():
        once, together, separate, one = (
            pair_energies(known(joint), some, of, 200, 0)
            for some, of in (
                (tokens, apart(tokens)), (copies, documents), (copies, apart(copies)), (tokens, 0 * tokens)
            )
        )  # fmt: skip
    assert once is not None
    assert together is not None
    assert separate is not None
    assert one is not None
    for name in ("joint", "marginals"):
        assert together[name] == pytest.approx(once[name])
        assert separate[name][2] - separate[name][1] < 0.7 * (once[name][2] - once[name][1])
        assert one[name] == once[name]  # nothing but its pairs can be drawn


def test_whole_words_are_tokens_that_none_continues() -> None:
    made = MaskedText(NETWORK)
    names = [*SPECIAL, "cat", "##s", "7", "dog"]
    model = models.WordPiece({name: i for i, name in enumerate(names)}, unk_token=SPECIAL[1])
    made.tokenizer_json = Tokenizer(model).to_str()
    made.word_starts[6] = False
    tokens = torch.tensor([[CLS, 5, 6, 8, 5, SEP, 8, 7], [8, 5, 8, CLS, 7, 7, 5, 6]])
    assert whole_words(made, tokens) == [[3, 4, 6], [0, 1, 2]]
    assert whole_words(made, tokens, 2) == [[3], [0, 1]]
