"""``ssl-ebm export``: what was learnt, in files that other tools load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssl_ebm.data.corruption import SPECIAL
from ssl_ebm.errors import UserError
from ssl_ebm.networks.bert import bert_config, to_bert
from ssl_ebm.report.files import make_folder
from ssl_ebm.tasks.checkpoints import load_task, read_checkpoint
from ssl_ebm.tasks.inpainting import Inpainting
from ssl_ebm.tasks.masked_text import MaskedText

FORMATS = ("timm", "transformers", "safetensors")


def export(checkpoint: str | Path, out: str | Path, form: str) -> Path:
    """Writes the weights of a checkpoint for other tools.

    - "timm": a folder with the encoder alone, config.json and model.safetensors, which
      ``timm.create_model("local-dir:FOLDER")`` loads. Its ``forward_features(images)[:, 1:].mean(1)``, of
      images in [0, 1], is the task's `representation`.
    - "transformers": a folder that AutoModelForMaskedLM and AutoTokenizer load, with the task's logits.
    - "safetensors": one file with all weights by their names in the task, and its settings as JSON in the
      metadata entry "settings".

    Args:
        checkpoint: of a task; for "timm" of `Inpainting` with a masked autoencoder, for
            "transformers" of `MaskedText` with a network of BERT's kind (positions: learnt, norm: post).
        out: a folder, or a file ending in .safetensors for "safetensors".
        form: one of `FORMATS`.

    Returns:
        What was written.

    Raises:
        UserError: another format, a file that is no such checkpoint, a path that cannot be written.
    """
    if form not in FORMATS:
        raise UserError(f"no format {form!r}: use {', '.join(FORMATS)}")
    written = {"timm": _timm, "transformers": _transformers, "safetensors": _safetensors}
    return written[form](checkpoint, out)


def _safetensors(checkpoint: str | Path, out: str | Path) -> Path:
    path = Path(out)
    if path.suffix != ".safetensors":
        raise UserError(f"cannot write {path}: use a name that ends in .safetensors")
    content = read_checkpoint(checkpoint)
    make_folder(path.parent)
    settings = json.dumps(_plain(content.get("hyper_parameters", {})))
    metadata = {"format": "pt", "task": str(content.get("task", "")), "settings": settings}
    weights = {name: tensor.clone().contiguous() for name, tensor in content["state_dict"].items()}
    _save(weights, path, metadata)  # of their own: the file takes no two names for one tensor
    return path


def _timm(checkpoint: str | Path, out: str | Path) -> Path:
    task = load_task(checkpoint, Inpainting)
    encoder: Any = task.encoder
    network = task.network.autoencoder
    folder = make_folder(out)
    blocks = encoder.blocks
    arguments = {
        "img_size": list(network.size),
        "patch_size": network.patch,
        "in_chans": network.channels,
        "embed_dim": encoder.embed_dim,
        "depth": len(blocks),
        "num_heads": blocks[0].attn.num_heads,
    }
    config = {
        "architecture": "vit_tiny_patch16_224",  # the constructor; the arguments below say what it makes
        "num_classes": 0,
        "num_features": encoder.num_features,
        "global_pool": "token",
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [network.channels, *network.size],
            "fixed_input_size": True,
            "mean": [0.0] * network.channels,
            "std": [1.0] * network.channels,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    weights = {name: tensor.detach().contiguous() for name, tensor in encoder.state_dict().items()}
    _save(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return folder


def _transformers(checkpoint: str | Path, out: str | Path) -> Path:
    task = load_task(checkpoint, MaskedText)
    config, weights = bert_config(task.network), to_bert(task.network)
    if task.tokenizer_json is None:
        raise UserError(f"{checkpoint} holds no tokenizer: it was not trained on text")
    folder = make_folder(out)
    _save(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "tokenizer.json").write_text(task.tokenizer_json)
    names = zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": task.network.length}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | dict(names), indent=1) + "\n")
    return folder


def _save(weights: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    partial = path.with_name(f"{path.name}.partial")  # the path holds an old file or a whole new one
    try:
        save_file(weights, partial, metadata)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
