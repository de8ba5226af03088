"""The Open Inference Protocol by its messages: encodings, refusals, streams, the end."""

import asyncio
import random
import struct
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from seqserve.inference_protocol.v2 import open_inference_pb2 as messages
from seqserve.inference_protocol.v2 import open_inference_pb2_grpc
from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2
from serving import MakeServer, RunningServer, status_of

PATIENCE_SECONDS = 20.0
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


async def test_both_encodings_give_the_same_in_their_own(serving: MakeServer) -> None:
    """Texts, integers and numbers: as fields, or as bytes where the request came as bytes."""
    names = [messages.ModelInferRequest.InferRequestedOutputTensor(name="embedding")]
    plain = request("sentence", texts("a b", "c"), outputs=names, id="x")
    packed = messages.ModelInferRequest()
    packed.CopyFrom(plain)
    packed.inputs[0].ClearField("contents")
    packed.raw_input_contents.append(pack(b"a b", b"c"))
    async with serving() as running:
        by_fields = await stub(running).ModelInfer(plain)
        by_bytes = await stub(running).ModelInfer(packed)
    assert (by_fields.id, by_fields.model_name, by_fields.model_version) == ("x", "sentence", "1")
    assert not by_fields.raw_output_contents
    (fields,), (data,) = by_fields.outputs, by_bytes.raw_output_contents
    assert (fields.name, fields.datatype, list(fields.shape)) == ("embedding", "FP32", [2, 32])
    assert not by_bytes.outputs[0].HasField("contents")
    assert data == np.array(fields.contents.fp32_contents, "<f4").tobytes()


async def test_all_outputs_in_both_encodings(serving: MakeServer) -> None:
    """Texts and counts of generation, too."""
    plain = request("tiny", texts("a b", "c"))
    packed = request("tiny", Tensor(name="text", datatype="BYTES", shape=[2]))
    packed.raw_input_contents.append(pack(b"a b", b"c"))
    async with serving() as running:
        by_fields = await stub(running).ModelInfer(plain)
        by_bytes = await stub(running).ModelInfer(packed)
    assert [one.name for one in by_fields.outputs] == [
        *("text", "token_count", "finish_reason", "hypothesis_count", "source_token_count"),
        "truncated_token_count",
    ]
    for tensor, data in zip(by_fields.outputs, by_bytes.raw_output_contents, strict=True):
        if tensor.datatype == "BYTES":
            assert data == pack(*tensor.contents.bytes_contents)
        else:
            assert data == np.array(tensor.contents.int_contents, "<i4").tobytes()


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
        "dimensions, normalize, priority, prompt_name, return_token_embeddings, stride, timeout, "
        "truncate, truncation_direction",
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
            outputs=[
                messages.ModelInferRequest.InferRequestedOutputTensor(name=name)
                for name in ("embedding", "embedding")
            ],
        ),
        "the output `embedding` is asked for 2 times",
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
    assert found == [f"INVALID_ARGUMENT: {expected}" for _, expected in REFUSALS]


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


async def test_every_option_of_generation_is_a_parameter(serving: MakeServer) -> None:
    """Lists, spans and numbers as the native request has them."""
    parameters = {
        "stop_sequences": Parameter(string_param='["zz", "q"]'),
        "suppressed_sequences": Parameter(string_param='["ba", [5, 6]]'),
        "suppressed_token_ids": Parameter(string_param="[7]"),
        "max_time": Parameter(double_param=20.0),
        "max_new_tokens": Parameter(uint64_param=6),
        "top_log_probability_count": Parameter(int64_param=2),
        "do_sample": Parameter(bool_param=True),
        "temperature": Parameter(int64_param=2),
        "seed": Parameter(int64_param=2**40),
        "num_return_sequences": Parameter(int64_param=3),
    }
    async with serving() as running:
        response = await stub(running).ModelInfer(
            request("tiny", texts("a b", "c"), parameters=parameters)
        )
    shapes = {one.name: list(one.shape) for one in response.outputs}
    assert shapes["text"] == shapes["token_count"] == [2, 3]
    assert shapes["top_token_ids"][:2] == [2, 3]
    assert shapes["top_token_ids"][3] == 2
    (seed,) = [one for one in response.outputs if one.name == "seed"]
    assert list(seed.contents.int64_contents) == [2**40] * 2


