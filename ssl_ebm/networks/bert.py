"""Weights of a `TextEncoder` of BERT's kind under the names of `transformers`' BertForMaskedLM, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.networks.text import TextEncoder

_EMBEDDINGS = {
    "tokens.weight": "bert.embeddings.word_embeddings.weight",
    "norm.weight": "bert.embeddings.LayerNorm.weight",
    "norm.bias": "bert.embeddings.LayerNorm.bias",
    "transform.weight": "cls.predictions.transform.dense.weight",
    "transform.bias": "cls.predictions.transform.dense.bias",
    "transform_norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "transform_norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "scores.bias": "cls.predictions.bias",
}
_BLOCK = {
    "attn.proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm2": "output.LayerNorm",
}
_POSITIONS = "bert.embeddings.position_embeddings.weight"
_SCORES = "cls.predictions.decoder.weight"
_TYPES = "bert.embeddings.token_type_embeddings.weight"


def _names(encoder: TextEncoder) -> dict[str, str]:
    """Ours to theirs, where one tensor is one tensor."""
    names = dict(_EMBEDDINGS)
    for i in range(len(encoder.blocks)):
        for ours, theirs in _BLOCK.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{i}.{ours}.{kind}"] = f"bert.encoder.layer.{i}.{theirs}.{kind}"
    return names


def _left_over(encoder: TextEncoder, weights: dict[str, Tensor]) -> list[str]:
    """Weights of layers and scores that have no place here; a pooler or next-sentence head is not missed."""
    tokens = weights[_EMBEDDINGS["tokens.weight"]]
    own_scores = [] if torch.equal(weights.get(_SCORES, tokens), tokens) else [_SCORES]
    layers = tuple(f"bert.encoder.layer.{i}." for i in range(len(encoder.blocks)))
    beyond = [name for name in weights if name.startswith("bert.encoder.") and not name.startswith(layers)]
    return own_scores + beyond


def _check(encoder: TextEncoder) -> None:
    if encoder.norm_order != "post" or encoder.learnt is None:
        raise UserError(
            "BERT has learnt positions and normalises after each sum: this encoder has "
            f"positions {encoder.positions!r} and norm {encoder.norm_order!r}; train one with "
            "positions: learnt and norm: post"
        )


def bert_config(encoder: TextEncoder, pad: int = 0) -> dict[str, Any]:
    """What `transformers` needs to build the network.

    Args:
        pad: id of the token that stands where a text has ended.

    Raises:
        UserError: the encoder is not BERT.
    """
    _check(encoder)
    block: Any = encoder.blocks[0]
    return {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": encoder.vocabulary,
        "hidden_size": encoder.width,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": encoder.heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "max_position_embeddings": encoder.length,
        "type_vocab_size": 1,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": pad,
        "tie_word_embeddings": True,
    }


def to_bert(encoder: TextEncoder) -> dict[str, Tensor]:
    """The weights under BertForMaskedLM's names; segments, which we do not have, are zeros.

    Raises:
        UserError: the encoder is not BERT.
    """
    _check(encoder)
    ours = {name: weight.detach().cpu() for name, weight in encoder.state_dict().items()}
    made = {theirs: ours[name].clone() for name, theirs in _names(encoder).items()}
    made[_POSITIONS] = ours["learnt.weight"].clone()
    made[_TYPES] = torch.zeros(1, encoder.width)
    for i in range(len(encoder.blocks)):
        for kind in ("weight", "bias"):
            parts = ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                made[f"bert.encoder.layer.{i}.attention.self.{name}.{kind}"] = part.clone()
    return made


def from_bert(encoder: TextEncoder, weights: dict[str, Tensor]) -> None:
    """Takes the weights of a BertForMaskedLM of the same sizes; the first segment joins the positions.

    Raises:
        UserError: the encoder is not BERT, or a weight is missing, of another shape, or left over: of a layer
            that the encoder lacks, or scores that are not the token embeddings once more.
    """
    _check(encoder)
    try:
        if left := _left_over(encoder, weights):
            raise RuntimeError(f"no place for {left[0]}")
        made = {ours: weights[theirs] for ours, theirs in _names(encoder).items()}
        made["learnt.weight"] = weights[_POSITIONS] + weights[_TYPES][0]
        for i in range(len(encoder.blocks)):
            for kind in ("weight", "bias"):
                prefix = f"bert.encoder.layer.{i}.attention.self"
                parts = [weights[f"{prefix}.{name}.{kind}"] for name in ("query", "key", "value")]
                made[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
        made["scores.weight"] = made["tokens.weight"]
        encoder.load_state_dict(made)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"these are no weights of a BertForMaskedLM of the same sizes: {error}") from error
