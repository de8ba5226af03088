"""BERT: Hugging Face weights into our encoder.

Norm after each block, a norm on the embeddings, learned positions, two types of tokens.

Source: Devlin et al. 2019, arXiv:1810.04805; ``BertModel`` of ``transformers``.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from seqserve_export.encoder_model import EncoderConfig, EncoderModel
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.weights import assign_weights

_Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]

_ACTIVATIONS: dict[str, _Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

_RENAMED = (
    (r"embeddings\.word_embeddings\.", "embedding.token."),
    (r"embeddings\.position_embeddings\.", "embedding.position."),
    (r"embeddings\.token_type_embeddings\.", "embedding.token_type."),
    (r"embeddings\.LayerNorm\.", "embedding.norm."),
    (r"encoder\.layer\.(\d+)\.attention\.self\.", r"encoder.layers.\1.self_attention."),
    (
        r"encoder\.layer\.(\d+)\.attention\.output\.dense\.",
        r"encoder.layers.\1.self_attention.output.",
    ),
    (
        r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.",
        r"encoder.layers.\1.self_attention_residual.norm.",
    ),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"encoder.layers.\1.feed_forward.up."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"encoder.layers.\1.feed_forward.down."),
    (
        r"encoder\.layer\.(\d+)\.output\.LayerNorm\.",
        r"encoder.layers.\1.feed_forward_residual.norm.",
    ),
)
"""Beginnings of Hugging Face names, and of ours."""

_UNNEEDED = re.compile(r"pooler\.|cls\.|embeddings\.position_ids$")
"""Heads of the pre-training tasks, and a table of 0, 1, 2, ..."""


def read_bert(config: Mapping[str, Any], weights: dict[str, Tensor]) -> EncoderModel:
    """Maps ``model_type`` "bert".

    Raises:
        UnsupportedError: The configuration asks for what our encoder does not have.
        CheckpointError: The configuration is malformed or the weights do not fit it.
    """
    model = EncoderModel(_to_config(config))
    renamed = {}
    for name, tensor in weights.items():
        plain_name = name.removeprefix("bert.")
        if not _UNNEEDED.match(plain_name):
            renamed[_rename(plain_name)] = tensor
    assign_weights(model.state_dict(), renamed, "the BERT checkpoint")
    return model


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        renamed, num_replaced = re.subn("^" + pattern, replacement, name)
        if num_replaced:
            return renamed
    return name


def _to_config(config: Mapping[str, Any]) -> EncoderConfig:
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UnsupportedError(
            f'"position_embedding_type" {config["position_embedding_type"]!r} is not supported'
        )
    if config.get("is_decoder"):
        raise UnsupportedError('a BERT decoder ("is_decoder": true) is not supported')
    try:
        activation = _ACTIVATIONS.get(config["hidden_act"])
        num_heads, model_size = int(config["num_attention_heads"]), int(config["hidden_size"])
        if activation is None:
            raise UnsupportedError(f'"hidden_act" {config["hidden_act"]!r} is not supported')
        if model_size % num_heads or model_size // num_heads % 8:
            raise UnsupportedError(
                f"{num_heads} heads of a hidden size of {model_size}: the head size must be a "
                "multiple of 8"
            )
        return EncoderConfig(
            model_size=model_size,
            num_heads=num_heads,
            head_size=model_size // num_heads,
            feed_forward_size=int(config["intermediate_size"]),
            norm_placement="post",
            norm_epsilon=float(config["layer_norm_eps"]),
            has_final_norm=False,
            has_embedding_norm=True,
            activation=activation,
            vocabulary_size=int(config["vocab_size"]),
            num_layers=int(config["num_hidden_layers"]),
            max_length=int(config["max_position_embeddings"]),
            num_token_types=int(config["type_vocab_size"]),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"the BERT configuration is malformed: {error!r}") from error
