"""Encoder families of Hugging Face: which ``model_type`` is read by what.

A family describes the configuration and the names of the weights; reading is the same for all.
Adding a family is adding a module and a line to the table.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families.albert import ALBERT
from seqserve_export.families.bert import BERT
from seqserve_export.families.deberta import DEBERTA
from seqserve_export.families.distilbert import DISTILBERT
from seqserve_export.families.electra import ELECTRA
from seqserve_export.families.family import Family
from seqserve_export.families.modernbert import MODERNBERT
from seqserve_export.families.mpnet import MPNET
from seqserve_export.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from seqserve_export.families.weight_names import Renames, rename
from seqserve_export.heads import Head
from seqserve_export.weights import assign_weights

ENCODER_FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        ALBERT,
        BERT,
        CAMEMBERT,
        DEBERTA,
        DISTILBERT,
        ELECTRA,
        MODERNBERT,
        MPNET,
        ROBERTA,
        XLM_ROBERTA,
    )
}

_ANYWHERE = (
    # Checkpoints converted from TensorFlow have its names.
    (r"(.*LayerNorm\.)gamma$", r"\1weight"),
    (r"(.*LayerNorm\.)beta$", r"\1bias"),
)


def find_family(model_type: object) -> Family:
    """Looks a family up.

    Raises:
        UnsupportedError: There is none; the message lists those there are.
    """
    family = ENCODER_FAMILIES.get(str(model_type))
    if family is None:
        raise UnsupportedError(
            f'"model_type" is {model_type!r}; supported are: {", ".join(sorted(ENCODER_FAMILIES))}'
        )
    return family


def to_encoder_config(config: Any) -> EncoderConfig:
    """Maps a configuration of ``transformers`` to ours.

    Raises:
        UnsupportedError: The family, or something its configuration asks for, is not supported.
        CheckpointError: The configuration is malformed.
    """
    family = find_family(config.model_type)
    try:
        return family.to_encoder_config(config)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"the {family.model_type} configuration is malformed: {error!r}"
        ) from error


def read_encoder(
    config: Any, weights: Mapping[str, Tensor], task: Task = Task.EMBED
) -> tuple[EncoderModel, Head | None]:
    """Maps a Hugging Face encoder into our model, in evaluation mode, with the head of a task.

    Args:
        config: A configuration of ``transformers``.
        weights: As in the checkpoint.
        task: What the head does; none is read to embed.

    Raises:
        UnsupportedError: The family, or something its configuration asks for, is not supported.
        CheckpointError: The configuration is malformed or the weights do not fit it.
    """
    family = find_family(config.model_type)
    mapping = family.heads.get(Task.CLASSIFY if task == Task.RERANK else task)
    model, head = EncoderModel(to_encoder_config(config)), None
    if mapping is not None:
        head = Head(mapping.to_config(config), model.config.model_size)
    expected = dict(model.state_dict())
    if head is not None:
        expected |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    renamed = _rename(family, weights, () if mapping is None else mapping.renames)
    if task == Task.FILL_MASK and head is not None and "head.output.weight" not in renamed:
        if not config.tie_word_embeddings:
            raise CheckpointError(
                f"the {family.model_type} checkpoint has no output layer, though "
                '"tie_word_embeddings" is false'
            )
        del expected["head.output.weight"]
        head.output.weight = model.embedding.token.weight
    assign_weights(expected, renamed, f"the {family.model_type} checkpoint")
    for module in filter(None, (model, head)):
        module.eval()
    return model, head


def _rename(family: Family, weights: Mapping[str, Tensor], head: Renames) -> dict[str, Tensor]:
    """Gives the weights our names, and leaves out the unneeded ones."""
    renamed: dict[str, Tensor] = {}
    conflicts = []
    for name, tensor in family.reshape(dict(weights)).items():
        plain_name = rename(name.removeprefix(family.weight_prefix), _ANYWHERE)
        new_name = rename(plain_name, family.renames)
        if new_name == plain_name:
            head_name = rename(plain_name, head)
            if head_name != plain_name:
                new_name = f"head.{head_name}"
            elif re.match(family.unneeded, plain_name):
                continue
        if new_name in renamed and not torch.equal(renamed[new_name], tensor):
            conflicts.append(name)
        renamed[new_name] = tensor
    if conflicts:
        raise CheckpointError(
            f"the {family.model_type} checkpoint holds two different tensors for one purpose: "
            f"{', '.join(conflicts)}"
        )
    return renamed