async def test_token_ids_of_heads_give_their_logits(heads: Path, serving: MakeServer) -> None:
    """What scores are made of: of texts, tokens, pairs with types, and masks."""
    async with serving(models=heads) as running:
        inference, encoding = stub(running), running.encoding
        labels = await encoding.Classify(
            encoding_pb2.ClassifyRequest(
                inputs=[encoding_pb2.ClassifyInput(text="the cat", text_pair="a dog")],
                return_logits=True,
            )
        )
        tokenizer = running.registry.find(Task.CLASSIFY, "", None).source_tokenizer
        framed = tokenizer.frame(tokenizer.split("the cat"), tokenizer.split("a dog"))
        of_pair = await inference.ModelInfer(
            request(
                "classify",
                integers("input_ids", [framed.ids]),
                integers("token_type_ids", [framed.type_ids]),
            )
        )
        ids = tokenizer.encode("the cat sat")
        width = len(ids) + 2
        rows = integers("input_ids", [[*ids, 0, 0], [*ids[:2], *[3] * (width - 2)]])
        lengths = integers("source_lengths", [len(ids), width])
        of_tokens = await inference.ModelInfer(request("classify_tokens", rows, lengths))
        of_ranks = await inference.ModelInfer(request("rerank", rows, lengths))
        masked = integers("input_ids", [[2, 4, 6, 4, 3], [2, 5, 4, 6, 3]])
        of_masks = await inference.ModelInfer(request("fill_mask", masked))
        unmasked = await refusal(running, request("fill_mask", integers("input_ids", [[2, 3]])))
    logits = dict(zip(labels_of(running, Task.CLASSIFY), floats(of_pair)[0], strict=True))
    assert {one.label: np.float32(one.logit) for one in labels.results[0].labels} == logits
    assert floats(of_tokens).shape == (2, width, 4)
    assert not floats(of_tokens)[0, len(ids) :].any()
    assert floats(of_ranks).shape == (2, 1)
    assert floats(of_masks).shape == (3, 90)
    assert list(of_masks.outputs[1].contents.int64_contents) == [0, 1, 0, 3, 1, 2]
    assert unmasked == (
        "INVALID_ARGUMENT: `input_ids[0]` must hold the mask token 4 at least once, but there is "
        "none"
    )


def labels_of(running: RunningServer, name: str) -> tuple[str, ...]:
    """The labels of a classifier, in the order of its logits."""
    record = running.registry.find(name, "", None).manifest.classification
    assert record is not None
    return record.labels


def floats(response: messages.ModelInferResponse) -> Any:
    """The first tensor."""
    tensor = response.outputs[0]
    return np.array(tensor.contents.fp32_contents, np.float32).reshape(tuple(tensor.shape))


async def test_large_replies_are_refused_before_they_are_computed(serving: MakeServer) -> None:
    """As those of texts are."""
    names = [messages.ModelInferRequest.InferRequestedOutputTensor(name="last_hidden_state")]
    async with serving(max_message_bytes=2048) as running:
        found = await refusal(
            running,
            request("sentence", integers("input_ids", [[2] * 20]), outputs=names),
        )
    assert found == (
        "INVALID_ARGUMENT: `input_ids` make a reply of 2560 bytes, but a message may have 2048 "
        "(max_message_bytes); send fewer or shorter rows"
    )


async def test_full_model_refuses_tensors_as_it_does_texts(serving: MakeServer) -> None:
    """Admission is that of all calls, and its metric, too."""
    async with serving(max_outstanding=2, max_inputs_per_request=2) as running:
        with running.registry.find("sentence", "", None).admission.admit(2):
            for tensor in (texts("a"), integers("input_ids", [[2, 3]])):
                assert await refusal(running, request("sentence", tensor)) == (
                    "RESOURCE_EXHAUSTED: 2 inputs are being worked on and 1 more would exceed the "
                    "limit of 2; try again later"
                )
        rejected = running.metrics.registry.get_sample_value(
            "seqserve_rejected_total",
            {"model_name": "sentence", "model_version": "1", "reason": "queue_full"},
        )
        statistics = await stub(running).ModelStatistics(
            messages.ModelStatisticsRequest(name="sentence")
        )
    assert rejected == 2
    assert statistics.model_stats[0].inference_stats.fail.count == 2


