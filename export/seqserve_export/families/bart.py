"""The line of BART: Hugging Face weights into our Transformer.

One layout of weights, six families, and a table of what differs:

========  =========  =========  ==========  ===============  ===========================
family    norm       embedding  final norm  positions        head bias
                     norm
========  =========  =========  ==========  ===============  ===========================
bart      after      yes        no          learned, from 2  ``final_logits_bias``
plbart    after      yes        no          learned, from 2  ``final_logits_bias``
mbart     before     yes        yes         learned, from 2  ``final_logits_bias``
marian    after      no         no          sinusoidal       ``final_logits_bias``
pegasus   before     no         yes         sinusoidal       ``final_logits_bias``
m2m_100   before     no         yes         sinusoidal,      none
                                            tensor2tensor
========  =========  =========  ==========  ===============  ===========================

mBART-50 is ``mbart`` and NLLB-200 is ``m2m_100``, with other tokenizers. Everything else is in the
configuration of the checkpoint.

Source: Lewis et al. 2020, arXiv:1910.13461; Liu et al. 2020, arXiv:2001.08210; Junczys-Dowmunt et
al. 2018, arXiv:1804.00344; Zhang et al. 2020, arXiv:1912.08777; Fan et al. 2020, arXiv:2010.11125;
Ahmad et al. 2021, arXiv:2103.06333; the model classes of ``transformers``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from seqserve_export.errors import UnsupportedError
from seqserve_export.families.embedding_tables import EmbeddingTables, place_tables, pop_stored
from seqserve_export.families.family import to_activation, to_head_size
from seqserve_export.families.transformer_weights import make_transformer
from seqserve_export.families.weight_names import rename_weights
from seqserve_export.transformer import Transformer
from seqserve_export.transformer_config import TransformerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Traits:
    norm_placement: Literal["pre", "post"]
    has_embedding_norm: bool
    positions: Literal["learned", "sinusoidal"]
    sinusoidal_rates: Literal["vaswani", "tensor2tensor"] = "vaswani"


_LEARNED_OFFSET = 2
"""Rows of a learned table before the first position."""

_TRAITS = {
    "bart": _Traits(norm_placement="post", has_embedding_norm=True, positions="learned"),
    "plbart": _Traits(norm_placement="post", has_embedding_norm=True, positions="learned"),
    "mbart": _Traits(norm_placement="pre", has_embedding_norm=True, positions="learned"),
    "marian": _Traits(norm_placement="post", has_embedding_norm=False, positions="sinusoidal"),
    "pegasus": _Traits(norm_placement="pre", has_embedding_norm=False, positions="sinusoidal"),
    "m2m_100": _Traits(
        norm_placement="pre",
        has_embedding_norm=False,
        positions="sinusoidal",
        sinusoidal_rates="tensor2tensor",
    ),
}
FAMILIES = tuple(_TRAITS)

_STACK = r"(?:model\.)?(encoder|decoder)\."
_LAYER = _STACK + r"layers\.(\d+)\."
_RENAMES = (
    (r"(?:model\.)?shared\.weight", "shared"),
    (r"(?:model\.)?encoder\.embed_tokens\.weight", "source"),
    (r"(?:model\.)?decoder\.embed_tokens\.weight", "target"),
    (r"lm_head\.weight", "head"),
    (r"(?:model\.)?encoder\.embed_positions\.", "source_embedding.position."),
    (r"(?:model\.)?decoder\.embed_positions\.", "target_embedding.position."),
    (r"(?:model\.)?encoder\.layernorm_embedding\.", "source_embedding.norm."),
    (r"(?:model\.)?decoder\.layernorm_embedding\.", "target_embedding.norm."),
    (_STACK + r"layer_norm\.", r"\1.norm."),
    (_LAYER + r"self_attn\.q_proj\.", r"\1.layers.\2.self_attention.query."),
    (_LAYER + r"self_attn\.k_proj\.", r"\1.layers.\2.self_attention.key."),
    (_LAYER + r"self_attn\.v_proj\.", r"\1.layers.\2.self_attention.value."),
    (_LAYER + r"self_attn\.out_proj\.", r"\1.layers.\2.self_attention.output."),
    (_LAYER + r"self_attn_layer_norm\.", r"\1.layers.\2.self_attention_residual.norm."),
    (_LAYER + r"encoder_attn\.q_proj\.", r"\1.layers.\2.cross_attention.query."),
    (_LAYER + r"encoder_attn\.k_proj\.", r"\1.layers.\2.cross_attention.key."),
    (_LAYER + r"encoder_attn\.v_proj\.", r"\1.layers.\2.cross_attention.value."),
    (_LAYER + r"encoder_attn\.out_proj\.", r"\1.layers.\2.cross_attention.output."),
    (_LAYER + r"encoder_attn_layer_norm\.", r"\1.layers.\2.cross_attention_residual.norm."),
    (_LAYER + r"fc1\.", r"\1.layers.\2.feed_forward.up."),
    (_LAYER + r"fc2\.", r"\1.layers.\2.feed_forward.down."),
    (_LAYER + r"final_layer_norm\.", r"\1.layers.\2.feed_forward_residual.norm."),
)


def read_bart(config: Any, weights: Mapping[str, Tensor]) -> Transformer:
    """Maps a checkpoint of one of :data:`FAMILIES`.

    Args:
        config: The configuration, as ``transformers`` reads it.
        weights: As read; tied tensors may be there once or several times.

    Raises:
        UnsupportedError: The configuration asks for what our Transformer does not have.
        CheckpointError: The weights do not fit the configuration.
    """
    traits = _TRAITS[config.model_type]
    unneeded = r".*\.embed_positions\.weights?" if traits.positions == "sinusoidal" else ""
    renamed = rename_weights(weights, _RENAMES, unneeded=unneeded)
    tables = place_tables(
        pop_stored(renamed),
        can_share=getattr(config, "share_encoder_decoder_embeddings", True),
        can_tie=config.tie_word_embeddings,
    )
    renamed |= tables.weights
    if traits.positions == "learned":
        for side in ("source_embedding", "target_embedding"):
            name = f"{side}.position.weight"
            if name in renamed:
                renamed[name] = renamed[name][_LEARNED_OFFSET:]
    head_bias = renamed.pop("final_logits_bias", None)  # [1, V]
    if head_bias is not None and head_bias.any():
        renamed["head.bias"] = head_bias[0]
    transformer_config = _to_config(config, traits, tables, has_head_bias="head.bias" in renamed)
    return make_transformer(transformer_config, renamed, f"the {config.model_type} checkpoint")


def _to_config(
    config: Any, traits: _Traits, tables: EmbeddingTables, *, has_head_bias: bool
) -> TransformerConfig:
    num_heads = config.encoder_attention_heads
    if config.decoder_attention_heads != num_heads:
        raise UnsupportedError(
            f"{num_heads} encoder heads and {config.decoder_attention_heads} decoder heads are not "
            "supported; they must be equally many"
        )
    if config.encoder_ffn_dim != config.decoder_ffn_dim:
        raise UnsupportedError(
            f'"encoder_ffn_dim" {config.encoder_ffn_dim} and "decoder_ffn_dim" '
            f"{config.decoder_ffn_dim} are not supported; they must be equal"
        )
    target_vocabulary_size = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    return TransformerConfig(
        model_size=config.d_model,
        num_heads=num_heads,
        head_size=to_head_size(config.d_model, num_heads),
        feed_forward_size=config.encoder_ffn_dim,
        norm_placement=traits.norm_placement,
        has_final_norm=traits.norm_placement == "pre",
        has_embedding_norm=traits.has_embedding_norm,
        activation=to_activation(config.activation_function, "activation_function"),
        positions=traits.positions,
        sinusoidal_rates=traits.sinusoidal_rates,
        sinusoidal_offset=config.pad_token_id + 1 if config.model_type == "m2m_100" else 0,
        is_embedding_scaled=bool(config.scale_embedding),
        source_vocabulary_size=config.vocab_size,
        target_vocabulary_size=target_vocabulary_size,
        num_encoder_layers=config.encoder_layers,
        num_decoder_layers=config.decoder_layers,
        max_source_length=config.max_position_embeddings,
        max_target_length=config.max_position_embeddings,
        has_shared_embedding=tables.is_shared,
        has_tied_head=tables.has_tied_head,
        has_head_bias=has_head_bias,
    )
