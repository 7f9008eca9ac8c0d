"""Encoders of checkpoints and exported files: the task's own features, and no code of a file."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_runs import RUNS
from tokenizers import Tokenizer
from torch import Tensor

from ssl_ebm import load_encoder
from ssl_ebm.cli import main
from ssl_ebm.data import LabelledDocuments
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing import Frozen
from ssl_ebm.tasks import DensityEstimation, FramePrediction, Inpainting, MaskedText, load_task
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.exported import write_safetensors
from ssl_ebm.tasks.features import Pooling

CLASSES = {"frames": FramePrediction, "pictures": Inpainting, "text": MaskedText, "energy": DensityEstimation}
CLASSES |= {"frames_in_detail": FramePrediction, "patches": Inpainting, "bert": MaskedText}


def batch_of(name: str) -> dict[str, Tensor]:
    """As the task's DataModule gives one."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(5, 120, (3, 11), generator=generator)
    tokens[0, 7:] = 0
    image = torch.rand(3, 1, 16, 16, generator=generator)
    return {"video": torch.rand(3, 6, 1, 32, 32, generator=generator), "image": image, "tokens": tokens}


@pytest.mark.parametrize("name", RUNS)
def test_features_are_the_tasks_own(name: str, checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = checkpoint_of(name)
    task: Any = load_task(checkpoint, CLASSES[name])
    exported = tmp_path / "encoder.safetensors"
    write_safetensors(read_checkpoint(checkpoint), exported)
    inputs = task.inputs(batch_of(name))
    with torch.no_grad():
        expected = task.representation(inputs)
    for path in (checkpoint, exported, str(exported)):
        encoder = load_encoder(path)
        assert not any(module.training for module in encoder.modules())
        assert encoder.features == expected.shape[1]
        assert encoder.inputs.name in batch_of(name)
        with torch.no_grad():
            assert torch.equal(encoder(inputs), expected)


@pytest.mark.parametrize(
    ("name", "layer", "pooling"),
    [
        ("text", "network.blocks.*.mlp.act", "mean"),
        ("text", "network.tokens+network.norm", "first"),
        ("patches", "encoder.norm", "grid"),
        ("patches", "encoder.blocks.0", "none"),
        ("frames", None, "none"),
    ],
)
def test_features_of_layers_are_those_that_probes_measure(
    name: str, layer: str | None, pooling: Pooling, checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """From a checkpoint and from an exported file; and fine-tuning reaches what they are made of."""
    batch = batch_of(name)
    exported = tmp_path / "encoder.safetensors"
    write_safetensors(read_checkpoint(checkpoint_of(name)), exported)
    for path in (checkpoint_of(name), exported):
        encoder = load_encoder(path, layer, pooling)
        expected = Frozen(encoder.task, layer, pooling)(batch)
        found = encoder(encoder.task.inputs(batch))
        assert torch.equal(found, expected)
        assert encoder.features == found.shape[-1]
    found.sum().backward()
    assert any(one.grad is not None and one.grad.any() for one in encoder.task.parameters())


@pytest.mark.parametrize(
    ("layer", "pooling", "says"),
    [
        ("blocks.7", "mean", "there is no layer 'blocks.7'"),
        ("network.norm", "grid", "no map: use pooling mean"),
        (None, "grid", "give one, too"),
        (None, "most", "pooling is 'most'"),
    ],
)
def test_layers_that_are_not_there_are_named(
    layer: str | None, pooling: Pooling, says: str, checkpoint_of: Callable[[str], Path]
) -> None:
    with pytest.raises(UserError, match=f"last.ckpt: .*{says}"):
        load_encoder(checkpoint_of("text"), layer, pooling)


def test_a_sentence_says_what_it_takes(checkpoint_of: Callable[[str], Path]) -> None:
    said = {
        name: load_encoder(checkpoint_of(name)).inputs.describe() for name in ("frames", "patches", "text")
    }
    intensity = "float32, intensity in [0, 1]"
    assert said["frames"] == f"video (B, frames 4, channels 1, height 32, width 32) {intensity}"
    assert said["patches"] == f"image (B, channels 1, height 16, width 16) {intensity}"
    assert said["text"] == "tokens (B, length up to 24) int64, token ids, [PAD] where a document ends"


def test_tokens_are_those_of_labelled_documents(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    texts = ["ban dip 7", "tan [MASK] gop", "", "ban dip " * 40]
    encoder = load_encoder(checkpoint_of("text"))
    rows = "\n".join(json.dumps({"text": text, "label": "a"}) for text in texts if text)
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows)
    data = LabelledDocuments(str(tmp_path))
    data.use_tokenizer(encoder.task.tokenizer_json, encoder.task.network.length)
    expected = data.make_dataset("test").tokens
    assert torch.equal(encoder.tokenize([text for text in texts if text]), expected)
    theirs = Tokenizer.from_str(encoder.task.tokenizer_json)
    assert encoder.tokenize("ban dip 7")[0, 1:-1].tolist() == theirs.encode("ban dip 7").ids
    assert encoder.tokenize("").tolist() == [[2, 3]]
    one, padded = encoder.tokenize(texts[0]), encoder.tokenize(texts[:3])[:1]
    with torch.no_grad():
        torch.testing.assert_close(encoder(one), encoder(padded))  # padding changes nothing
    for windows in (2, 9):
        data = LabelledDocuments(str(tmp_path), windows=windows)
        data.use_tokenizer(encoder.task.tokenizer_json, encoder.task.network.length)
        expected = data.make_dataset("test").tokens
        found = encoder.tokenize([text for text in texts if text], windows=windows)
        assert torch.equal(found, expected[..., : found.shape[2]])
        assert not expected[..., found.shape[2] :].any()
        with torch.no_grad():
            assert torch.equal(encoder(found), encoder.task.representation(found))
    with pytest.raises(UserError, match="windows is 0: use at least 1"):
        encoder.tokenize(texts, windows=0)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("patches", torch.rand(2, 3, 16, 16)),
        ("patches", torch.rand(2, 1, 20, 16)),
        ("pictures", torch.zeros(2, 1, 16, 16, dtype=torch.uint8)),
        ("frames", torch.rand(2, 3, 1, 32, 32)),
        ("text", torch.rand(2, 8)),
    ],
)
def test_inputs_of_another_kind_are_named(
    name: str, given: Tensor, checkpoint_of: Callable[[str], Path]
) -> None:
    with pytest.raises(UserError, match=r"this encoder takes \w+ \(B, "):
        load_encoder(checkpoint_of(name))(given)


