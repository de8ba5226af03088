"""DistilBERT: BERT without types of tokens and without a pooler.

Source: Sanh et al. 2019, arXiv:1910.01108; ``DistilBertModel`` and
``DistilBertForSequenceClassification`` of ``transformers``.
"""

from typing import Any

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.families.bert import EMBEDDING_RENAMES, TOKEN_CLASSIFIER
from seqserve_export.families.family import Family, HeadMapping, to_activation, to_head_size
from seqserve_export.heads import HeadConfig, HiddenConfig

_NORM_EPSILON = 1e-12
"""Fixed in the code; the configuration does not have it."""

_LAYER = r"transformer\.layer\.(\d+)\."


def _to_config(config: Any) -> EncoderConfig:
    return EncoderConfig(
        model_size=config.dim,
        num_heads=config.n_heads,
        head_size=to_head_size(config.dim, config.n_heads),
        feed_forward_size=config.hidden_dim,
        norm_placement="post",
        norm_epsilon=_NORM_EPSILON,
        has_final_norm=False,
        has_embedding_norm=True,
        activation=to_activation(config.activation, "activation"),
        vocabulary_size=config.vocab_size,
        num_layers=config.n_layers,
        max_length=config.max_position_embeddings,
    )


def _to_classifier(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.num_labels,
        pooling="cls",
        hidden=HiddenConfig(size=config.dim, activation="relu"),
    )


def _to_masked_head(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.vocab_size,
        hidden=HiddenConfig(
            size=config.dim,
            activation=to_activation(config.activation, "activation"),
            norm_epsilon=_NORM_EPSILON,
        ),
    )


DISTILBERT = Family(
    model_type="distilbert",
    class_prefix="DistilBert",
    weight_prefix="distilbert.",
    mask_token="[MASK]",
    to_encoder_config=_to_config,
    renames=(
        *EMBEDDING_RENAMES,
        (_LAYER + r"attention\.q_lin\.", r"encoder.layers.\1.self_attention.query."),
        (_LAYER + r"attention\.k_lin\.", r"encoder.layers.\1.self_attention.key."),
        (_LAYER + r"attention\.v_lin\.", r"encoder.layers.\1.self_attention.value."),
        (_LAYER + r"attention\.out_lin\.", r"encoder.layers.\1.self_attention.output."),
        (_LAYER + r"sa_layer_norm\.", r"encoder.layers.\1.self_attention_residual.norm."),
        (_LAYER + r"ffn\.lin1\.", r"encoder.layers.\1.feed_forward.up."),
        (_LAYER + r"ffn\.lin2\.", r"encoder.layers.\1.feed_forward.down."),
        (_LAYER + r"output_layer_norm\.", r"encoder.layers.\1.feed_forward_residual.norm."),
    ),
    unneeded=r"pre_classifier\.|classifier\.|vocab_|embeddings\.position_ids$",
    heads={
        Task.CLASSIFY: HeadMapping(
            to_config=_to_classifier,
            renames=((r"pre_classifier\.", "hidden."), (r"classifier\.", "output.")),
        ),
        Task.CLASSIFY_TOKENS: TOKEN_CLASSIFIER,
        Task.FILL_MASK: HeadMapping(
            to_config=_to_masked_head,
            renames=(
                (r"vocab_transform\.", "hidden."),
                (r"vocab_layer_norm\.", "norm."),
                (r"vocab_projector\.", "output."),
            ),
        ),
    },
)
