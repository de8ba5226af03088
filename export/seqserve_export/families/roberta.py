"""RoBERTa, XLM-R and CamemBERT: BERT with positions that start after the id of the padding token.

The padding token itself is not counted, wherever it stands.

Source: Liu et al. 2019, arXiv:1907.11692; Conneau et al. 2020, arXiv:1911.02116; Martin et al.
2020, arXiv:1911.03894; ``RobertaEmbeddings``, ``RobertaClassificationHead`` and ``RobertaLMHead``
of ``transformers``, and their namesakes of the other two.
"""

from typing import Any

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.errors import UnsupportedError
from seqserve_export.families.bert import RENAMES, TOKEN_CLASSIFIER, to_encoder_config
from seqserve_export.families.family import Family, HeadMapping, check_is_encoder
from seqserve_export.heads import HeadConfig, HiddenConfig

DENSE_CLASSIFIER_RENAMES = (
    (r"classifier\.dense\.", "hidden."),
    (r"classifier\.out_proj\.", "output."),
)

LM_HEAD_RENAMES = (
    (r"lm_head\.dense\.", "hidden."),
    (r"lm_head\.layer_norm\.", "norm."),
    (r"lm_head\.decoder\.", "output."),
    (r"lm_head\.bias$", "output.bias"),
)

UNNEEDED = r"pooler\.|classifier\.|lm_head\.|embeddings\.position_ids$"


def to_dense_classifier(config: Any) -> HeadConfig:
    """The first state, a hidden layer with tanh, the output layer."""
    return HeadConfig(
        num_outputs=config.num_labels,
        pooling="cls",
        hidden=HiddenConfig(size=config.hidden_size, activation="tanh"),
    )


def to_lm_head(config: Any) -> HeadConfig:
    """The head of masked language modelling, whose activation is always GELU."""
    return HeadConfig(
        num_outputs=config.vocab_size,
        hidden=HiddenConfig(
            size=config.hidden_size, activation="gelu", norm_epsilon=config.layer_norm_eps
        ),
    )


def _to_config(config: Any) -> EncoderConfig:
    check_is_encoder(config)
    padding_token = config.pad_token_id
    if padding_token is None:
        raise UnsupportedError('"pad_token_id" is null, but positions are counted from it')
    return to_encoder_config(
        config,
        uncounted_token=padding_token,
        max_length=config.max_position_embeddings - padding_token - 1,
    )


def _make_family(model_type: str, class_prefix: str) -> Family:
    return Family(
        model_type=model_type,
        class_prefix=class_prefix,
        weight_prefix="roberta.",
        mask_token="<mask>",
        to_encoder_config=_to_config,
        renames=RENAMES,
        unneeded=UNNEEDED,
        heads={
            Task.CLASSIFY: HeadMapping(
                to_config=to_dense_classifier, renames=DENSE_CLASSIFIER_RENAMES
            ),
            Task.CLASSIFY_TOKENS: TOKEN_CLASSIFIER,
            Task.FILL_MASK: HeadMapping(to_config=to_lm_head, renames=LM_HEAD_RENAMES),
        },
    )


ROBERTA = _make_family("roberta", "Roberta")
XLM_ROBERTA = _make_family("xlm-roberta", "XLMRoberta")
CAMEMBERT = _make_family("camembert", "Camembert")
