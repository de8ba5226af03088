"""Encoder-decoder families of Hugging Face: which ``model_type`` is read by what.

Adding a family is adding a module, or a line to the table of an existing one.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from seqserve_export.families import bart, t5
from seqserve_export.transformer import Transformer

Reader = Callable[[Any, Mapping[str, Tensor]], Transformer]
"""From a configuration of ``transformers`` and weights to our model."""

ENCODER_DECODER_READERS: dict[str, Reader] = {
    **dict.fromkeys(bart.FAMILIES, bart.read_bart),
    **dict.fromkeys(t5.FAMILIES, t5.read_t5),
}
