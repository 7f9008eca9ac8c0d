"""``ssl-ebm export``: what was learnt, in files that other tools load, with a card that says what it is."""

from __future__ import annotations

from pathlib import Path

from ssl_ebm.errors import UserError
from ssl_ebm.files import write_whole
from ssl_ebm.report.exporting.card import BEGINNING, model_card
from ssl_ebm.report.exporting.onnx_file import write_onnx
from ssl_ebm.report.exporting.peers import write_for_timm, write_for_transformers
from ssl_ebm.tasks.encoder import read, task_of
from ssl_ebm.tasks.exported import write_safetensors

FOLDERS = {"timm": write_for_timm, "transformers": write_for_transformers}
FILES = ("safetensors", "onnx")
FORMATS = (*FOLDERS, *FILES)


def export(checkpoint: str | Path, out: str | Path, form: str) -> Path:
    """Writes what a checkpoint holds for other tools.

    - "safetensors": one file with all weights by their names in the task, and what rebuilds it:
      ``ssl_ebm.load_encoder(FILE)``; see `ssl_ebm.tasks.exported`.
    - "onnx": one file with the task's `representation` for any number of items, checked with onnxruntime
      where that is installed; see `ssl_ebm.report.exporting.onnx_file`.
    - "timm": a folder with the encoder alone, config.json and model.safetensors, which
      ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads. Its result, of images in [0, 1], is
      the task's `representation`: the mean of the patches.
    - "transformers": a folder that AutoModelForMaskedLM and AutoTokenizer load, with the task's logits.

    With a model card: README.md in a folder, FILE.md beside FILE.safetensors. (An .onnx file has what
    `ssl_ebm.tasks.exported` lists among its own metadata.)

    Args:
        checkpoint: of a task, or a .safetensors file of this function; for "timm" of `Inpainting` with a
            masked autoencoder, for "transformers" of `MaskedText` with a network of BERT's kind (positions:
            learnt, norm: post).
        out: a folder, or a file that ends in .safetensors or .onnx.
        form: one of `FORMATS`.

    Returns:
        What was written.

    Raises:
        UserError: another format, a file that is no such checkpoint, a path that cannot be written or where
            a text of yours has the card's name, a package that is not installed.
    """
    if form not in FORMATS:
        raise UserError(f"no format {form!r}: use {', '.join(FORMATS)}")
    path = Path(out)
    if form in FILES and path.suffix != f".{form}":
        raise UserError(f"cannot write {path}: use a name that ends in .{form}")
    content = read(checkpoint)
    task = task_of(content, checkpoint)
    if form == "onnx":
        write_onnx(task, content, path)
        return path
    card = path.with_suffix(".md") if form == "safetensors" else path / "README.md"
    _check_replaceable(card)
    if form == "safetensors":
        write_safetensors(content, path)
    else:
        FOLDERS[form](task, checkpoint, path)
    write_whole(card, model_card(task, content, checkpoint, path, form))
    return path


def _check_replaceable(card: Path) -> None:
    """Raises UserError where a text that is no card has its name: with `--out .` a project's README."""
    if card.exists() and not card.read_text(encoding="utf-8", errors="replace").startswith(BEGINNING):
        raise UserError(f"{card} is there and is no model card: choose another --out, or move it away")
