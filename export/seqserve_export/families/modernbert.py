"""ModernBERT: rotary positions, norm before each block, gated feed-forward, and local layers.

Some layers attend to everything, the others to a window around the query; each kind has a base of
its rotary positions.

Source: Warner et al. 2024, arXiv:2412.13663; ``ModernBertModel`` and ``ModernBertPredictionHead``
of ``transformers``.
"""

import re
from typing import Any

from torch import Tensor

from seqserve.task_record import Task
from seqserve_export.encoder_config import AttentionScope, EncoderConfig
from seqserve_export.errors import UnsupportedError
from seqserve_export.families.family import Family, HeadMapping, to_activation, to_head_size
from seqserve_export.heads import HeadConfig, HiddenConfig
from seqserve_export.pooling import PoolingMode

_LAYER = r"layers\.(\d+)\."


def _to_config(config: Any) -> EncoderConfig:
    if config.attention_bias != config.mlp_bias:
        raise UnsupportedError(
            f'"attention_bias" {config.attention_bias} with "mlp_bias" {config.mlp_bias} is not '
            "supported; both must be the same"
        )
    return EncoderConfig(
        model_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        head_size=to_head_size(config.hidden_size, config.num_attention_heads, multiple=16),
        feed_forward_size=config.intermediate_size,
        norm_placement="pre",
        norm_epsilon=config.norm_eps,
        has_norm_bias=config.norm_bias,
        has_first_norm=False,
        has_embedding_norm=True,
        activation=to_activation(config.hidden_activation, "hidden_activation"),
        is_gated=True,
        positions="none",
        has_bias=config.attention_bias,
        vocabulary_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        max_length=config.max_position_embeddings,
        scopes=tuple(_to_scope(config, kind) for kind in config.layer_types),
    )


def _to_scope(config: Any, kind: str) -> AttentionScope:
    if kind not in ("full_attention", "sliding_attention"):
        raise UnsupportedError(
            f'"layer_types" with {kind!r} is not supported; supported are full_attention and '
            "sliding_attention"
        )
    rotary = config.rope_parameters[kind]
    if rotary["rope_type"] != "default":
        raise UnsupportedError(
            f'"rope_type" {rotary["rope_type"]!r} is not supported; supported is "default"'
        )
    return AttentionScope(
        max_distance=config.local_attention // 2 if kind == "sliding_attention" else None,
        rotary_base=float(rotary["rope_theta"]),
    )


def _to_hidden(config: Any) -> HiddenConfig:
    return HiddenConfig(
        size=config.hidden_size,
        activation=to_activation(config.classifier_activation, "classifier_activation"),
        has_bias=config.classifier_bias,
        norm_epsilon=config.norm_eps,
        has_norm_bias=config.norm_bias,
    )


def _to_classifier(config: Any) -> HeadConfig:
    pooling: PoolingMode = "cls" if config.classifier_pooling == "cls" else "mean"
    return HeadConfig(num_outputs=config.num_labels, pooling=pooling, hidden=_to_hidden(config))


def _to_token_classifier(config: Any) -> HeadConfig:
    return HeadConfig(num_outputs=config.num_labels, hidden=_to_hidden(config))


def _to_masked_head(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.vocab_size, hidden=_to_hidden(config), has_bias=config.decoder_bias
    )


def _split(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Splits the joint projections: queries, keys and values; gate and up."""
    split: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        parts: tuple[str, ...] = ()
        if re.search(r"\.attn\.Wqkv\.", name):
            parts = ("query", "key", "value")
        elif re.search(r"\.mlp\.Wi\.", name):
            parts = ("gate", "up")
        if not parts or tensor.shape[0] % len(parts):
            split[name] = tensor
            continue
        for part, rows in zip(parts, tensor.chunk(len(parts)), strict=True):
            split[re.sub("Wqkv|Wi", part, name)] = rows
    return split


_HEAD_RENAMES = ((r"head\.dense\.", "hidden."), (r"head\.norm\.", "norm."))

MODERNBERT = Family(
    model_type="modernbert",
    class_prefix="ModernBert",
    weight_prefix="model.",
    mask_token="[MASK]",
    to_encoder_config=_to_config,
    renames=(
        (r"embeddings\.tok_embeddings\.", "embedding.token."),
        (r"embeddings\.norm\.", "embedding.norm."),
        (_LAYER + r"attn_norm\.", r"encoder.layers.\1.self_attention_residual.norm."),
        (_LAYER + r"attn\.(query|key|value)\.", r"encoder.layers.\1.self_attention.\2."),
        (_LAYER + r"attn\.Wo\.", r"encoder.layers.\1.self_attention.output."),
        (_LAYER + r"mlp_norm\.", r"encoder.layers.\1.feed_forward_residual.norm."),
        (_LAYER + r"mlp\.(gate|up)\.", r"encoder.layers.\1.feed_forward.\2."),
        (_LAYER + r"mlp\.Wo\.", r"encoder.layers.\1.feed_forward.down."),
        (r"final_norm\.", "encoder.norm."),
    ),
    unneeded=r"head\.|decoder\.|classifier\.",
    reshape=_split,
    heads={
        Task.CLASSIFY: HeadMapping(
            to_config=_to_classifier, renames=(*_HEAD_RENAMES, (r"classifier\.", "output."))
        ),
        Task.CLASSIFY_TOKENS: HeadMapping(
            to_config=_to_token_classifier, renames=(*_HEAD_RENAMES, (r"classifier\.", "output."))
        ),
        Task.FILL_MASK: HeadMapping(
            to_config=_to_masked_head, renames=(*_HEAD_RENAMES, (r"decoder\.", "output."))
        ),
    },
)
