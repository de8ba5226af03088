"""The client of Triton in a process of its own: reads calls from stdin, writes what came of them.

A process, since that client registers the protocol's messages under the names that the server's
have. It is used as it is published; our own client can be imported beside it.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

import seqserve.client

Call = dict[str, Any]
_REQUEST = ("inputs", "outputs")
_STREAM_SECONDS = 20.0


def main() -> None:
    """Makes the calls one after another."""
    job = json.load(sys.stdin)
    assert seqserve.client.Client is not None
    results: Any
    if job["kind"] == "messages":
        results = _describe_messages()
    elif job["kind"] == "sync":
        results = [_call(job["target"], call) for call in job["calls"]]
    else:
        results = asyncio.run(_call_async(job["target"], job["calls"]))
    json.dump(results, sys.stdout)


def _describe_messages() -> Any:
    """Fields and RPCs of the protocol, as the client knows them."""
    file = service_pb2.DESCRIPTOR
    found = list(file.message_types_by_name.values())
    fields = {}
    for message in found:
        found += message.nested_types
        fields[message.full_name] = {
            one.name: [one.number, one.type, one.is_repeated] for one in message.fields
        }
    (service,) = file.services_by_name.values()
    return {
        "fields": fields,
        "methods": {
            one.name: [one.input_type.full_name, one.output_type.full_name]
            for one in service.methods
        },
    }


def _call(target: str, call: Call) -> Any:
    with triton.InferenceServerClient(target) as client:
        if call["method"] == "stream":
            return _stream(client, call["requests"])
        try:
            return _to_json(getattr(client, call["method"])(**_arguments(call)))
        except InferenceServerException as error:
            return _to_error(error)


def _stream(client: Any, requests: list[Call]) -> list[Any]:
    results: list[Any] = []

    def on_response(result: Any, error: Any) -> None:
        results.append(_to_json(result) if error is None else _to_error(error))

    client.start_stream(on_response)
    for request in requests:
        client.async_stream_infer(**_arguments(request))
    client.stop_stream()
    return results


async def _call_async(target: str, calls: list[Call]) -> list[Any]:
    async with triton_aio.InferenceServerClient(target) as client:
        return [await _call_one_async(client, call) for call in calls]


async def _call_one_async(client: Any, call: Call) -> Any:
    try:
        if call["method"] == "stream":
            return await _stream_async(client, call["requests"])
        return _to_json(await getattr(client, call["method"])(**_arguments(call)))
    except InferenceServerException as error:
        return _to_error(error)


async def _stream_async(client: Any, requests: list[Call]) -> list[Any]:
    async def make() -> AsyncIterator[Call]:
        for request in requests:
            yield _arguments(request)

    responses = client.stream_infer(make(), stream_timeout=_STREAM_SECONDS)
    return [
        _to_json(result) if error is None else _to_error(error) async for result, error in responses
    ]


def _arguments(call: Call) -> Call:
    arguments = {name: value for name, value in call.items() if name not in ("method", *_REQUEST)}
    if "inputs" in call:
        arguments["inputs"] = [_to_input(*one) for one in call["inputs"]]
    if "outputs" in call:
        arguments["outputs"] = [triton.InferRequestedOutput(name) for name in call["outputs"]]
    return arguments


def _to_input(name: str, datatype: str, values: list[Any]) -> Any:
    array = np.array(values, object if datatype == "BYTES" else triton_to_np_dtype(datatype))
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def _to_json(result: Any) -> Any:
    if not isinstance(result, triton.InferResult):
        return result
    response = result.get_response()
    return {
        "id": response.id,
        "model": f"{response.model_name}/{response.model_version}",
        "parameters": {name: one.bool_param for name, one in response.parameters.items()},
        "outputs": {one.name: _to_list(result.as_numpy(one.name)) for one in response.outputs},
    }


def _to_list(values: Any) -> Any:
    if values.dtype == object:
        values = np.vectorize(lambda one: one.decode(), otypes=[object])(values)
    return values.tolist()


def _to_error(error: Any) -> Call:
    return {"error": error.message(), "status": error.status()}


if __name__ == "__main__":
    main()