def test_pictures_may_have_another_size(checkpoint_of: Callable[[str], Path]) -> None:
    assert load_encoder(checkpoint_of("pictures"))(torch.rand(2, 1, 25, 18)).shape == (2, 16)
    with pytest.raises(UserError, match="no tokenizer"):
        load_encoder(checkpoint_of("pictures")).tokenize("text")


MIXTURE = {
    "class_path": "ssl_ebm.energy.unconditional.GaussianMixture",
    "init_args": {"dim": 2, "components": 3},
}
OF_FIVE_NUMBERS = {
    "class_path": "ssl_ebm.energy.unconditional.ReconstructionEnergy",
    "init_args": {
        "encoder": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 5, "out_features": 2}},
        "decoder": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 5}},
    },
}


@pytest.mark.parametrize(
    ("energy", "said"),
    [
        (MIXTURE, "GaussianMixture has no features"),
        (OF_FIVE_NUMBERS, r"does not represent point \(B, coordinates 2\)"),
    ],
)
def test_an_energy_that_represents_nothing(energy: dict[str, Any], said: str, tmp_path: Path) -> None:
    settings = {"energy": energy, "objective": {"class_path": "ssl_ebm.energy.objectives.ScoreMatching"}}
    weights = DensityEstimation(**settings).state_dict()
    content = {"task": "DensityEstimation", "hyper_parameters": settings, "state_dict": weights}
    torch.save(content, tmp_path / "energy.ckpt")
    with pytest.raises(UserError, match=rf"energy\.ckpt: .*{said}"):
        load_encoder(tmp_path / "energy.ckpt")
    out = tmp_path / "energy.safetensors"
    assert (
        main(["export", "--ckpt", f"{tmp_path}/energy.ckpt", "--format", "safetensors", "--out", str(out)])
        == 0
    )
    assert "load_encoder" not in (tmp_path / "energy.md").read_text()


