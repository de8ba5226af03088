"""ELECTRA: BERT with embeddings of another width, and heads without a pooler.

Source: Clark et al. 2020, arXiv:2003.10555; ``ElectraModel``, ``ElectraClassificationHead`` and
``ElectraGeneratorPredictions`` of ``transformers``.
"""

from typing import Any

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.families.bert import RENAMES, TOKEN_CLASSIFIER, to_encoder_config
from seqserve_export.families.family import Family, HeadMapping, check_is_encoder
from seqserve_export.families.roberta import DENSE_CLASSIFIER_RENAMES
from seqserve_export.heads import HeadConfig, HiddenConfig


def _to_config(config: Any) -> EncoderConfig:
    check_is_encoder(config)
    is_projected = config.embedding_size != config.hidden_size
    return to_encoder_config(config, embedding_size=config.embedding_size if is_projected else None)


def _to_classifier(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.num_labels,
        pooling="cls",
        hidden=HiddenConfig(size=config.hidden_size, activation="gelu"),
    )


def _to_masked_head(config: Any) -> HeadConfig:
    return HeadConfig(
        num_outputs=config.vocab_size,
        hidden=HiddenConfig(
            size=config.embedding_size, activation="gelu", norm_epsilon=config.layer_norm_eps
        ),
    )


ELECTRA = Family(
    model_type="electra",
    class_prefix="Electra",
    weight_prefix="electra.",
    mask_token="[MASK]",
    to_encoder_config=_to_config,
    renames=(*RENAMES, (r"embeddings_project\.", "embedding.projection.")),
    unneeded=r"classifier\.|discriminator_|generator_|embeddings\.position_ids$",
    heads={
        Task.CLASSIFY: HeadMapping(to_config=_to_classifier, renames=DENSE_CLASSIFIER_RENAMES),
        Task.CLASSIFY_TOKENS: TOKEN_CLASSIFIER,
        Task.FILL_MASK: HeadMapping(
            to_config=_to_masked_head,
            renames=(
                (r"generator_predictions\.dense\.", "hidden."),
                (r"generator_predictions\.LayerNorm\.", "norm."),
                (r"generator_lm_head\.", "output."),
            ),
        ),
    },
)
