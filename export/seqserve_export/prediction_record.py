"""What a manifest says of an encoder's head: labels, activation, mask token; read from its folder.

====================================  ========================================================
task                                  what is read
====================================  ========================================================
classify                              ``"id2label"`` and ``"problem_type"`` of ``config.json``
classify tokens                       ``"id2label"``
rerank                                the activation that a cross-encoder was saved with, and its
                                      prompts
fill mask                             the mask token of ``tokenizer_config.json``
====================================  ========================================================
"""

from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from seqserve.task_record import (
    ClassificationRecord,
    MaskFillingRecord,
    PredictionRecord,
    RerankingRecord,
    Task,
    TokenClassificationRecord,
)
from seqserve_export.checkpoint_config import CONFIG_FILE
from seqserve_export.encoder_files import (
    check_sentence_settings,
    read_mask_token,
    read_query_prompts,
)
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families import find_family

GRAPH_FILE = "predict.onnx"

_PROBLEM_TYPES: dict[str | None, Literal["single_label", "multi_label", "regression"]] = {
    None: "single_label",
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


def read_prediction_record(
    folder: Path,
    task: Task,
    config: Any,
    tokenizer: Tokenizer,
    *,
    has_token_types: bool,
    unknown_token_id: int | None,
) -> PredictionRecord:
    """Reads the record of a head.

    Args:
        folder: With ``config.json`` of a supported family and its tokenizer.
        task: What the head is for.
        config: The configuration, as ``transformers`` reads it.
        tokenizer: Of the folder.
        has_token_types: Whether the texts of a pair are told apart by the types of their tokens.
        unknown_token_id: What stands for what the tokenizer does not know, if anything does.

    Raises:
        UnsupportedError: The activation of a cross-encoder is not supported.
        CheckpointError: Labels or mask token are absent or malformed.
    """
    match task:
        case Task.CLASSIFY:
            return ClassificationRecord(
                graph=GRAPH_FILE,
                has_token_types=has_token_types,
                labels=_read_labels(folder, config),
                problem_type=_PROBLEM_TYPES[config.problem_type],
            )
        case Task.RERANK:
            prompts = read_query_prompts(folder)
            return RerankingRecord(
                graph=GRAPH_FILE,
                has_token_types=has_token_types,
                activation=_read_activation(folder, config),
                prompts=prompts.texts,
                default_prompt_name=prompts.default,
            )
        case Task.CLASSIFY_TOKENS:
            return TokenClassificationRecord(
                graph=GRAPH_FILE,
                labels=_read_labels(folder, config),
                unknown_token_id=unknown_token_id,
            )
    token, token_id = read_mask_token(folder, tokenizer, find_family(config.model_type).mask_token)
    return MaskFillingRecord(graph=GRAPH_FILE, mask_token=token, mask_token_id=token_id)


def _read_labels(folder: Path, config: Any) -> tuple[str, ...]:
    labels = config.id2label
    if sorted(labels) != list(range(len(labels))) or not labels:
        raise CheckpointError(
            f'{folder / CONFIG_FILE}: "id2label" must name every label from 0 on, but '
            f"names {sorted(labels)}"
        )
    return tuple(str(labels[index]) for index in range(len(labels)))


def _read_activation(folder: Path, config: Any) -> Literal["sigmoid", "identity"]:
    """What makes a score of the logit of a cross-encoder; the sigmoid where nothing is said.

    Source: ``CrossEncoder.get_default_activation_fn`` of ``sentence-transformers``.
    """
    saved = check_sentence_settings(folder)
    older = getattr(config, "sentence_transformers", None) or {}
    oldest = getattr(config, "sbert_ce_default_activation_function", None)
    name = saved.get("activation_fn") or older.get("activation_fn") or oldest
    if name is None:
        return "sigmoid"
    match str(name).removeprefix("torch.nn.modules.").split(".")[-1]:
        case "Sigmoid" if name.startswith("torch.nn."):
            return "sigmoid"
        case "Identity" if name.startswith("torch.nn."):
            return "identity"
    raise UnsupportedError(
        f"activation {name!r} of the cross-encoder in {folder} is not supported; supported "
        "are torch.nn.Sigmoid and torch.nn.Identity"
    )
