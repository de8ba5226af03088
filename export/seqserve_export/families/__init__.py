"""Encoder families of Hugging Face: which ``model_type`` is read by what.

A reader takes the folder's ``config.json`` and its weights and returns our model with the weights
in it. Adding a family is adding a module and a line to the table.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from seqserve_export.encoder_model import EncoderModel
from seqserve_export.errors import UnsupportedError
from seqserve_export.families.bert import read_bert

EncoderReader = Callable[[Mapping[str, Any], dict[str, Tensor]], EncoderModel]

ENCODER_READERS: dict[str, EncoderReader] = {
    "bert": read_bert,
}


def read_encoder(config: Mapping[str, Any], weights: dict[str, Tensor]) -> EncoderModel:
    """Maps a Hugging Face encoder into our model, in evaluation mode.

    Raises:
        UnsupportedError: The family, or something its configuration asks for, is not supported.
        CheckpointError: The configuration is malformed or the weights do not fit it.
    """
    family = config.get("model_type")
    reader = ENCODER_READERS.get(str(family))
    if reader is None:
        raise UnsupportedError(
            f'"model_type" is {family!r}; supported are: {", ".join(sorted(ENCODER_READERS))}'
        )
    model = reader(config, weights)
    model.eval()
    return model
