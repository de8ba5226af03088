"""ALBERT: narrow embeddings that a projection widens, and layers that share their weights.

Source: Lan et al. 2020, arXiv:1909.11942; ``AlbertModel``, ``AlbertTransformer`` and
``AlbertMLMHead`` of ``transformers``.
"""

from typing import Any

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.errors import UnsupportedError
from seqserve_export.families.bert import EMBEDDING_RENAMES, TOKEN_CLASSIFIER, to_encoder_config
from seqserve_export.families.family import Family, HeadMapping, check_is_encoder, to_activation
from seqserve_export.heads import HeadConfig, HiddenConfig

_LAYER = r"encoder\.albert_layer_groups\.(\d+)\.albert_layers\.0\."


def _to_config(config: Any) -> EncoderConfig:
    check_is_encoder(config)
    if config.inner_group_num != 1:
        raise UnsupportedError(
            f'"inner_group_num" {config.inner_group_num} is not supported; supported is 1'
        )
    num_layers, num_groups = config.num_hidden_layers, config.num_hidden_groups
    return to_encoder_config(
        config,
        embedding_size=config.embedding_size,
        num_layers=num_groups,
        layer_order=tuple(int(depth / (num_layers / num_groups)) for depth in range(num_layers)),
    )


def _to_classifier(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.num_labels,
        pooling="cls",
        hidden=HiddenConfig(size=config.hidden_size, activation="tanh"),
    )


def _to_masked_head(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.vocab_size,
        hidden=HiddenConfig(
            size=config.embedding_size,
            activation=to_activation(config.hidden_act, "hidden_act"),
            norm_epsilon=config.layer_norm_eps,
        ),
    )


ALBERT = Family(
    model_type="albert",
    class_prefix="Albert",
    weight_prefix="albert.",
    mask_token="[MASK]",
    to_encoder_config=_to_config,
    renames=(
        *EMBEDDING_RENAMES,
        (r"encoder\.embedding_hidden_mapping_in\.", "embedding.projection."),
        (_LAYER + r"attention\.(query|key|value)\.", r"encoder.layers.\1.self_attention.\2."),
        (_LAYER + r"attention\.dense\.", r"encoder.layers.\1.self_attention.output."),
        (_LAYER + r"attention\.LayerNorm\.", r"encoder.layers.\1.self_attention_residual.norm."),
        (_LAYER + r"ffn\.", r"encoder.layers.\1.feed_forward.up."),
        (_LAYER + r"ffn_output\.", r"encoder.layers.\1.feed_forward.down."),
        (_LAYER + r"full_layer_layer_norm\.", r"encoder.layers.\1.feed_forward_residual.norm."),
    ),
    unneeded=r"pooler\.|classifier\.|predictions\.|sop_classifier\.|embeddings\.position_ids$",
    heads={
        Task.CLASSIFY: HeadMapping(
            to_config=_to_classifier,
            renames=((r"pooler\.", "hidden."), (r"classifier\.", "output.")),
        ),
        Task.CLASSIFY_TOKENS: TOKEN_CLASSIFIER,
        Task.FILL_MASK: HeadMapping(
            to_config=_to_masked_head,
            renames=(
                (r"predictions\.dense\.", "hidden."),
                (r"predictions\.LayerNorm\.", "norm."),
                (r"predictions\.decoder\.", "output."),
                (r"predictions\.bias$", "output.bias"),
            ),
        ),
    },
)
