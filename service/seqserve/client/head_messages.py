"""What the server says of the heads of models, as settings."""

from typing import Any

from seqserve.client.head_settings import (
    ClassificationSettings,
    MaskFillingSettings,
    RerankingSettings,
    TokenClassificationSettings,
)
from seqserve.v1 import model_pb2


def to_head_settings(message: model_pb2.Model) -> dict[str, Any]:
    """The fields of ``ModelInfo`` for the heads of models; None for what a model has not."""
    settings: dict[str, Any] = dict.fromkeys(
        ("classification", "token_classification", "reranking", "mask_filling")
    )
    if message.HasField("classification"):
        problem_type = model_pb2.ProblemType.Name(message.classification.problem_type)
        settings["classification"] = ClassificationSettings(
            labels=tuple(message.classification.labels),
            problem_type=problem_type.removeprefix("PROBLEM_TYPE_").lower(),
            has_token_types=message.classification.has_token_types,
        )
    if message.HasField("token_classification"):
        settings["token_classification"] = TokenClassificationSettings(
            labels=tuple(message.token_classification.labels)
        )
    if message.HasField("reranking"):
        activation = model_pb2.RerankingActivation.Name(message.reranking.activation)
        settings["reranking"] = RerankingSettings(
            activation=activation.removeprefix("RERANKING_ACTIVATION_").lower(),
            prompts=dict(message.reranking.prompts),
            default_prompt_name=message.reranking.default_prompt_name,
        )
    if message.HasField("mask_filling"):
        settings["mask_filling"] = MaskFillingSettings(
            mask_token=message.mask_filling.mask_token,
            mask_token_id=message.mask_filling.mask_token_id,
        )
    return settings
