"""``ssl-ebm export``: other programs load what it writes, and its cards say what is known."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import RUNS
from tokenizers import Tokenizer

from ssl_ebm import load_encoder
from ssl_ebm.cli import main
from ssl_ebm.tasks.encoder import Encoder


def export(checkpoint: Path, form: str, out: Path) -> int:
    return main(["export", "--ckpt", str(checkpoint), "--format", form, "--out", str(out)])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ssl-ebm: error: ")
    return line


# -- ONNX -------------------------------------------------------------------------------------------------


def inputs_for(encoder: Encoder, count: int, length: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    made = encoder.inputs.example(count, generator)
    if encoder.inputs.name == "tokens":
        made = made[:, :length].clone()
        made[-1, length - length // 3 :] = 0  # a document that ends early
    return made


@pytest.mark.parametrize("name", RUNS)
def test_onnxruntime_computes_the_same_features(
    name: str, checkpoint_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = tmp_path / "folder" / "encoder.onnx"
    assert export(checkpoint_of(name), "onnx", path) == 0
    printed = capsys.readouterr().out.splitlines()
    assert float(printed[-2].rpartition(" ")[2]) < 1e-5
    assert printed[-1] == str(path)
    assert [one.name for one in path.parent.iterdir()] == ["encoder.onnx"]
    encoder = load_encoder(checkpoint_of(name))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    assert given.name == encoder.inputs.name
    assert given.shape[0] == "batch"
    for count, length in ((1, 24), (5, 24), (2, 9)):
        inputs = inputs_for(encoder, count, length)
        [found] = session.run(["features"], {given.name: inputs.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, encoder(inputs).numpy(), atol=1e-4, rtol=0)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}  # plain operators alone
    assert not model.functions
    entries = session.get_modelmeta().custom_metadata_map
    assert json.loads(entries["settings"])["lr"] == encoder.task.hparams["lr"]
    if given.name == "tokens":
        ids = Tokenizer.from_str(entries["tokenizer"]).encode("ban dip").ids
        assert encoder.tokenize("ban dip")[0, 1:-1].tolist() == ids


def test_a_graph_that_computes_something_else_is_not_written(
    checkpoint_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    old = tmp_path / "encoder.onnx"
    old.write_text("old")
    run = runtime.InferenceSession.run
    for wrong, said in (
        (lambda *given: [one + 2e-3 for one in run(*given)], "onnxruntime and PyTorch differ by 2.0e-03"),
        (lambda *given: [one * np.nan for one in run(*given)], "onnxruntime and PyTorch differ by nan"),
        (lambda *given: [one[:, 1:] for one in run(*given)], "onnxruntime and PyTorch differ by inf"),
        (lambda *given: run(given[0], ["nothing"], given[2]), "onnxruntime cannot run the graph"),
    ):
        monkeypatch.setattr(runtime.InferenceSession, "run", wrong)
        assert export(checkpoint_of("patches"), "onnx", old) == 2
        assert said in error_of(capsys)
        assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"encoder.onnx": "old"}


def test_a_missing_package_is_named(
    checkpoint_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint, out = checkpoint_of("patches"), tmp_path / "encoder.onnx"
    capsys.readouterr()
    for missing in ("onnx", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)  # as if it were not installed
            assert export(checkpoint, "onnx", out) == 2
        said = error_of(capsys)
        assert f"to write ONNX, {missing} must be installed: pip install onnx onnxscript" in said
        assert not out.exists()
    pytest.importorskip("onnxscript")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(checkpoint, "onnx", out) == 0
    assert "was not checked: pip install" in capsys.readouterr().out
    assert out.is_file()


def test_a_size_that_is_not_known_is_asked_for(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    content = torch.load(checkpoint_of("pictures"), weights_only=True)
    del content["data"]
    torch.save(content, tmp_path / "a.ckpt")
    capsys.readouterr()
    assert export(tmp_path / "a.ckpt", "onnx", tmp_path / "a.onnx") == 2
    assert "does not say what size it was trained on" in error_of(capsys)


@pytest.mark.parametrize(
    ("form", "out", "said"),
    [
        ("onnx", "encoder.bin", "use a name that ends in .onnx"),
        ("safetensors", "encoder.onnx", "use a name that ends in .safetensors"),
        ("timm", "folder", "timm takes encoders of Inpainting"),
        ("transformers", "folder", "transformers takes models of MaskedText"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    form: str, out: str, said: str, checkpoint_of: Callable[[str], Path], tmp_path: Path, capsys: Any
) -> None:
    checkpoint = checkpoint_of("frames")
    capsys.readouterr()
    assert export(checkpoint, form, tmp_path / out) == 2
    assert said in error_of(capsys)
    assert not list(tmp_path.iterdir())


# -- cards ------------------------------------------------------------------------------------------------


def parts_of(card: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The front matter, and the text below each heading."""
    _, head, body = card.read_text().split("---\n", 2)
    sections = body.split("\n## ")
    return yaml.safe_load(head), {one.partition("\n")[0]: one.partition("\n")[2] for one in sections[1:]}


