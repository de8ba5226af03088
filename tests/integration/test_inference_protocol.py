"""The Open Inference Protocol by its messages: encodings, token ids, limits, models."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inference_messages import (
    Parameter,
    Tensor,
    integers,
    outputs,
    pack,
    refusal,
    request,
    stub,
    texts,
)
from seqserve.inference_protocol.v2 import open_inference_pb2 as messages
from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2
from serving import MakeServer, RunningServer, status_of


async def test_both_encodings_give_the_same_in_their_own(serving: MakeServer) -> None:
    """Texts, integers and numbers: as fields, or as bytes where the request came as bytes."""
    names = outputs("embedding")
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


async def test_windows_of_long_texts_are_tensors(serving: MakeServer) -> None:
    """As many as the longest text has; ``window_count`` tells how many are those of a text."""
    long = "a b c d e f " * 8
    parameters = {
        "stride": Parameter(int64_param=4),
        "return_windows": Parameter(bool_param=True),
    }
    async with serving() as running:
        response = await stub(running).ModelInfer(
            request("sentence", texts(long, "a"), parameters=parameters)
        )
        expected = await running.encoding.Embed(
            encoding_pb2.EmbedRequest(
                model_name="sentence", inputs=[long, "a"], stride=4, return_windows=True
            )
        )
    tensors = {one.name: one for one in response.outputs}
    windows = expected.embeddings[0].windows
    assert len(windows) > 1
    assert list(tensors["window_count"].contents.int_contents) == [len(windows), 1]
    assert list(tensors["window_embedding"].shape) == [2, len(windows), 32]
    values = [value for one in windows for value in one.values]
    assert list(tensors["window_embedding"].contents.fp32_contents)[: len(values)] == values
    ends = [one.end_offset for one in windows]
    assert list(tensors["window_end_offset"].contents.int_contents)[: len(windows)] == ends


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
    names = outputs("last_hidden_state")
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