async def test_stream_answers_encoders_in_order_and_marks_errors(serving: MakeServer) -> None:
    """More requests than are answered at a time; malformed bytes are an error of their own."""
    good = [request("sentence", texts(*["a b"] * (1 + n % 3)), id=str(n)) for n in range(40)]
    async with serving() as running:
        call: Any = running.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=bytes,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )
        data = [one.SerializeToString() for one in good]
        responses = [one async for one in call(iter([*data[:20], b"\xff\xff", *data[20:]]))]
        assert running.num_outstanding == 0
    assert responses.pop(20).error_message == "the request's bytes are not a message of its type"
    assert [one.infer_response.id for one in responses] == [str(n) for n in range(40)]
    assert [one.infer_response.outputs[0].shape[0] for one in responses] == [
        1 + n % 3 for n in range(40)
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            request("tiny", texts("a", "b")),
            "a request of a stream must have one input, but has 2; send one request for each, or "
            "call ModelInfer",
        ),
        (
            request(
                "tiny",
                texts("a"),
                parameters={
                    "num_return_sequences": Parameter(int64_param=2),
                    "num_beams": Parameter(int64_param=2),
                },
            ),
            "`num_return_sequences` must be 1 in a stream, but is 2; call ModelInfer for several",
        ),
        (
            request("tiny", texts("a " * 90)),
            "`text` must have at most 40 tokens, but has 91; shorten it, or set `truncate` to have "
            "its end cut",
        ),
    ],
)
async def test_stream_refuses_what_has_no_pieces(
    message: messages.ModelInferRequest, expected: str, serving: MakeServer
) -> None:
    """The error is the last response of its request, and carries its id."""
    message.id = "m"
    async with serving() as running:
        (response,) = [one async for one in stub(running).ModelStreamInfer(iter([message]))]
    assert response.error_message == expected
    assert response.infer_response.id == "m"
    assert response.infer_response.parameters["triton_final_response"].bool_param


async def test_stream_returns_the_outputs_that_are_asked_for(serving: MakeServer) -> None:
    """Token ids with the pieces, the score at the end."""
    names = [
        messages.ModelInferRequest.InferRequestedOutputTensor(name=name)
        for name in ("token_ids", "score")
    ]
    message = request(
        "tiny",
        texts("a b c"),
        outputs=names,
        parameters={"triton_enable_empty_final_response": Parameter(bool_param=True)},
    )
    async with serving() as running:
        responses = [one async for one in stub(running).ModelStreamInfer(iter([message]))]
        whole = await stub(running).ModelInfer(request("tiny", texts("a b c"), outputs=names))
    *pieces, last = [one.infer_response for one in responses]
    assert all([one.name for one in piece.outputs] == ["token_ids"] for piece in pieces)
    token_ids = [token for piece in pieces for token in piece.outputs[0].contents.int64_contents]
    assert token_ids == list(whole.outputs[0].contents.int64_contents)
    assert [one.name for one in last.outputs] == ["token_ids", "score"]
    assert last.outputs[1] == whole.outputs[1]


