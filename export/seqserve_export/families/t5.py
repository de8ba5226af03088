"""T5 and its descendants: Hugging Face weights into our Transformer.

Root-mean-square norms before each block and at the end, no biases, relative position biases, and
attention scores that are not scaled. What differs:

======  ====================================  ====================================
family  decoder output before the head        relative position biases
======  ====================================  ====================================
t5      scaled by ``model_size ** -0.5``, if  one for each stack
        ``scale_decoder_outputs`` (v1.0)
mt5     as it is                              one for each stack
umt5    scaled, if ``tie_word_embeddings``    one for each layer
======  ====================================  ====================================

v1.1 and Flan-T5 are ``t5`` with a gated feed-forward block and a head of their own.

Source: Raffel et al. 2020, arXiv:1910.10683; Shazeer 2020, arXiv:2002.05202; Xue et al. 2021,
arXiv:2010.11934; Chung et al. 2023, arXiv:2304.09151; the model classes of ``transformers``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqserve_export.families.embedding_tables import EmbeddingTables, place_tables, pop_stored
from seqserve_export.families.family import to_activation
from seqserve_export.families.transformer_weights import make_transformer
from seqserve_export.families.weight_names import rename_weights
from seqserve_export.transformer import Transformer
from seqserve_export.transformer_config import TransformerConfig

FAMILIES = ("t5", "mt5", "umt5")

_BLOCK = r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\."
_OWN = r"\1.layers.\2."
_BIAS = r"SelfAttention\.relative_attention_bias\.weight"
_RENAMES = (
    (r"shared\.weight", "shared"),
    (r"encoder\.embed_tokens\.weight", "source"),
    (r"decoder\.embed_tokens\.weight", "target"),
    (r"lm_head\.weight", "head"),
    (r"(encoder|decoder)\.final_layer_norm\.", r"\1.norm."),
    (_BLOCK + _BIAS, r"\1.position_bias.\2"),
    (_BLOCK + r"SelfAttention\.q\.", _OWN + "self_attention.query."),
    (_BLOCK + r"SelfAttention\.k\.", _OWN + "self_attention.key."),
    (_BLOCK + r"SelfAttention\.v\.", _OWN + "self_attention.value."),
    (_BLOCK + r"SelfAttention\.o\.", _OWN + "self_attention.output."),
    (_BLOCK + r"EncDecAttention\.q\.", _OWN + "cross_attention.query."),
    (_BLOCK + r"EncDecAttention\.k\.", _OWN + "cross_attention.key."),
    (_BLOCK + r"EncDecAttention\.v\.", _OWN + "cross_attention.value."),
    (_BLOCK + r"EncDecAttention\.o\.", _OWN + "cross_attention.output."),
    (_BLOCK + r"DenseReluDense\.wi_0\.", _OWN + "feed_forward.gate."),
    (_BLOCK + r"DenseReluDense\.wi(?:_1)?\.", _OWN + "feed_forward.up."),
    (_BLOCK + r"DenseReluDense\.wo\.", _OWN + "feed_forward.down."),
    (
        r"(encoder|decoder)\.block\.(\d+)\.layer\.0\.layer_norm\.",
        _OWN + "self_attention_residual.norm.",
    ),
    (r"(encoder)\.block\.(\d+)\.layer\.1\.layer_norm\.", _OWN + "feed_forward_residual.norm."),
    (r"(decoder)\.block\.(\d+)\.layer\.1\.layer_norm\.", _OWN + "cross_attention_residual.norm."),
    (r"(decoder)\.block\.(\d+)\.layer\.2\.layer_norm\.", _OWN + "feed_forward_residual.norm."),
)
_UNNEEDED = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
"""Stored by early versions of T5 and never used."""


def read_t5(config: Any, weights: Mapping[str, Tensor]) -> Transformer:
    """Maps a checkpoint of one of :data:`FAMILIES`.

    Args:
        config: The configuration, as ``transformers`` reads it.
        weights: As read; tied tensors may be there once or several times.

    Raises:
        UnsupportedError: The configuration asks for what our Transformer does not have.
        CheckpointError: The weights do not fit the configuration.
    """
    renamed = rename_weights(weights, _RENAMES, unneeded=_UNNEEDED)
    tables = place_tables(pop_stored(renamed), can_share=True, can_tie=config.tie_word_embeddings)
    renamed |= tables.weights
    for stack in ("encoder", "decoder"):
        _join_biases(renamed, stack)
    return make_transformer(
        _to_config(config, tables), renamed, f"the {config.model_type} checkpoint"
    )


def _join_biases(renamed: dict[str, Tensor], stack: str) -> None:
    """Joins the biases of a stack's layers: [num_buckets, H] or [L, num_buckets, H]."""
    prefix = f"{stack}.position_bias."
    layers = sorted((name for name in renamed if name.startswith(prefix)), key=_layer_index)
    biases = [renamed.pop(name) for name in layers]
    if biases:
        renamed[f"{prefix}weight"] = biases[0] if len(biases) == 1 else torch.stack(biases)


def _layer_index(name: str) -> int:
    return int(name.rsplit(".", 1)[-1])


def _to_config(config: Any, tables: EmbeddingTables) -> TransformerConfig:
    is_head_scaled = {
        "t5": getattr(config, "scale_decoder_outputs", False),
        "mt5": False,
        "umt5": config.tie_word_embeddings,
    }[config.model_type]
    max_length = get_max_length(config)
    return TransformerConfig(
        model_size=config.d_model,
        num_heads=config.num_heads,
        head_size=config.d_kv,
        feed_forward_size=config.d_ff,
        norm="rms",
        norm_epsilon=config.layer_norm_epsilon,
        activation=to_activation(config.dense_act_fn, "feed_forward_proj"),
        is_gated=config.is_gated_act,
        positions="relative",
        has_position_bias_per_layer=config.model_type == "umt5",
        num_position_buckets=config.relative_attention_num_buckets,
        max_position_distance=config.relative_attention_max_distance,
        attention_scale=1.0,
        has_bias=False,
        source_vocabulary_size=config.vocab_size,
        target_vocabulary_size=config.vocab_size,
        num_encoder_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers,
        max_source_length=max_length,
        max_target_length=max_length,
        has_shared_embedding=tables.is_shared,
        has_tied_head=tables.has_tied_head,
        head_scale=config.d_model**-0.5 if is_head_scaled else 1.0,
    )


def get_max_length(config: Any) -> int:
    """The length a checkpoint was trained for; the architecture itself knows no limit.

    ``n_positions`` is in the configuration of T5 v1.0; all descendants were trained with 512, too.
    """
    return int(getattr(config, "n_positions", None) or 512)
