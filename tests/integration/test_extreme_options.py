"""Decoding options at the ends of the range of floats: refused, or answered with finite numbers."""

import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from inference_messages import Parameter, outputs, request, stub, texts
from seqserve.v1 import generation_pb2
from serving import MakeServer, RunningServer, source

_Field = generation_pb2.GenerateOptions.DESCRIPTOR.fields[0]
FLOATS = sorted(
    field.name
    for field in generation_pb2.GenerateOptions.DESCRIPTOR.fields
    if field.cpp_type in (_Field.CPPTYPE_DOUBLE, _Field.CPPTYPE_FLOAT)
)
SIZES = [5e-324, 1e-45, 1e-38, 1e-7, 0.01, 0.5, 1.0, 5.0, 100.0, 1e3, 1e38, 1e39, 1.7e308]
VALUES = [math.nan, math.inf, -math.inf, 0.0, *SIZES, *(-size for size in SIZES)]
SEARCHES: list[dict[str, Any]] = [
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "seed": 1, "num_return_sequences": 2},
    {"return_alternatives": True, "num_return_sequences": 3, "top_log_probability_count": 3},
    {},
]


def extremes() -> Iterator[dict[str, Any]]:
    """Each search with each option at each value."""
    for search in SEARCHES:
        for name in FLOATS:
            for value in VALUES:
                yield {**search, name: value, "return_scores": True}


def test_every_float_is_tried() -> None:
    """An option that is new is among them."""
    assert FLOATS == [
        "length_penalty",
        "min_alternative_probability",
        "repetition_penalty",
        "temperature",
        "top_p",
    ]


async def numbers_of(running: RunningServer, options: dict[str, Any]) -> list[float]:
    """All scores and log-probabilities of an answer; none, if it was refused for an option."""
    options = {**options, "return_token_log_probabilities": True}
    try:
        response = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([7, 8], **options)])
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return []
    hypotheses = response.results[0].hypotheses
    assert hypotheses
    tops = [one for each in hypotheses for top in each.top_log_probabilities for one in top.values]
    return [
        *(one.score for one in hypotheses),
        *(value for one in hypotheses for value in one.token_log_probabilities),
        *(one.log_probability for one in tops),
    ]


async def test_extremes_are_refused_or_give_finite_numbers(serving: MakeServer) -> None:
    """None has a score that is infinite, or zero beside log-probabilities that are not."""
    num_answered = 0
    async with serving() as running:
        for options in extremes():
            numbers = await numbers_of(running, options)
            assert all(math.isfinite(number) for number in numbers), options
            num_answered += bool(numbers)
            if numbers and "num_beams" in options:
                assert numbers[0] < 0, options
    assert num_answered > len(SEARCHES) * len(FLOATS)


@pytest.mark.parametrize("length_penalty", [-5.0, 5.0])
async def test_score_of_a_tensor_is_finite(length_penalty: float, serving: MakeServer) -> None:
    """Scores are float32 there; what Generate refuses is refused as a parameter, too."""
    async with serving() as running:

        async def infer(value: float) -> Any:
            parameters = {
                "num_beams": Parameter(int64_param=3),
                "length_penalty": Parameter(double_param=value),
            }
            message = request("tiny", texts("a b"), parameters=parameters, outputs=outputs("score"))
            return await stub(running).ModelInfer(message)

        reply = await infer(length_penalty)
        (score,) = reply.outputs[0].contents.fp32_contents
        assert math.isfinite(score)
        assert score < 0
        for value in (1e38 * length_penalty, 1.01 * length_penalty):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(value)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == (
                f"`length_penalty` must be at least -5 and at most 5, but is {value:g}"
            )
