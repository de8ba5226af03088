"""What a family of Hugging Face checkpoints is described by.

A family says how its configuration becomes ours and what its tensors are called; that is all that
is needed to map its checkpoints, since the architecture is ours.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from seqserve.task_record import Task
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.errors import UnsupportedError
from seqserve_export.families.weight_names import Renames
from seqserve_export.heads import HeadConfig
from seqserve_export.transformer_config import Activation

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadMapping:
    """One kind of head of a family."""

    to_config: Callable[[Any], HeadConfig]
    """From a configuration of ``transformers``."""
    renames: Renames
    """To names of :class:`~seqserve_export.heads.Head`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How the checkpoints of one architecture are read."""

    model_type: str
    """As in ``config.json``."""
    class_prefix: str
    """Of the class names of ``transformers``: "Bert" of ``BertForMaskedLM``."""
    weight_prefix: str
    """What encoder weights begin with in a checkpoint that has a head."""
    mask_token: str
    """Where the tokenizer's files do not name one."""
    to_encoder_config: Callable[[Any], EncoderConfig]
    """From a configuration of ``transformers``."""
    renames: Renames
    """Of encoder weights, to names of :class:`~seqserve_export.encoder_model.EncoderModel`."""
    unneeded: str
    """Pattern of the beginnings of weights that belong to heads, poolers and fixed tables; those
    the wanted head does not take are left out."""
    heads: dict[Task, HeadMapping]
    reshape: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda weights: weights
    """Splits tensors that hold several of ours, and the like, before renaming."""

    @property
    def architectures(self) -> dict[str, Task]:
        """What each supported class of ``transformers`` does."""
        return {f"{self.class_prefix}{ending}": task for ending, task in _ENDINGS.items()}


_ENDINGS = {
    "Model": Task.EMBED,
    "ForSequenceClassification": Task.CLASSIFY,
    "ForTokenClassification": Task.CLASSIFY_TOKENS,
    "ForMaskedLM": Task.FILL_MASK,
}


def to_activation(name: object, field: str) -> Activation:
    """The activation that a configuration names.

    Raises:
        UnsupportedError: We do not have it.
    """
    activation = _ACTIVATIONS.get(str(name))
    if activation is None:
        raise UnsupportedError(
            f'"{field}" {name!r} is not supported; supported are {", ".join(_ACTIVATIONS)}'
        )
    return activation


def to_head_size(model_size: int, num_heads: int, multiple: int = 8) -> int:
    """The width of an attention head.

    Raises:
        UnsupportedError: The attention operator cannot compute it.
    """
    if model_size % num_heads or model_size // num_heads % multiple:
        raise UnsupportedError(
            f"{num_heads} heads of a hidden size of {model_size}: the head size must be a "
            f"multiple of {multiple}"
        )
    return model_size // num_heads


def check_is_encoder(config: Any) -> None:
    """Checks that a configuration is that of a plain encoder with absolute positions.

    Raises:
        UnsupportedError: It is not.
    """
    if getattr(config, "is_decoder", False):
        raise UnsupportedError(
            f'a {config.model_type} decoder ("is_decoder": true) is not supported'
        )
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise UnsupportedError(
            f'"position_embedding_type" {positions!r} is not supported; supported is "absolute"'
        )
