"""Puts renamed weights into a new Transformer, without a second copy of them in memory."""

from collections.abc import Mapping

import torch
from torch import Tensor

from seqserve_export.transformer import Transformer
from seqserve_export.transformer_config import TransformerConfig
from seqserve_export.weights import check_fit


def make_transformer(
    config: TransformerConfig, weights: Mapping[str, Tensor], what: str
) -> Transformer:
    """Makes the model around the tensors themselves, as fp32, in evaluation mode.

    Args:
        config: The architecture.
        weights: By our names; a tensor that two parts share is there once, under its first name.
        what: Where the weights come from, to begin the message with.

    Raises:
        CheckpointError: Lists every tensor that is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        model = Transformer(config)
    expected = {}
    for name, parameter in model.named_parameters():  # shared ones once
        if parameter.requires_grad:  # sinusoids are computed, not stored
            expected[name] = parameter
    check_fit(expected, weights, what)
    floats = {name: weights[name].float() for name in expected}
    model.load_state_dict(floats, strict=False, assign=True)
    # Assigning replaced the parameters that were shared; the ties are made anew.
    if config.has_shared_embedding:
        model.target_embedding.token = model.source_embedding.token
    if config.has_tied_head:
        model.head.weight = model.target_embedding.token.weight
    return model.eval()