# -- files that are not what they should be ---------------------------------------------------------------


@pytest.fixture
def exported(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "text.safetensors"
    write_safetensors(read_checkpoint(checkpoint_of("text")), path)
    return path


def test_a_file_that_was_cut_off_is_no_file(exported: Path) -> None:
    whole = exported.read_bytes()
    for kept in (0, 4, 1000, len(whole) // 2, len(whole) - 1):
        exported.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"text\.safetensors is no whole"):
            load_encoder(exported)
    exported.unlink()
    with pytest.raises(UserError, match="no file at"):
        load_encoder(exported)


def test_a_changed_byte_is_seen(exported: Path) -> None:
    whole = bytearray(exported.read_bytes())
    whole[-1000] ^= 1
    exported.write_bytes(whole)
    with pytest.raises(UserError, match="was changed after it was written"):
        load_encoder(exported)


def test_changed_settings_are_seen(exported: Path) -> None:
    with safe_open(exported, "pt") as file:
        entries = file.metadata()
    entries["settings"] = entries["settings"].replace('"pooling": "mean"', '"pooling": "first"')
    save_file(load_file(exported), exported, entries)
    with pytest.raises(UserError, match="was changed after it was written"):
        load_encoder(exported)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"task": "Inpainting"}])
def test_a_file_of_another_program_is_told(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(UserError, match="is of another program"):
        load_encoder(tmp_path / "a.safetensors")


def changed(content: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**content, "hyper_parameters": {**content["hyper_parameters"], **settings}}


def test_what_a_file_asks_for_is_not_done(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files with a right checksum, from somebody who means harm."""
    content = read_checkpoint(checkpoint_of("text"))
    (tmp_path / "harm.py").write_text("class Network: pass\n\ndef make(*arguments): return arguments\n")
    monkeypatch.syspath_prepend(tmp_path)
    network = {"class_path": "harm.Network"}
    wide = json.loads(json.dumps(content["hyper_parameters"]["network"]))
    wide["init_args"]["width"] = 32
    for wrong, said in (
        ({**content, "task": "Nonsense"}, "is of the task 'Nonsense'"),
        ({**content, "task": "load_task"}, "is of the task 'load_task'"),
        ({**content, "task": "harm.Network"}, "is of the task 'harm.Network'"),
        (changed(content, network=network), "import harm before"),
        (changed(content, network={"class_path": "os.system"}), "os.system is none of the classes"),
        (changed(content, network=wide), "size mismatch"),
        (changed(content, lr="high"), "does not hold settings and weights"),
        ({**content, "state_dict": {}}, "does not hold settings and weights"),
        ({**content, "task": "Inpainting"}, "does not hold settings and weights"),
    ):
        write_safetensors(wrong, tmp_path / "a.safetensors")
        torch.save(wrong, tmp_path / "a.ckpt")
        for name in ("a.safetensors", "a.ckpt"):
            with pytest.raises(UserError, match=said) as raised:
                load_encoder(tmp_path / name)
            assert name in str(raised.value) or "import" in said
            assert "\n" not in str(raised.value)
    pictures = read_checkpoint(checkpoint_of("pictures"))
    write_safetensors({**pictures, "data": {"image_shape": "none"}}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"b\.safetensors: the data .* image cannot have the shape"):
        load_encoder(tmp_path / "b.safetensors")
    for wrong, words in [
        ({"task": ["Inpainting"]}, "is of the task"),
        ({"hyper_parameters": [1]}, "its hyper_parameters are list"),
    ]:
        torch.save({**pictures, **wrong}, tmp_path / "b.ckpt")
        with pytest.raises(UserError, match=words):
            load_encoder(tmp_path / "b.ckpt")
    torch.save(changed(content, _instantiator="harm.make"), tmp_path / "a.ckpt")
    assert load_encoder(tmp_path / "a.ckpt").features == 16  # what it names is neither used nor imported
    assert "harm" not in sys.modules


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = """
import sys
import ssl_ebm
assert not {"torch", "lightning", "numpy"} & set(sys.modules)
from ssl_ebm import load_encoder
from ssl_ebm.cli import main
assert "torch" in sys.modules and load_encoder is ssl_ebm.load_encoder
assert not hasattr(ssl_ebm, "load_decoder")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
