"""Tensors and parameters as requests of our own, before anything answers them."""

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.protobuf.json_format import MessageToDict

from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol import (
    classification,
    embedding,
    generation,
    mask_filling,
    reranking,
    token_classification,
)
from seqserve.inference_protocol.parameter import read_parameters, set_fields
from seqserve.inference_protocol.signature import stack, stack_texts
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.v1 import encoding_pb2, generation_pb2

COMMON = {"model_name", "model_version", "inputs", "input", "options", "priority"}
"""Fields that are no parameters: tensors, and what every request has."""


@dataclasses.dataclass
class FakeManifest:
    """A name."""

    name: str = "m"
    version: str = "3"


@dataclasses.dataclass
class FakeModel:
    """A model that can only be named."""

    manifest: FakeManifest = dataclasses.field(default_factory=FakeManifest)


class FakeGeneration:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.request = generation_pb2.GenerateRequest()
        self.hypothesis = generation_pb2.Hypothesis(text="x", score=1.0)

    async def Generate(  # noqa: N802
        self, request: generation_pb2.GenerateRequest, context: object
    ) -> generation_pb2.GenerateResponse:
        """Answers each input with nothing generated."""
        self.request = request
        result = generation_pb2.GenerateResult(hypotheses=[self.hypothesis])
        return generation_pb2.GenerateResponse(results=[result] * len(request.inputs))


@dataclasses.dataclass
class FakeServices:
    """What answers."""

    generation: FakeGeneration = dataclasses.field(default_factory=FakeGeneration)


@dataclasses.dataclass
class FakeCall:
    """A call that was read."""

    tensors: dict[str, Any]
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    priority: int = 0
    context: Any = None
    model: FakeModel = dataclasses.field(default_factory=FakeModel)
    services: FakeServices = dataclasses.field(default_factory=FakeServices)

    def texts(self, name: str) -> list[str]:
        """The texts of a tensor."""
        return list(self.tensors.get(name, ()))


def generate(**arguments: Any) -> generation_pb2.GenerateRequest:
    """The request that is made of a call."""
    call: Any = FakeCall(**arguments)
    asyncio.run(generation.generate(call))
    request: generation_pb2.GenerateRequest = call.services.generation.request
    return request


def to_texts(*values: str) -> Any:
    """A tensor of texts."""
    return np.array(values, object)


def test_languages_and_prefixes_go_with_their_inputs() -> None:
    """As tensors one for each, as parameter the same for all; an empty prefix is none."""
    request = generate(
        tensors={
            "text": to_texts("a", "b"),
            "target_language": to_texts("de", "fr"),
            "target_prefix": to_texts("x", ""),
        },
        parameters={"source_language": "en", "truncate": True},
        priority=3,
    )
    assert (request.model_name, request.model_version) == ("m", "3")
    assert (request.truncate, request.priority) == (True, 3)
    assert [MessageToDict(one) for one in request.inputs] == [
        {
            "text": "a",
            "sourceLanguage": "en",
            "targetLanguage": "de",
            "targetPrefixText": "x",
        },
        {"text": "b", "sourceLanguage": "en", "targetLanguage": "fr"},
    ]
    assert not request.HasField("options")


def test_token_ids_go_without_their_padding() -> None:
    """By the mask, or by the lengths."""
    ids = np.array([[4, 5, 1], [6, 1, 0]])
    for name, values in (
        ("attention_mask", [[1, 1, 1], [1, 1, 0]]),
        ("source_lengths", [3, 2]),
    ):
        request = generate(tensors={"input_ids": ids, name: np.array(values)})
        rows = [list(one.token_ids.values) for one in request.inputs]
        assert rows == [[4, 5, 1], [6, 1]]


def test_parameters_become_options_of_their_types() -> None:
    """Lists are JSON, spans are seconds, numbers may be integers."""
    parameters = {
        "num_beams": 4,
        "length_penalty": 2,
        "early_stopping": True,
        "stop_sequences": '["a", "b"]',
        "suppressed_token_ids": "[1, 2]",
        "suppressed_sequences": '["foo", [3, 4]]',
        "max_time": 1.5,
        "seed": 2**40,
    }
    request = generate(
        tensors={"text": to_texts("a")},
        parameters=parameters,
        asked=frozenset({"score", "token_log_probabilities"}),
    )
    assert request.options == generation_pb2.GenerateOptions(
        num_beams=4,
        length_penalty=2.0,
        early_stopping=True,
        stop_sequences=["a", "b"],
        suppressed_token_ids=[1, 2],
        suppressed_sequences=[
            generation_pb2.SuppressedSequence(text="foo"),
            generation_pb2.SuppressedSequence(token_ids=generation_pb2.TokenIds(values=[3, 4])),
        ],
        max_time=duration_pb2.Duration(seconds=1, nanos=500_000_000),
        seed=2**40,
        return_scores=True,
        return_token_log_probabilities=True,
    )


