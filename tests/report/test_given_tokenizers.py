"""Tokenizers of others, with BERT's and RoBERTa's ids: fit, fill, score and export, against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from ssl_ebm import load_encoder
from ssl_ebm.cli import main
from ssl_ebm.data import LabelledDocuments, Text
from ssl_ebm.data.special_tokens import SpecialTokens
from ssl_ebm.report.text import TextModel

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]
ROOM = 8  # entries of the network's table beyond the tokenizer


def lines() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 8)) + f" {i}" for i in range(200)]


def like_bert() -> Any:
    """[PAD] is 0, then come 99 unused tokens, [UNK] [CLS] [SEP] [MASK] are 100 to 103."""
    names = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names += [*"0123456789", *(f"##{digit}" for digit in range(10)), *WORDS]
    made: Any = Tokenizer(models.WordPiece({one: i for i, one in enumerate(names)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return made


def like_roberta() -> Any:
    """<s> <pad> </s> <unk> are 0 to 3, and <mask>, which takes the space before it, is the last token."""
    made: Any = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(lines(), trainer)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


@pytest.fixture(scope="module", params=["bert", "roberta"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = {"bert": like_bert, "roberta": like_roberta}[request.param]()
    tokenizer.save(str(folder / "given.json"))
    (folder / "corpus.txt").write_text("\n".join(lines()))
    sizes = {
        "vocabulary": tokenizer.get_vocab_size() + ROOM,
        "width": 16,
        "depth": 2,
        "heads": 2,
        "length": 24,
    }
    network = {
        "class_path": "ssl_ebm.networks.text.TextEncoder",
        "init_args": sizes | {"positions": "learnt", "norm": "post"},
    }
    arguments = ["fit", "--model", "ssl_ebm.tasks.MaskedText", "--model.network", json.dumps(network)]
    arguments += [
        "--data",
        "ssl_ebm.data.Text",
        "--data.path",
        str(folder / "corpus.txt"),
        "--data.unit",
        "line",
    ]
    arguments += ["--data.tokenizer", str(folder / "given.json"), "--data.length", "16"]
    arguments += ["--data.cache", str(folder / "cache"), "--trainer.max_steps", "20", "--model.lr", "0.01"]
    arguments += ["--trainer.accelerator", "cpu", "--run_dir", str(folder / "run")]
    assert main(arguments) == 0
    return folder


def model(place: Path) -> TextModel:
    return TextModel(place / "run" / "checkpoints" / "last.ckpt")


def test_documents_stand_between_its_own_tokens(place: Path) -> None:
    tokenizer: Any = Tokenizer.from_file(str(place / "given.json"))
    data = Text(
        str(place / "corpus.txt"), "line", tokenizer=str(place / "given.json"), length=16,
        cache=str(place / "cache"),
    )  # fmt: skip
    data.setup()
    expected = [
        id_
        for document in data.corpus.documents()
        if document.split == "train"
        for id_ in tokenizer.encode(document.text).ids  # with its post-processor
    ]
    assert data.train_dataset.all_tokens().tolist() == expected


def test_only_text_is_hidden_and_drawn(place: Path) -> None:
    task, tokenizer = model(place).task, Tokenizer.from_file(str(place / "given.json"))
    special = SpecialTokens.of(tokenizer)
    outside = {special.pad, special.unknown, special.cls, special.sep, special.mask}
    outside |= set(range(tokenizer.get_vocab_size(), task.network.vocabulary))
    assert set((~task.ordinary).nonzero()[:, 0].tolist()) == outside
    documents = [tokenizer.encode(line).ids for line in lines()[:64]]
    tokens = torch.tensor([(ids + [special.pad] * 40)[:40] for ids in documents])
    hidden = task.hide(tokens, torch.Generator().manual_seed(0))
    assert task.ordinary[hidden.truth[hidden.counts]].all()
    seen = hidden.tokens.gather(1, hidden.positions)[hidden.counts]
    assert (task.ordinary[seen] | (seen == special.mask)).all()
    assert float((seen == special.mask).double().mean()) == pytest.approx(0.8, abs=0.1)
    unchanged = torch.ones_like(tokens, dtype=torch.bool).scatter(1, hidden.positions, ~hidden.counts)
    assert (hidden.tokens == tokens)[unchanged].all()


def exported(place: Path) -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers")
    out, checkpoint = place / "exported", place / "run" / "checkpoints" / "last.ckpt"
    if not out.exists():
        given = ["export", "--ckpt", str(checkpoint), "--format", "transformers", "--out", str(out)]
        assert main(given) == 0
    network = transformers.AutoModelForMaskedLM.from_pretrained(out).eval()
    return network, transformers.AutoTokenizer.from_pretrained(out)


def test_transformers_reads_the_same_tokens_and_gives_the_same_logits(place: Path) -> None:
    network, tokenizer = exported(place)
    ours = model(place)
    text = f"ban {tokenizer.mask_token} dip man 7"
    tokens = ours.tokens_of("ban [MASK] dip man 7")
    assert tokenizer(text)["input_ids"] == tokens.tolist()  # with [CLS] and [SEP]
    assert network.config.pad_token_id == tokenizer.pad_token_id == ours.task.special.pad
    batch = tokenizer([text, "ban"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = network(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        seen = batch["input_ids"] != ours.task.special.pad
        found = ours.task.network.logits(ours.task.network(batch["input_ids"], seen))
    torch.testing.assert_close(found[seen], theirs[seen], atol=1e-4, rtol=1e-4)


def test_fill_is_what_the_pipeline_of_transformers_fills_in(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, tokenizer = exported(place)
    capsys.readouterr()
    checkpoint = place / "run" / "checkpoints" / "last.ckpt"
    assert main(["fill", "--ckpt", str(checkpoint), "--json", "ban [MASK] dip"]) == 0
    found = json.loads(capsys.readouterr().out)
    batch = tokenizer(f"ban {tokenizer.mask_token} dip", return_tensors="pt")
    with torch.no_grad():
        logits = network(**batch).logits[0, batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
    ordinary = torch.ones(len(logits), dtype=torch.bool)
    ordinary[tokenizer.all_special_ids] = False
    ordinary[len(tokenizer) :] = False
    p, best = logits.masked_fill(~ordinary, -torch.inf).softmax(0).topk(5)
    assert [one["probability"] for one in found] == pytest.approx(p.tolist(), rel=1e-3)
    assert [one["words"] for one in found] == [[tokenizer.decode([i]).strip()] for i in best.tolist()]
    word = found[0]["words"][0]
    bytewise = "Ġ" in tokenizer.get_vocab()
    goes_on = bytewise and not tokenizer.convert_ids_to_tokens(int(best[0])).startswith("Ġ")
    joined = word.startswith("##") or goes_on
    assert found[0]["text"] == (f"ban{word.removeprefix('##')} dip" if joined else f"ban {word} dip")
    own_name = f"ban {tokenizer.mask_token} dip"
    assert main(["fill", "--ckpt", str(checkpoint), "--json", own_name]) == 0
    assert json.loads(capsys.readouterr().out) == [one | {"of": own_name} for one in found]


def test_score_is_the_sum_over_texts_with_one_token_hidden(place: Path) -> None:
    network, tokenizer = exported(place)
    ours = model(place)
    score = ours.score("ban dip man")
    tokens = torch.tensor(tokenizer("ban dip man")["input_ids"])
    total = 0.0
    for i in range(1, len(tokens) - 1):
        hidden = tokens.clone()
        hidden[i] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = network(hidden[None]).logits[0, i]
        total += float(logits[ours.task.ordinary].logsumexp(0) - logits[tokens[i]])
    assert score.log_likelihood == pytest.approx(-total, rel=1e-4)
    assert score.tokens == len(tokens) - 2


def test_documents_and_encoders_are_padded_with_its_own_token(place: Path, tmp_path: Path) -> None:
    checkpoint = place / "run" / "checkpoints" / "last.ckpt"
    encoder = load_encoder(checkpoint)
    texts = ["ban dip", "man got lis ban 7"]
    tokens = encoder.tokenize(texts)
    pad = SpecialTokens.of(Tokenizer.from_file(str(place / "given.json"))).pad
    assert (tokens[0] == pad).any()
    together = encoder(tokens)
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(row[None], encoder(encoder.tokenize(text)), atol=1e-5, rtol=1e-4)
    rows = [f"{text},{'odd' if i % 2 else 'even'}" for i, text in enumerate(lines())]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    data = LabelledDocuments(str(tmp_path), length=20)
    data.use_tokenizer(encoder.task.tokenizer_json, 24)
    data.setup("fit")
    item = data.train_dataset[0]["tokens"]
    text = next(one for one in data.corpus.documents() if one.split == "train").text
    assert item[item != pad].tolist() == encoder.tokenize(text)[0, :20].tolist()
    out = tmp_path / "all.safetensors"
    assert main(["export", "--ckpt", str(checkpoint), "--format", "safetensors", "--out", str(out)]) == 0
    again = load_encoder(out)
    assert again.task.special == encoder.task.special
    assert torch.equal(again(tokens), together)
