"""Alignments: from messages to results."""

import numpy as np

from seqserve.client.model_messages import to_token
from seqserve.client.results import Alignment
from seqserve.v1 import generation_pb2


def to_alignment(message: generation_pb2.Alignment) -> Alignment:
    """What the tokens of a hypothesis came from."""
    num_targets, num_sources = len(message.target_tokens), len(message.source_tokens)
    return Alignment(
        source_tokens=tuple(map(to_token, message.source_tokens)),
        target_tokens=tuple(map(to_token, message.target_tokens)),
        source_indices=tuple(message.source_indices),
        weights=np.array(message.weights, np.float32).reshape(num_targets, num_sources),
    )