def block_of(section: str) -> Any:
    return yaml.safe_load(section.split("```yaml\n")[1].split("```")[0])


def rows_of(section: str) -> dict[str, str]:
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {name.strip(): value.strip() for name, value in cells if name.strip() and "---" not in name}


def copy_of(checkpoint: Path, folder: Path) -> Path:
    """The run, its files' times kept, so that a test can add to it."""
    return Path(shutil.copytree(checkpoint.parent.parent, folder)) / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("name", RUNS)
def test_the_card_says_what_the_run_says(
    name: str, checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    run = copy_of(checkpoint_of(name), tmp_path / "run").parent.parent
    measured = {"split": "test", "perplexity": [44.8371, 41.25, 48.7], "trigram": {"accuracy": 0.2451236}}
    (run / "text_quality_test.json").write_text(json.dumps(measured | {"items": [1, 2, 3], "seed": 3}))
    (run / "list.json").write_text("[1, 2]")
    (run / "half.json").write_text('{"a": ')
    (run / "stale.json").write_text('{"a": 1}')
    os.utime(run / "stale.json", (0, 0))  # older than the training
    out = tmp_path / "encoder.safetensors"
    assert export(run / "checkpoints" / "last.ckpt", "safetensors", out) == 0
    head, sections = parts_of(tmp_path / "encoder.md")
    assert head["library_name"] == "ssl_ebm"
    assert {"self-supervised-learning", "energy-based-model"} < set(head["tags"])

    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    data, network = block_of(sections["Data"]), block_of(sections["Network"])
    assert data == {key: value for key, value in content["data"].items() if value is not None} | {
        key: data[key] for key in data if isinstance(data[key], str) and data[key].endswith("entries")
    }
    assert network["lr"] == content["hyper_parameters"]["lr"]
    assert f"3 optimizer steps, seed {settings['seed_everything']}." in sections["Training"]
    assert block_of(sections["Training"])["trainer"]["max_steps"] == 3

    with (run / "metrics" / "version_0" / "metrics.csv").open() as file:
        last = [row for row in csv.DictReader(file) if any(row[key] for key in row if "val/" in key)][-1]
    assert last["step"] == "2"
    assert "Validation after 3 steps" in sections["Figures"]
    found = rows_of(sections["Figures"])
    for key in [key for key in last if "val/" in key]:
        assert float(found.pop(key)) == pytest.approx(float(last[key]), rel=1e-5)
    expected = {"split": "test", "perplexity": "44.8371 (41.25 to 48.7)", "trigram.accuracy": "0.245124"}
    assert found == expected | {"seed": "3"}


def test_the_lines_of_a_card_load_it(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = torch.rand(2, 1, 16, 16)
    expected = load_encoder(checkpoint_of("patches"))(images)
    for name, form, out, card in (
        ("patches", "safetensors", "encoder.safetensors", "encoder.md"),
        ("patches", "timm", "vit", "vit/README.md"),
        ("bert", "transformers", "bert", "bert/README.md"),
    ):
        if form == "transformers":
            pytest.importorskip("transformers")
        assert export(checkpoint_of(name), form, Path(out)) == 0
        head, sections = parts_of(Path(card))
        assert head["library_name"] == {"safetensors": "ssl_ebm"}.get(form, form)
        names: dict[str, Any] = {"images": images}
        exec(sections["Use"].split("```python\n")[1].split("```")[0], names)
        if form == "timm":
            torch.testing.assert_close(names["features"], expected, atol=1e-5, rtol=0)
        if form == "safetensors":
            assert torch.equal(names["encoder"](images), expected)
        if form == "transformers":
            assert names["tokenizer"]("ban")["input_ids"]
            assert names["model"].config.vocab_size == 120


def test_a_card_invents_nothing(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Away from its run, a checkpoint has no seed, no settings of a trainer and no figures."""
    alone = Path(shutil.copy(checkpoint_of("patches"), tmp_path / "alone.ckpt"))
    assert export(alone, "safetensors", tmp_path / "a.safetensors") == 0
    _, sections = parts_of(tmp_path / "a.md")
    assert "Figures" not in sections
    assert sections["Training"].strip() == "3 optimizer steps."
    again = tmp_path / "again.safetensors"  # what was exported can be exported
    assert export(tmp_path / "a.safetensors", "safetensors", again) == 0
    renamed = (tmp_path / "a.md").read_text().replace("# a\n", "# again\n")
    assert (tmp_path / "again.md").read_text() == renamed.replace("a.safetensors", "again.safetensors")
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(load_encoder(again)(images), load_encoder(alone)(images))


def test_a_text_with_the_cards_name_is_kept(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = checkpoint_of("patches")
    capsys.readouterr()
    for form, out, card in (("timm", ".", "README.md"), ("safetensors", "a.safetensors", "a.md")):
        (tmp_path / card).write_text("# my project")
        assert export(checkpoint, form, tmp_path / out) == 2
        assert "is no model card" in error_of(capsys)
        assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {card: "# my project"}
        (tmp_path / card).unlink()
    for _ in range(2):  # a card is replaced by the next one
        assert export(checkpoint, "safetensors", tmp_path / "a.safetensors") == 0
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "a.md").stat().st_mode


def test_figures_of_another_training_are_left_out(
    checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = copy_of(checkpoint_of("text"), tmp_path / "run")
    run = checkpoint.parent.parent
    newer = run / "metrics" / "version_10" / "metrics.csv"  # after version_9, whatever the alphabet says
    newer.parent.mkdir()
    later = "0,5,,1.0"  # after 6 steps: the checkpoint has 3
    newer.write_text(f"epoch,step,train/loss,val/loss\n0,1,,4.5\n0,2,3.0,\n{later}\n")
    (run / "metrics" / "version_9").mkdir()
    assert export(checkpoint, "safetensors", tmp_path / "a.safetensors") == 0
    _, sections = parts_of(tmp_path / "a.md")
    assert rows_of(sections["Figures"]) == {"val/loss": "4.5"}
    assert "after 2 steps" in sections["Figures"]
    newer.write_text("epoch,stage\nno,table,of Lightning's,val/loss")
    assert export(checkpoint, "safetensors", tmp_path / "a.safetensors") == 0
    assert "Figures" not in parts_of(tmp_path / "a.md")[1]
    aside = run / "checkpoints.1"  # of the training before
    shutil.copytree(checkpoint.parent, aside)
    assert export(aside / "last.ckpt", "safetensors", tmp_path / "b.safetensors") == 0
    assert "Figures" not in parts_of(tmp_path / "b.md")[1]


def test_figures_of_another_step_are_left_out(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = copy_of(checkpoint_of("patches"), tmp_path / "run")  # of 3 steps
    run = checkpoint.parent.parent
    shutil.rmtree(run / "metrics")
    measured = {"auroc": [1, 0.75, 1], "seeds": [1, 0, 2], "sizes": [3.0, 1.0, 2.0]}
    for name, more in (("own", {"steps": 3}), ("before", {"steps": 2}), ("unsaid", {})):
        (run / f"{name}.json").write_text(json.dumps(measured | more))
    assert export(checkpoint, "safetensors", tmp_path / "a.safetensors") == 0
    figures = parts_of(tmp_path / "a.md")[1]["Figures"]
    assert "own.json" in figures
    assert "unsaid.json" in figures
    assert "before.json" not in figures
    assert rows_of(figures) == {"auroc": "1 (0.75 to 1)", "steps": "3"}


def test_the_hub_reads_the_card(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    assert export(checkpoint_of("bert"), "transformers", tmp_path / "bert") == 0
    card = hub.ModelCard.load(tmp_path / "bert" / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "fill-mask"
    assert "masked-text" in card.data.tags