def test_what_is_asked_for_is_there_without_tokens() -> None:
    """A target that time ended before its first token has no score; a missing one is empty."""
    call: Any = FakeCall(
        tensors={"text": to_texts("a", "b")},
        parameters={"num_return_sequences": 2, "top_log_probability_count": 3},
        asked=frozenset({"score", "token_log_probabilities"}),
    )
    call.services.generation.hypothesis.ClearField("score")
    tensors = asyncio.run(generation.generate(call))
    assert tensors["text"].tolist() == [["x", ""], ["x", ""]]
    assert tensors["hypothesis_count"].tolist() == [1, 1]
    assert np.isnan(tensors["score"]).all()
    assert tensors["token_log_probabilities"].shape == (2, 2, 0)
    assert tensors["top_token_ids"].shape == (2, 2, 0, 0)


def test_an_empty_list_of_labels_is_set() -> None:
    """It means that none is ignored, which is not the default."""
    request = encoding_pb2.ClassifyTokensRequest()
    set_fields(request, {"ignore_labels": "[]", "aggregation_strategy": "max", "stride": 3})
    assert request.HasField("ignore_labels")
    assert request.aggregation_strategy == encoding_pb2.AGGREGATION_STRATEGY_MAX
    assert request.stride == 3


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("suppressed_sequences", "[3]", "a list of texts or lists of ids, as JSON in a text"),
        ("suppressed_sequences", '[["a"]]', "a list of ids, as JSON in a text"),
        ("suppressed_token_ids", "[true]", "a list of ids, as JSON in a text"),
        ("suppressed_token_ids", f"[{2**31}]", "a list of ids, as JSON in a text"),
        ("stop_sequences", "[" * 100_000, "a list, as JSON in a text"),
        ("stop_sequences", '{"a": 1}', "a list, as JSON in a text"),
        ("stop_sequences", True, "a list, as JSON in a text"),
        ("stop_sequences", "[1]", "a list of texts, as JSON in a text"),
        ("max_time", "1s", "a number of seconds"),
        ("temperature", False, "a number"),
        ("num_beams", 1.5, "an integer"),
        ("num_beams", 2**31, "at least -2147483648 and below 2147483648"),
        ("seed", 2**63, "at least -9223372036854775808 and below 9223372036854775808"),
        ("do_sample", 1, "true or false"),
    ],
)
def test_values_of_other_types_are_refused(name: str, value: Any, expected: str) -> None:
    """With the parameter, what it must be, and what it is."""
    with pytest.raises(InvalidRequestError) as caught:
        set_fields(generation_pb2.GenerateOptions(), {name: value})
    assert caught.value.field == name
    assert str(caught.value).startswith(f"`{name}` must be {expected}, but is ")


def test_parameters_are_read_whatever_their_kind() -> None:
    """All five there are."""
    kinds: list[tuple[str, Any]] = [
        *(("bool_param", True), ("int64_param", -1), ("string_param", "a")),
        *(("double_param", 0.5), ("uint64_param", 2**63)),
    ]
    parameters = {name: open_inference_pb2.InferParameter(**{name: value}) for name, value in kinds}
    assert read_parameters(parameters) == dict(kinds)


@pytest.mark.parametrize(
    ("messages", "module", "tensors"),
    [
        (
            (generation_pb2.GenerateOptions, generation_pb2.GenerateRequest),
            generation,
            # Alignments have no tensor: of each hypothesis they have another shape.
            {"return_alignments"},
        ),
        (
            (encoding_pb2.EmbedRequest,),
            embedding,
            # Tokens of sparse embeddings have no tensor: these are given with their zeros.
            {"return_token_embeddings", "return_tokens", "return_windows"},
        ),
        ((encoding_pb2.ClassifyRequest,), classification, {"return_logits"}),
        ((encoding_pb2.ClassifyTokensRequest,), token_classification, set()),
        (
            (encoding_pb2.RerankRequest,),
            reranking,
            {"query", "documents", "return_documents"},
        ),
        ((encoding_pb2.FillMaskRequest,), mask_filling, {"return_sequences"}),
    ],
)
def test_every_field_of_a_request_is_there(messages: Any, module: Any, tensors: set[str]) -> None:
    """As parameter, as tensor, or by asking for an output; one that is added is not forgotten."""
    fields = {field.name for message in messages for field in message.DESCRIPTOR.fields}
    if module is generation:
        (signature, _) = generation.generation_signatures(FakeModel())  # type: ignore[arg-type]
        known = {*signature.parameters, *(one.flag for one in signature.outputs), *tensors}
    else:
        known = {*module._PARAMETERS, *tensors}
    assert fields - COMMON <= known


def test_shorter_rows_are_filled_up() -> None:
    """At every depth, also where there are none."""
    assert stack([[1, 2], [3]], 2, np.int32, -1).tolist() == [[1, 2], [3, -1]]
    assert stack_texts([[["a"], ["b", "c"]], [[]]], 3).tolist() == [
        [["a", ""], ["b", "c"]],
        [["", ""], ["", ""]],
    ]
    assert stack([[], []], 2, np.float32).shape == (2, 0)
