"""Folders that timm and transformers load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from ssl_ebm.data.special_tokens import CLS, SEP, SpecialTokens
from ssl_ebm.errors import UserError
from ssl_ebm.files import write_whole
from ssl_ebm.networks.bert import bert_config, to_bert
from ssl_ebm.tasks.exported import save_weights
from ssl_ebm.tasks.inpainting import Inpainting
from ssl_ebm.tasks.masked_text import MaskedText


def write_for_timm(task: LightningModule, checkpoint: str | Path, folder: Path) -> None:
    """The encoder of a masked autoencoder: config.json and model.safetensors.

    Raises:
        UserError: a task without such an encoder.
    """
    if not isinstance(task, Inpainting):
        raise UserError(f"{checkpoint} is of {type(task).__name__}: timm takes encoders of Inpainting")
    encoder: Any = task.encoder
    network = task.network.autoencoder
    blocks = encoder.blocks
    arguments = {
        "img_size": list(network.size),
        "patch_size": network.patch,
        "in_chans": network.channels,
        "embed_dim": encoder.embed_dim,
        "depth": len(blocks),
        "num_heads": blocks[0].attn.num_heads,
        # the mean of the patches after the last norm, as `representation` has it
        "global_pool": "avg",
        "fc_norm": False,
    }
    config = {
        "architecture": "vit_tiny_patch16_224",  # the constructor; the arguments below say what it makes
        "num_classes": 0,
        "num_features": encoder.num_features,
        "global_pool": "avg",
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
    _save(weights, config, folder)


def write_for_transformers(task: LightningModule, checkpoint: str | Path, folder: Path) -> None:
    """A model of text with its tokenizer: config.json, model.safetensors, tokenizer.json and its settings.

    Raises:
        UserError: a task of no text, or a network that is not of BERT's kind.
    """
    if not isinstance(task, MaskedText):
        raise UserError(f"{checkpoint} is of {type(task).__name__}: transformers takes models of MaskedText")
    config, weights = bert_config(task.network, task.special.pad), to_bert(task.network)
    if task.tokenizer_json is None:
        raise UserError(f"{checkpoint} holds no tokenizer: it was not trained on text")
    _save(weights, config, folder)
    write_whole(folder / "tokenizer.json", _bracketing(task.tokenizer_json, task.special).to_str())
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    names = {role: name for role, name in zip(roles, task.special.names, strict=True) if name is not None}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": task.network.length}
    write_whole(folder / "tokenizer_config.json", json.dumps(settings | names, indent=1) + "\n")


def _bracketing(tokenizer_json: str, special: SpecialTokens) -> Any:
    """The tokenizer, which now puts [CLS] and [SEP] around a text by itself, as in training."""
    tokenizer: Any = Tokenizer.from_str(tokenizer_json)
    first, last = (str(special.names[role]) for role in (CLS, SEP))
    tokenizer.post_processor = TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, "$B", last],
        special_tokens=[(first, special.cls), (last, special.sep)],
    )
    return tokenizer


def _save(weights: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    save_weights(weights, folder / "model.safetensors", {"format": "pt"})
    write_whole(folder / "config.json", json.dumps(config, indent=1) + "\n")
