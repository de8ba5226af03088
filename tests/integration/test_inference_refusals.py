"""Refusals of requests of tensors: the tensor or parameter, the rule and the value."""

import random
from typing import Any

import grpc

from inference_messages import (
    Contents,
    Parameter,
    Tensor,
    integers,
    outputs,
    pack,
    refusal,
    request,
    texts,
)
from seqserve.inference_protocol.v2 import open_inference_pb2 as messages
from serving import MakeServer

RAW = Tensor(name="text", datatype="BYTES", shape=[2])
REFUSALS: list[tuple[messages.ModelInferRequest, str]] = [
    (
        request("sentence"),
        "the inputs are none, but this model takes text; or input_ids [attention_mask] "
        "[source_lengths] [token_type_ids]",
    ),
    (
        request("sentence", texts("a"), integers("input_ids", [[2, 3]])),
        "the inputs are text, input_ids, but this model takes text; or input_ids [attention_mask] "
        "[source_lengths] [token_type_ids]",
    ),
    (request("sentence", texts("a"), texts("b")), "the input `text` is given 2 times"),
    (
        request("sentence", texts("a", name="inputs")),
        "`inputs` is no input of this model; it takes text; or input_ids [attention_mask] "
        "[source_lengths] [token_type_ids]",
    ),
    (
        request("sentence", texts("a", name="x" * 100_000)),
        f"`{'x' * 77}...` is no input of this model; it takes text; or input_ids [attention_mask] "
        "[source_lengths] [token_type_ids]",
    ),
    (
        request("sentence", texts("a"), raw_input_contents=[b"", b""]),
        "`raw_input_contents` must have an entry for each of the 1 inputs, but has 2",
    ),
    (
        request("sentence", texts("a"), raw_input_contents=[pack(b"a")]),
        "`text` has both `contents` and `raw_input_contents`; leave one of them out",
    ),
    (
        request("sentence", RAW, raw_input_contents=[pack(b"a")]),
        "`text` has 2 elements by its shape, but its 5 bytes end before or within element 1",
    ),
    (
        request("sentence", RAW, raw_input_contents=[pack(b"a", b"b")[:-1]]),
        "`text` has 2 elements by its shape, but its 9 bytes end before or within element 1",
    ),
    (
        request("sentence", RAW, raw_input_contents=[pack(b"a", b"b", b"c")]),
        "`text` has 2 elements by its shape, which end after 10 bytes, but it has 15",
    ),
    (
        request("sentence", RAW, raw_input_contents=[pack(b"a", b"\xff")]),
        "`text[1]` is not UTF-8: invalid start byte",
    ),
    (
        request("sentence", texts("a", shape=[2])),
        "`text` of shape [2] must have 2 elements, but has 1",
    ),
    (
        request("sentence", texts("a", shape=[1, 1])),
        "`text` must have the shape [any], but has [1, 1]",
    ),
    (request("sentence", texts("a", shape=[-1])), "`text` must have the shape [any], but has [-1]"),
    (request("sentence", texts(shape=[0])), "`text` must not be empty"),
    (
        request("sentence", texts(*["a"] * 257)),
        "`text` must hold at most 256 entries (max_inputs_per_request), but holds 257",
    ),
    (
        request("sentence", Tensor(name="text", datatype="FP32", shape=[1])),
        "`text` must have the datatype BYTES, but has FP32",
    ),
    (
        request(
            "sentence",
            Tensor(
                name="text", datatype="BYTES", shape=[1], contents=Contents(fp32_contents=[1.0])
            ),
        ),
        "`text` of BYTES must have its elements in `bytes_contents`, but has some in "
        "`fp32_contents`",
    ),
    (
        request(
            "sentence",
            Tensor(name="input_ids", datatype="INT64", shape=[1, 2]),
            raw_input_contents=[b"1234"],
        ),
        "`input_ids` of INT64 [1, 2] must have 16 bytes, but has 4",
    ),
    (
        request("sentence", integers("input_ids", [[2, 99]])),
        "`input_ids[0][1]` must be at least 0 and below 33, but is 99",
    ),
    (
        request("sentence", integers("input_ids", [[2, -1]])),
        "`input_ids[0][1]` must be an id of the vocabulary, but is -1",
    ),
    (
        request("sentence", integers("input_ids", [[2] * 33])),
        "`input_ids[0]` must have at most 32 tokens, but has 33; token ids are never cut: shorten "
        "it",
    ),
    (
        request("sentence", integers("input_ids", [], shape=[1, 0])),
        "`input_ids` must not be empty, but has shape [1, 0]",
    ),
    (
        request("sentence", integers("input_ids", [[2, 3]]), integers("attention_mask", [[0, 1]])),
        "`attention_mask[0]` must be ones for the tokens, at least one, and zeros behind them: "
        "padding is on the right",
    ),
    (
        request("sentence", integers("input_ids", [[2, 3]]), integers("attention_mask", [[1]])),
        "`attention_mask` must have the shape [1, 2] to fit to the other inputs, but has [1, 1]",
    ),
    (
        request("sentence", integers("input_ids", [[2, 3]]), integers("source_lengths", [3])),
        "`source_lengths[0]` must be at least 1 and at most 2, the width of `input_ids`, but is 3",
    ),
    (
        request(
            "sentence",
            integers("input_ids", [[2, 3]]),
            integers("source_lengths", [2]),
            integers("attention_mask", [[1, 1]]),
        ),
        "`source_lengths` and `attention_mask` say the same; leave one out",
    ),
    (
        request("sentence", integers("input_ids", [[2, 3]]), integers("token_type_ids", [[0, 1]])),
        "`token_type_ids[0][1]` must be 0, since this model tells no types apart, but is 1",
    ),
    (
        request("sentence", texts("a"), parameters={"normalize": Parameter()}),
        "the parameter `normalize` has no value",
    ),
    (
        request("sentence", texts("a"), parameters={"normalize": Parameter(int64_param=1)}),
        "`normalize` must be true or false, but is 1",
    ),
    (
        request("sentence", texts("a"), parameters={"stride": Parameter(int64_param=2**40)}),
        "`stride` must be at least -2147483648 and below 2147483648, but is 1099511627776",
    ),
    (
        request(
            "sentence",
            texts("a"),
            parameters={"truncation_direction": Parameter(string_param="up")},
        ),
        "`truncation_direction` must be one of 'right', 'left', but is 'up'",
    ),
    (
        request("sentence", texts("a"), parameters={"timeout": Parameter(int64_param=-1)}),
        "`timeout` must be a number of microseconds, or 0 for none, but is -1",
    ),
    (
        request(
            "sentence",
            texts("a"),
            parameters={"triton_enable_empty_final_response": Parameter(bool_param=True)},
        ),
        "`triton_enable_empty_final_response` is no parameter for these inputs; there are: "
        "dimensions, max_active_dims, normalize, priority, prompt_name, return_token_embeddings, "
        "return_windows, stride, timeout, truncate, truncation_direction",
    ),
    (
        request(
            "sentence",
            Tensor(
                name="text",
                datatype="BYTES",
                shape=[1],
                parameters={"shared_memory_region": Parameter(string_param="r")},
            ),
        ),
        "the input `text` has the parameter `shared_memory_region`, but shared memory is not "
        "supported; send the data in the request",
    ),
    (
        request(
            "sentence",
            texts("a"),
            outputs=[
                messages.ModelInferRequest.InferRequestedOutputTensor(
                    name="embedding", parameters={"classification": Parameter(int64_param=3)}
                )
            ],
        ),
        "the output `embedding` has the parameter `classification`, but the best classes are asked "
        "for by the parameter `top_k` of the request",
    ),
    (
        request(
            "sentence",
            texts("a"),
            outputs=outputs("embedding", "embedding"),
        ),
        "the output `embedding` is asked for 2 times",
    ),
    (
        request("sentence", texts("a"), parameters={"return_windows": Parameter(bool_param=True)}),
        "`return_windows` has an effect with `stride` only; set `stride`, or leave it out",
    ),
    (
        request("tiny", texts("a", "b"), texts("x", name="target_prefix")),
        "`target_prefix` must have the shape [2] to fit to the other inputs, but has [1]",
    ),
    (
        request("tiny", texts("a", "b"), texts("de", "", name="source_language")),
        "`source_language[0]` must not be set: the model is not told languages",
    ),
    (
        request(
            "tiny",
            texts("a"),
            texts("de", name="source_language"),
            parameters={"source_language": Parameter(string_param="de")},
        ),
        "`source_language` is given as input and as parameter; leave one of them out",
    ),
    (
        request("tiny", texts("a"), parameters={"stop_sequences": Parameter(string_param=".")}),
        "`stop_sequences` must be a list, as JSON in a text, but is '.'",
    ),
    (
        request(
            "tiny", texts("a"), parameters={"stop_sequences": Parameter(string_param='["\\ud800"]')}
        ),
        "`stop_sequences` must be a list of texts, as JSON in a text, but is '[\"\\\\ud800\"]'",
    ),
    (
        request(
            "tiny", texts("a"), parameters={"suppressed_token_ids": Parameter(string_param="[1.5]")}
        ),
        "`suppressed_token_ids` must be a list of ids, as JSON in a text, but is '[1.5]'",
    ),
    (
        request("tiny", texts("a"), parameters={"max_time": Parameter(double_param=float("inf"))}),
        "`max_time` must be a number of seconds of at most 1e+09, but is inf",
    ),
    (
        request("tiny", texts("a"), parameters={"length_penalty": Parameter(string_param="1")}),
        "`length_penalty` must be a number, but is '1'",
    ),
    (
        request("tiny", integers("input_ids", [[2, 2**31]])),
        "`input_ids[0][1]` must be an id of the vocabulary, but is 2147483648",
    ),
    (
        request("tiny", integers("input_ids", [[2, 77]])),
        "`input_ids[0][1]` must be at least 0 and below 30, but is 77",
    ),
]


async def test_refusals_say_what_is_wrong(serving: MakeServer) -> None:
    """The tensor or parameter, the rule and the value."""
    async with serving() as running:
        found = [await refusal(running, message) for message, _ in REFUSALS]
        assert running.num_outstanding == 0
        parameters = {"return_alignments": Parameter(bool_param=True)}
        aligned = await refusal(running, request("tiny", texts("a"), parameters=parameters))
    assert found == [f"INVALID_ARGUMENT: {expected}" for _, expected in REFUSALS]
    # What seqserve.v1 alone can tell.
    assert aligned.startswith("INVALID_ARGUMENT: `return_alignments` is no parameter for these")


async def test_requests_with_random_bytes_in_them_are_answered(serving: MakeServer) -> None:
    """With a result, or with what is wrong with them; never with INTERNAL or UNKNOWN."""
    rng = random.Random(1)
    whole = [message.SerializeToString() for message, _ in REFUSALS]
    codes = set()
    async with serving() as running:
        call: Any = running.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=bytes,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        for _ in range(400):
            data = bytearray(rng.choice(whole))
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                await call(bytes(data))
            except grpc.aio.AioRpcError as error:
                codes.add(error.code().name)
        assert running.num_outstanding == 0
    assert codes <= {"INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"}
