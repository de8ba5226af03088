"""Requests to the tiny model."""

from seqserve.v1 import generation_pb2


def generate(**fields: object) -> generation_pb2.GenerateRequest:
    """A request to the tiny model."""
    return generation_pb2.GenerateRequest(**({"model_name": "tiny"} | fields))  # type: ignore[arg-type]
