"""MPNet: BERT's blocks with the relative position bias of T5 besides learned positions.

Positions start after the padding token's id, as in RoBERTa. That id, and the number of buckets, are
fixed in its code.

Source: Song et al. 2020, arXiv:2004.09297; ``MPNetModel``, ``MPNetEncoder`` and ``MPNetLMHead`` of
``transformers``.
"""

from typing import Any

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.errors import UnsupportedError
from seqserve_export.families.bert import (
    BLOCK_RENAMES,
    EMBEDDING_RENAMES,
    TOKEN_CLASSIFIER,
    to_encoder_config,
)
from seqserve_export.families.family import Family, HeadMapping
from seqserve_export.families.roberta import (
    DENSE_CLASSIFIER_RENAMES,
    LM_HEAD_RENAMES,
    UNNEEDED,
    to_dense_classifier,
    to_lm_head,
)

_PADDING_TOKEN = 1
_NUM_BUCKETS = 32
_ATTENTION = r"encoder\.layer\.(\d+)\.attention\."


def _to_config(config: Any) -> EncoderConfig:
    if config.relative_attention_num_buckets != _NUM_BUCKETS:
        raise UnsupportedError(
            f'"relative_attention_num_buckets" {config.relative_attention_num_buckets} is not '
            f"supported; supported is {_NUM_BUCKETS}"
        )
    return to_encoder_config(
        config,
        uncounted_token=_PADDING_TOKEN,
        max_length=config.max_position_embeddings - _PADDING_TOKEN - 1,
        has_position_bias=True,
        num_position_buckets=_NUM_BUCKETS,
        max_position_distance=128,
    )


MPNET = Family(
    model_type="mpnet",
    class_prefix="MPNet",
    weight_prefix="mpnet.",
    mask_token="<mask>",
    to_encoder_config=_to_config,
    renames=(
        *EMBEDDING_RENAMES,
        *BLOCK_RENAMES,
        (_ATTENTION + r"attn\.q\.", r"encoder.layers.\1.self_attention.query."),
        (_ATTENTION + r"attn\.k\.", r"encoder.layers.\1.self_attention.key."),
        (_ATTENTION + r"attn\.v\.", r"encoder.layers.\1.self_attention.value."),
        (_ATTENTION + r"attn\.o\.", r"encoder.layers.\1.self_attention.output."),
        (_ATTENTION + r"LayerNorm\.", r"encoder.layers.\1.self_attention_residual.norm."),
        (r"encoder\.relative_attention_bias\.", "encoder.position_bias."),
    ),
    unneeded=UNNEEDED,
    heads={
        Task.CLASSIFY: HeadMapping(to_config=to_dense_classifier, renames=DENSE_CLASSIFIER_RENAMES),
        Task.CLASSIFY_TOKENS: TOKEN_CLASSIFIER,
        Task.FILL_MASK: HeadMapping(to_config=to_lm_head, renames=LM_HEAD_RENAMES),
    },
)
