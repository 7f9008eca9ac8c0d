"""fill, score and export of a small text model; transformers loads what is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_ebm.cli import main
from ssl_ebm.data.special_tokens import MASK
from ssl_ebm.data.tokenizing import train_tokenizer
from ssl_ebm.report.text import TextModel
from ssl_ebm.tasks import MaskedText

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]


def train(folder: Path, **network: str) -> Path:
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, 8)) + f" {i}" for i in range(200)]
    (folder / "corpus.txt").write_text("\n".join(lines))
    arguments = ["fit", "--model", "ssl_ebm.tasks.MaskedText", "--data", "ssl_ebm.data.Text"]
    sizes = {"vocabulary": 120, "width": 16, "depth": 2, "heads": 2, "length": 24}
    described = {"class_path": "ssl_ebm.networks.text.TextEncoder", "init_args": sizes | network}
    arguments += ["--model.network", json.dumps(described)]
    arguments += [
        "--data.path",
        str(folder / "corpus.txt"),
        "--data.unit",
        "line",
        "--data.vocabulary",
        "120",
    ]
    arguments += ["--data.length", "16", "--data.cache", str(folder / "cache"), "--trainer.max_steps", "3"]
    arguments += ["--trainer.accelerator", "cpu", "--run_dir", str(folder / "run")]
    assert main(arguments) == 0
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("text"), positions="learnt", norm="post")


@pytest.fixture(scope="module")
def rotary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("rotary"))


def test_fill_says_what_the_network_says(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", "--ckpt", str(checkpoint), "--json", "--top", "3", "ban [MASK] dip"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = TextModel(checkpoint)
    tokens = model.tokens_of("ban [MASK] dip")
    with torch.no_grad():
        best = model.task(tokens[None])[0, tokens.tolist().index(MASK)].softmax(0).topk(3)
    assert [one["probability"] for one in found] == pytest.approx(best.values.tolist(), rel=1e-4)
    for one in found:
        assert one["text"].startswith("ban")
        assert one["text"].endswith(" dip")
    assert main(["fill", "--ckpt", str(checkpoint), "ban [MASK] [MASK]"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 5


def test_fill_of_several_texts_is_that_of_each(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["ban [MASK] dip", "[MASK] tan"]

    def printed(*arguments: str) -> str:
        assert main(["fill", "--ckpt", str(checkpoint), "--top", "2", *arguments]) == 0
        return capsys.readouterr().out

    alone = [json.loads(printed("--json", text)) for text in texts]
    assert [one["of"] for one in alone[0] + alone[1]] == [texts[0]] * 2 + [texts[1]] * 2
    assert json.loads(printed("--json", *texts)) == alone[0] + alone[1]
    assert printed(*texts) == "\n".join(printed(text) for text in texts)
    assert main(["fill", "--ckpt", str(checkpoint), texts[0], "ban dip"]) == 2  # before anything is printed
    assert capsys.readouterr().out == ""


def test_fillings_of_a_byte_level_tokenizer_are_written_as_it_decodes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [
        "walking is very good",
        "a walk is good",
        "talking and walking",
        "the walk (very good)",
        "## a",
    ] * 20
    tokenizer = train_tokenizer(lambda: iter(texts), 280, "bpe")
    network = {"vocabulary": 280, "width": 16, "depth": 1, "heads": 2, "length": 24}
    task = MaskedText({"class_path": "ssl_ebm.networks.text.TextEncoder", "init_args": network}).eval()
    task.tokenizer_json = tokenizer.to_str()
    monkeypatch.setattr("ssl_ebm.report.text.load_task", lambda *_: task)
    model = TextModel("none")
    tokens = {name: tokenizer.token_to_id(name) for name in ("ing", "Ġgood", "g", "Ġwalk", "Ġis", ")")}
    assert None not in tokens.values()
    assert tokenizer.token_to_id("##") is not None  # of a heading; no part of a word, as in a WordPiece
    for text, filled, expected, words in (
        ("walk [MASK] is", ["ing"], "walking is", ("ing",)),
        ("very [MASK]", ["Ġgood"], "very good", ("good",)),
        ("very[MASK]", ["Ġgood"], "very good", ("good",)),
        ("very [MASK]", ["g"], "veryg", ("g",)),
        ("[MASK] [MASK] is", ["Ġwalk", "ing"], "walking is", ("walk", "ing")),
        ("(good [MASK] [MASK]", [")", "Ġis"], "(good) is", (")", "is")),
    ):
        ids = model.tokens_of(text)
        whole = ids.clone()
        whole[ids == MASK] = torch.tensor([tokens[name] for name in filled])
        made = (whole[None], torch.zeros(1))
        monkeypatch.setattr("ssl_ebm.report.text.complete", lambda *_, made=made, **__: made)
        [found] = model.fill(text)
        assert found.text == expected == tokenizer.decode(whole[1:-1].tolist()).strip()
        assert found.words == words


def test_score_adds_up_the_energies(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--ckpt", str(checkpoint), "--json", "ban dip", "tan"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = TextModel(checkpoint)
    energies = model.task.token_energies(model.tokens_of("ban dip")[None])[0]
    assert found[0]["log_likelihood"] == pytest.approx(-float(energies.sum()), rel=1e-5)
    assert found[0]["perplexity"] == pytest.approx(
        float((energies.sum() / found[0]["tokens"]).exp()), rel=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fill", "ban dip"], "no [MASK]"),
        (["fill", "ban [MASK] " + "dip " * 60], "this model reads 24"),
        (["fill", "--top", "0", "ban [MASK]"], "top is 0"),
        (["score", ""], "is empty"),
        (["score", "猫猫"], "no token that could be scored"),
        (["score", os.fsdecode(b"na\xefve")], "bytes that are no UTF-8"),
    ],
)
def test_mistakes_end_in_one_line(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main([arguments[0], "--ckpt", str(checkpoint), *arguments[1:]]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert len(error.splitlines()) == 1


def test_transformers_loads_what_is_exported(checkpoint: Path, rotary: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "bert"
    assert main(["export", "--ckpt", str(checkpoint), "--format", "transformers", "--out", str(out)]) == 0
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = TextModel(checkpoint)
    tokens = model.tokens_of("ban [MASK] dip tan")
    assert tokenizer("ban [MASK] dip tan", add_special_tokens=False)["input_ids"] == tokens[1:-1].tolist()
    assert tokenizer.mask_token_id == MASK
    with torch.no_grad():
        expected = theirs.eval()(tokens[None]).logits
        found = model.task.network.logits(model.task.network(tokens[None]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (
        main(["export", "--ckpt", str(rotary), "--format", "transformers", "--out", str(tmp_path / "no")])
        == 2
    )


def test_all_weights_go_to_one_file(rotary: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "all.safetensors"
    assert main(["export", "--ckpt", str(rotary), "--format", "safetensors", "--out", str(out)]) == 0
    weights = load_file(out)
    assert torch.equal(weights["network.scores.weight"], weights["network.tokens.weight"])
