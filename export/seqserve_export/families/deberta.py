"""DeBERTa-v2 and v3: BERT with disentangled attention instead of, or besides, learned positions.

Source: He et al. 2021, arXiv:2006.03654 and arXiv:2111.09543; ``DebertaV2Model``,
``ContextPooler`` and the heads of masked language modelling of ``transformers``.
"""

import math
from typing import Any

from torch import Tensor

from seqserve.task_record import Task
from seqserve_export.encoder_config import ConvolutionConfig, DisentangledConfig, EncoderConfig
from seqserve_export.errors import UnsupportedError
from seqserve_export.families.bert import (
    BLOCK_RENAMES,
    EMBEDDING_RENAMES,
    TOKEN_CLASSIFIER,
    to_encoder_config,
    to_masked_head,
)
from seqserve_export.families.family import Family, HeadMapping, to_activation, to_head_size
from seqserve_export.heads import HeadConfig, HiddenConfig

_ATTENTION = r"encoder\.layer\.(\d+)\.attention\.self\."


def _to_config(config: Any) -> EncoderConfig:
    head_size = to_head_size(config.hidden_size, config.num_attention_heads)
    _check(config, head_size)
    kinds = config.pos_att_type or []
    num_scores = 1 + ("c2p" in kinds) + ("p2c" in kinds)
    return to_encoder_config(
        config,
        positions="learned" if config.position_biased_input else "none",
        attention_scale=1 / math.sqrt(head_size * num_scores),
        disentangled=_to_disentangled(config, kinds),
        convolution=_to_convolution(config),
    )


def _check(config: Any, head_size: int) -> None:
    if not config.relative_attention:
        raise UnsupportedError('"relative_attention": false is not supported; supported is true')
    for field, supported in (
        ("embedding_size", config.hidden_size),
        ("attention_head_size", head_size),
        ("pooler_hidden_size", config.hidden_size),
    ):
        value = getattr(config, field, supported)
        if value != supported:
            raise UnsupportedError(f'"{field}" {value} is not supported; supported is {supported}')
    for kind in config.pos_att_type or []:
        if kind not in ("c2p", "p2c"):
            raise UnsupportedError(
                f'"pos_att_type" {kind!r} is not supported; supported are c2p and p2c'
            )


def _to_disentangled(config: Any, kinds: list[str]) -> DisentangledConfig:
    num_buckets = getattr(config, "position_buckets", -1)
    norms = getattr(config, "norm_rel_ebd", "none").lower().split("|")
    max_distance = config.max_relative_positions
    return DisentangledConfig(
        num_buckets=num_buckets if num_buckets > 0 else None,
        max_distance=max_distance if max_distance >= 1 else config.max_position_embeddings,
        has_content_to_position="c2p" in kinds,
        has_position_to_content="p2c" in kinds,
        has_own_projections=not getattr(config, "share_att_key", False),
        has_distance_norm="layer_norm" in [norm.strip() for norm in norms],
    )


def _to_convolution(config: Any) -> ConvolutionConfig | None:
    kernel_size = getattr(config, "conv_kernel_size", 0)
    if not kernel_size:
        return None
    if kernel_size % 2 == 0:
        raise UnsupportedError(
            f'"conv_kernel_size" {kernel_size} is not supported; supported are odd numbers'
        )
    num_groups = getattr(config, "conv_groups", 1)
    if num_groups != 1:
        raise UnsupportedError(f'"conv_groups" {num_groups} is not supported; supported is 1')
    return ConvolutionConfig(
        kernel_size=kernel_size,
        activation=to_activation(getattr(config, "conv_act", "tanh"), "conv_act"),
    )


def _to_classifier(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.num_labels,
        pooling="cls",
        hidden=HiddenConfig(
            size=config.hidden_size,
            activation=to_activation(config.pooler_hidden_act, "pooler_hidden_act"),
        ),
    )


def _join_taps(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Makes the weight of a linear layer of the convolution's: [M, M, K] -> [M, K*M]."""
    return {
        name: tensor.transpose(1, 2).flatten(1)
        if name.endswith("encoder.conv.conv.weight") and tensor.ndim == 3
        else tensor
        for name, tensor in weights.items()
    }


DEBERTA = Family(
    model_type="deberta-v2",
    class_prefix="DebertaV2",
    weight_prefix="deberta.",
    mask_token="[MASK]",
    to_encoder_config=_to_config,
    renames=(
        *EMBEDDING_RENAMES,
        *BLOCK_RENAMES,
        (_ATTENTION + r"(query|key|value)_proj\.", r"encoder.layers.\1.self_attention.\2."),
        (_ATTENTION + r"pos_key_proj\.", r"encoder.layers.\1.self_attention.distance_key."),
        (_ATTENTION + r"pos_query_proj\.", r"encoder.layers.\1.self_attention.distance_query."),
        (r"encoder\.rel_embeddings\.", "encoder.distances."),
        (r"encoder\.LayerNorm\.", "encoder.distances.norm."),
        (r"encoder\.conv\.conv\.", "encoder.convolution.filter."),
        (r"encoder\.conv\.LayerNorm\.", "encoder.convolution.norm."),
    ),
    unneeded=(
        r"pooler\.|classifier\.|cls\.|lm_predictions\.|mask_predictions\.|"
        r"embeddings\.position_ids$"
    ),
    reshape=_join_taps,
    heads={
        Task.CLASSIFY: HeadMapping(
            to_config=_to_classifier,
            renames=((r"pooler\.dense\.", "hidden."), (r"classifier\.", "output.")),
        ),
        Task.CLASSIFY_TOKENS: TOKEN_CLASSIFIER,
        Task.FILL_MASK: HeadMapping(
            to_config=to_masked_head,
            # The names of the head depend on "legacy"; a checkpoint has one kind of them.
            renames=(
                (r"cls\.predictions\.transform\.dense\.", "hidden."),
                (r"cls\.predictions\.transform\.LayerNorm\.", "norm."),
                (r"cls\.predictions\.decoder\.", "output."),
                (r"cls\.predictions\.bias$", "output.bias"),
                (r"lm_predictions\.lm_head\.dense\.", "hidden."),
                (r"lm_predictions\.lm_head\.LayerNorm\.", "norm."),
                (r"lm_predictions\.lm_head\.bias$", "output.bias"),
            ),
        ),
    },
)