async def test_unexpected_errors_of_a_stream_leak_nothing(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is told without its text, and the stream goes on."""
    async with serving() as running:

        def explode(*args: object, **kwargs: object) -> None:
            raise RuntimeError("secret path")

        monkeypatch.setattr(running.registry.find("sentence", "", None).lanes, "submit", explode)
        requests = [request("sentence", texts("a")), request("tiny", texts("a"))]
        responses = [one async for one in stub(running).ModelStreamInfer(iter(requests))]
    errors = [one.error_message for one in responses if one.error_message]
    assert errors == ["internal error; the server's log has the details under this request id"]
    assert responses[-1].infer_response.parameters["triton_final_response"].bool_param


async def test_stream_that_is_left_gives_its_places_back(serving: MakeServer) -> None:
    """Nobody waits for its responses any more."""
    async with serving() as running:
        stream = stub(running).ModelStreamInfer(
            iter([request("long", texts("a b c d " * 20))] * 30)
        )
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding:
                await asyncio.sleep(0)


async def test_shutdown_ends_streams_and_says_not_ready(serving: MakeServer) -> None:
    """Probes are answered while calls are finished; others are sent elsewhere."""
    async with serving(drain_seconds=PATIENCE_SECONDS) as running:
        inference = stub(running)
        stream = inference.ModelStreamInfer()
        await stream.write(request("sentence", texts("a")))
        assert (await stream.read()).infer_response.outputs
        with running.registry.find("tiny", "", None).admission.admit(1):
            running.server._calls._draining.set()
            await running.server._announce(2)
            assert (await inference.ServerLive(messages.ServerLiveRequest())).live
            assert not (await inference.ServerReady(messages.ServerReadyRequest())).ready
            model = messages.ModelReadyRequest(name="tiny")
            assert not (await inference.ModelReady(model)).ready
            assert (await refusal(running, request("tiny", texts("a")))).startswith("UNAVAILABLE")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_lost_model_is_listed_with_its_reason(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNAVAILABLE and not ready, and left out where only ready ones are wanted."""
    async with serving() as running:
        inference = stub(running)
        for worker in running.registry.find("tiny", "", None).lanes.workers:
            monkeypatch.setattr(worker, "_failure", RuntimeError())
        index = await inference.RepositoryIndex(messages.RepositoryIndexRequest())
        ready = await inference.RepositoryIndex(messages.RepositoryIndexRequest(ready=True))
        answer = await inference.ModelReady(messages.ModelReadyRequest(name="tiny"))
    assert [(one.name, one.state, one.reason) for one in index.models] == [
        ("long", "READY", ""),
        ("sentence", "READY", ""),
        ("tiny", "UNAVAILABLE", "its worker was lost; the server must restart"),
    ]
    assert [one.name for one in ready.models] == ["long", "sentence"]
    assert not answer.ready


@pytest.mark.parametrize(
    ("method", "message", "expected"),
    [
        (
            "RepositoryIndex",
            messages.RepositoryIndexRequest(repository_name="other"),
            "INVALID_ARGUMENT: `repository_name` must be empty, since there is one store, but is "
            "'other'",
        ),
        (
            "RepositoryModelLoad",
            messages.RepositoryModelLoadRequest(),
            "INVALID_ARGUMENT: `model_name` must not be empty",
        ),
        (
            "RepositoryModelLoad",
            messages.RepositoryModelLoadRequest(
                model_name="tiny",
                parameters={"config": messages.ModelRepositoryParameter(string_param="{}")},
            ),
            "INVALID_ARGUMENT: the parameter `config` is not supported: a model is what its folder "
            "in the store says; leave it out",
        ),
        (
            "RepositoryModelUnload",
            messages.RepositoryModelUnloadRequest(
                model_name="tiny",
                parameters={
                    "unload_dependents": messages.ModelRepositoryParameter(bool_param=True)
                },
            ),
            "INVALID_ARGUMENT: the parameter `unload_dependents` is not supported: no model "
            "depends on another; leave it out",
        ),
        (
            "ModelMetadata",
            messages.ModelMetadataRequest(name="nope"),
            "NOT_FOUND: there is no model 'nope'; there are: long, sentence, tiny",
        ),
        (
            "ModelStatistics",
            messages.ModelStatisticsRequest(name="tiny", version="2"),
            "NOT_FOUND: model 'tiny' has no version '2'; it has: 1",
        ),
    ],
)
async def test_other_calls_are_refused_alike(
    method: str, message: Any, expected: str, serving: MakeServer
) -> None:
    """What was wrong, and what there is."""
    async with serving() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub(running), method)(message)
    assert status_of(caught.value) == expected
