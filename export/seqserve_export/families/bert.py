"""BERT: norm after each block, a norm on the embeddings, learned positions, two types of tokens.

Source: Devlin et al. 2019, arXiv:1810.04805; ``BertModel``, ``BertForSequenceClassification``,
``BertForTokenClassification`` and ``BertForMaskedLM`` of ``transformers``.
"""

from typing import Any

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.families.family import (
    Family,
    HeadMapping,
    check_is_encoder,
    to_activation,
    to_head_size,
)
from seqserve_export.heads import HeadConfig, HiddenConfig

EMBEDDING_RENAMES = (
    (r"embeddings\.word_embeddings\.", "embedding.token."),
    (r"embeddings\.position_embeddings\.", "embedding.position."),
    (r"embeddings\.token_type_embeddings\.", "embedding.token_type."),
    (r"embeddings\.LayerNorm\.", "embedding.norm."),
)

BLOCK_RENAMES = (
    (
        r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.",
        r"encoder.layers.\1.self_attention_residual.norm.",
    ),
    (
        r"encoder\.layer\.(\d+)\.attention\.output\.dense\.",
        r"encoder.layers.\1.self_attention.output.",
    ),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"encoder.layers.\1.feed_forward.up."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"encoder.layers.\1.feed_forward.down."),
    (
        r"encoder\.layer\.(\d+)\.output\.LayerNorm\.",
        r"encoder.layers.\1.feed_forward_residual.norm.",
    ),
)

RENAMES = (
    *EMBEDDING_RENAMES,
    *BLOCK_RENAMES,
    (
        r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.",
        r"encoder.layers.\1.self_attention.\2.",
    ),
)

TOKEN_CLASSIFIER = HeadMapping(
    to_config=lambda config: HeadConfig(num_outputs=config.num_labels),
    renames=((r"classifier\.", "output."),),
)
"""One linear layer, as in most families."""


def to_encoder_config(config: Any, **switches: Any) -> EncoderConfig:
    """Maps the fields that BERT shares with its descendants; ``switches`` replace some."""
    model_size, num_heads = config.hidden_size, config.num_attention_heads
    values: dict[str, Any] = {
        "model_size": model_size,
        "num_heads": num_heads,
        "head_size": to_head_size(model_size, num_heads),
        "feed_forward_size": config.intermediate_size,
        "norm_placement": "post",
        "norm_epsilon": config.layer_norm_eps,
        "has_final_norm": False,
        "has_embedding_norm": True,
        "activation": to_activation(config.hidden_act, "hidden_act"),
        "vocabulary_size": config.vocab_size,
        "num_layers": config.num_hidden_layers,
        "max_length": config.max_position_embeddings,
        "num_token_types": getattr(config, "type_vocab_size", 0),
    }
    return EncoderConfig(**(values | switches))


def _to_config(config: Any) -> EncoderConfig:
    check_is_encoder(config)
    return to_encoder_config(config)


def _to_classifier(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.num_labels,
        pooling="cls",
        hidden=HiddenConfig(size=config.hidden_size, activation="tanh"),
    )


def to_masked_head(config: Any) -> HeadConfig:
    """The head of masked language modelling: hidden layer, activation, norm."""
    return HeadConfig(
        num_outputs=config.vocab_size,
        hidden=HiddenConfig(
            size=config.hidden_size,
            activation=to_activation(config.hidden_act, "hidden_act"),
            norm_epsilon=config.layer_norm_eps,
        ),
    )


BERT = Family(
    model_type="bert",
    class_prefix="Bert",
    weight_prefix="bert.",
    mask_token="[MASK]",
    to_encoder_config=_to_config,
    renames=RENAMES,
    unneeded=r"pooler\.|cls\.|classifier\.|embeddings\.position_ids$",
    heads={
        Task.CLASSIFY: HeadMapping(
            to_config=_to_classifier,
            renames=((r"pooler\.dense\.", "hidden."), (r"classifier\.", "output.")),
        ),
        Task.CLASSIFY_TOKENS: TOKEN_CLASSIFIER,
        Task.FILL_MASK: HeadMapping(
            to_config=to_masked_head,
            renames=(
                (r"cls\.predictions\.transform\.dense\.", "hidden."),
                (r"cls\.predictions\.transform\.LayerNorm\.", "norm."),
                (r"cls\.predictions\.decoder\.", "output."),
                (r"cls\.predictions\.bias$", "output.bias"),
            ),
        ),
    },
)
