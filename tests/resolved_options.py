"""Options as the server resolves them, and as it refuses them."""

from typing import Any

import pytest

from fakes import make_generation_record
from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.generate_options import GenerateOptions
from seqserve.servicers.options import resolve_options
from seqserve.v1 import generation_pb2

PATHS = ("options", "inputs[1].options")


def resolve(*layers: dict[str, Any], **record: Any) -> GenerateOptions:
    """Resolves options of the request, then of the input."""
    messages = [generation_pb2.GenerateOptions(**layer) for layer in layers]
    config = ServerConfig(max_num_beams=8)
    return resolve_options(
        list(zip(messages, PATHS, strict=False)), make_generation_record(**record), config
    )


def refusal(*layers: dict[str, Any]) -> tuple[str, str]:
    """Field and message with which options are refused."""
    with pytest.raises(InvalidRequestError) as caught:
        resolve(*layers)
    return caught.value.field, str(caught.value)
