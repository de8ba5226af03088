"""Requests of the Open Inference Protocol by their messages, for tests."""

import struct
from typing import Any

import grpc
import numpy as np
import pytest

from seqserve.inference_protocol.v2 import open_inference_pb2 as messages
from seqserve.inference_protocol.v2 import open_inference_pb2_grpc
from serving import RunningServer, status_of

Tensor = messages.ModelInferRequest.InferInputTensor
Contents = messages.InferTensorContents
Parameter = messages.InferParameter


def stub(running: RunningServer) -> Any:
    """What calls the server by this protocol."""
    return open_inference_pb2_grpc.GRPCInferenceServiceStub(running.channel)


def texts(*values: str, name: str = "text", shape: list[int] | None = None) -> Tensor:
    """A tensor of texts."""
    contents = Contents(bytes_contents=[value.encode() for value in values])
    return Tensor(name=name, datatype="BYTES", shape=shape or [len(values)], contents=contents)


def integers(name: str, values: Any, shape: list[int] | None = None) -> Tensor:
    """A tensor of integers."""
    array = np.array(values, np.int64)
    contents = Contents(int64_contents=array.ravel().tolist())
    return Tensor(name=name, datatype="INT64", shape=shape or list(array.shape), contents=contents)


def request(model: str, *inputs: Tensor, **fields: Any) -> messages.ModelInferRequest:
    """A request."""
    return messages.ModelInferRequest(model_name=model, inputs=inputs, **fields)


def pack(*values: bytes) -> bytes:
    """Elements of BYTES, each behind its length."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


async def refusal(running: RunningServer, message: messages.ModelInferRequest) -> str:
    """Code and text of a refused request."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(running).ModelInfer(message)
    return status_of(caught.value)


def outputs(*names: str) -> list[messages.ModelInferRequest.InferRequestedOutputTensor]:
    """What to return."""
    return [messages.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]
