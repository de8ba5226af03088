"""ScoreTargets over gRPC: independence of the batch, agreement with Generate, refusals, limits."""

import asyncio
import random
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from seqserve.v1 import generation_pb2
from serving import MakeServer, RunningServer, source, status_of

Input = generation_pb2.ScoreTargetsInput
Target = generation_pb2.Target


def ids(*values: int) -> generation_pb2.TokenIds:
    """Token ids as a message."""
    return generation_pb2.TokenIds(values=values)


def make_input(source_ids: list[int], *targets: list[int]) -> Input:
    """One source with targets, all as token ids."""
    return Input(
        token_ids=ids(*source_ids), targets=[Target(token_ids=ids(*target)) for target in targets]
    )


def make_inputs(count: int, seed: int) -> list[Input]:
    """Inputs of mixed lengths with one to six targets each."""
    chance = random.Random(seed)

    def draw(longest: int) -> list[int]:
        return [chance.randrange(4, 30) for _ in range(chance.randint(1, longest))]

    return [
        make_input([*draw(30), 1], *(draw(32) for _ in range(chance.randint(1, 6))))
        for _ in range(count)
    ]


def request(*inputs: Input, **fields: Any) -> generation_pb2.ScoreTargetsRequest:
    """A request to the tiny model."""
    return generation_pb2.ScoreTargetsRequest(**({"model_name": "tiny", "inputs": inputs} | fields))


async def score(running: RunningServer, *inputs: Input) -> list[list[bytes]]:
    """Scores of each input as bytes, so that equality is equality of every bit."""
    response = await running.generation.ScoreTargets(request(*inputs))
    return [
        [one.SerializeToString(deterministic=True) for one in result.scores]
        for result in response.results
    ]


async def test_scores_are_the_same_alone_and_among_neighbours_that_generate(
    serving: MakeServer,
) -> None:
    """Bit for bit: alone, one target at a time, in one call, and beside other searches."""
    inputs = make_inputs(24, seed=1)
    generating = generation_pb2.GenerateRequest(
        model_name="tiny",
        inputs=[
            source([*range(4, 4 + length), 1], num_beams=1 + length % 3) for length in range(1, 20)
        ],
    )
    async with serving() as running:
        alone = [(await score(running, one))[0] for one in inputs]
        single = [
            [
                (await score(running, Input(token_ids=one.token_ids, targets=[target])))[0][0]
                for target in one.targets
            ]
            for one in inputs
        ]
        together, apart, _ = await asyncio.gather(
            score(running, *inputs),
            asyncio.gather(*(score(running, one) for one in inputs)),
            running.generation.Generate(generating),
        )
    async with serving(threads=2, max_batch_size=5, max_num_beams=2, max_batch_tokens=40) as other:
        small = await score(other, *inputs)
    assert together == alone == single == small
    assert [results[0] for results in apart] == alone


async def test_scores_are_those_of_generation(serving: MakeServer) -> None:
    """What greedy search generated scores what it said, to the last bit."""
    generating = generation_pb2.GenerateRequest(
        model_name="tiny",
        inputs=[source([5, 6, 7, 1]), source([9, 8, 1]), source([4, 4, 12, 20, 1])],
        options=generation_pb2.GenerateOptions(
            return_scores=True, return_token_log_probabilities=True
        ),
    )
    async with serving() as running:
        generated = await running.generation.Generate(generating)
        scored = await running.generation.ScoreTargets(
            request(
                *(
                    Input(
                        token_ids=one.token_ids,
                        targets=[Target(token_ids=ids(*result.hypotheses[0].token_ids))],
                    )
                    for one, result in zip(generating.inputs, generated.results, strict=True)
                )
            )
        )
    for result, scoring in zip(generated.results, scored.results, strict=True):
        (hypothesis,), (found,) = result.hypotheses, scoring.scores
        log_probabilities = [token.log_probability for token in found.tokens]
        assert log_probabilities == list(hypothesis.token_log_probabilities)
        assert found.total_log_probability == hypothesis.score
        assert found.token_count == len(hypothesis.token_ids)
        assert found.mean_log_probability == found.total_log_probability / found.token_count
        assert scoring.timing.decode_duration.ToNanoseconds() > 0


async def test_text_is_the_same_as_its_tokens_with_the_end(serving: MakeServer) -> None:
    """The end token is added once, and the entries of the vocabulary come with the ids."""
    async with serving() as running:
        by_text = await running.generation.ScoreTargets(
            request(Input(text="a b", targets=[Target(text="ba bi")]))
        )
        (found,) = by_text.results[0].scores
        tokens = [token.id for token in found.tokens]
        by_ids = await running.generation.ScoreTargets(
            request(Input(text="a b", targets=[Target(token_ids=ids(*tokens))]))
        )
    assert by_ids.results[0].scores[0] == found
    assert [token.text for token in found.tokens] == ["ba", "bi", "</s>"]
    assert by_text.results[0].source_token_count == 3


async def test_source_is_cut_on_request_only(serving: MakeServer) -> None:
    """The reply says how much was cut; targets never are."""
    one = make_input([5] * 44, [6, 1])
    async with serving() as running:
        reply = await running.generation.ScoreTargets(request(one, truncate=True))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.ScoreTargets(request(one))
    (result,) = reply.results
    assert (result.source_token_count, result.truncated_token_count) == (40, 4)
    assert "must have at most 40 tokens, but has 44" in status_of(caught.value)


REFUSALS = [
    (request(), "inputs", "`inputs` must not be empty"),
    (request(make_input([5])), "inputs[0].targets", "`inputs[0].targets` must not be empty"),
    (
        request(Input(targets=[Target(text="a")])),
        "inputs[0]",
        "`inputs[0]` must set `text` or `token_ids`",
    ),
    (
        request(Input(text="a", targets=[Target(text="a"), Target()])),
        "inputs[0].targets[1]",
        "`inputs[0].targets[1]` must set `text` or `token_ids`",
    ),
    (
        request(Input(text="a", targets=[Target(text="")])),
        "inputs[0].targets[0].text",
        "`inputs[0].targets[0].text` must not be empty",
    ),
    (
        request(make_input([5], [6]), make_input([5], [])),
        "inputs[1].targets[0].token_ids",
        "`inputs[1].targets[0].token_ids` must not be empty",
    ),
    (
        request(make_input([5], [6, 49])),
        "inputs[0].targets[0].token_ids.values[1]",
        "`inputs[0].targets[0].token_ids.values[1]` must be at least 0 and below 49, but is 49",
    ),
    (
        request(make_input([5], [6] * 33)),
        "inputs[0].targets[0].token_ids",
        "`inputs[0].targets[0].token_ids` must have at most 32 tokens (the model's "
        "max_target_length), but has 33; targets are never cut: shorten it",
    ),
    (
        request(Input(text="a", targets=[Target(text="a " * 32)]), truncate=True),
        "inputs[0].targets[0].text",
        "`inputs[0].targets[0].text` must have at most 32 tokens (the model's "
        "max_target_length), but has 33; targets are never cut: shorten it",
    ),
    (
        request(Input(text="a", targets=[Target(text="a" * 1001)])),
        "inputs[0].targets[0].text",
        "`inputs[0].targets[0].text` must have at most 1000 bytes (max_input_bytes), but has 1001",
    ),
    (
        request(make_input([5], *[[6]] * 9)),
        "inputs[0].targets",
        "`inputs[0].targets` must hold at most 8 entries (max_inputs_per_request), but holds 9",
    ),
    (
        request(make_input([5], *[[6]] * 5), make_input([5], *[[6]] * 4)),
        "inputs",
        "`inputs` must hold at most 8 targets in all (max_inputs_per_request), but hold 9",
    ),
    (
        request(make_input([5] * 20, [6] * 21)),
        "inputs",
        "`inputs` must hold at most 40 tokens in all (max_tokens_per_request), but it holds 41",
    ),
    (
        request(Input(text="a", targets=[Target(text="a")], target_language="de")),
        "inputs[0].target_language",
        "`inputs[0].target_language` must not be set: the model is not told languages",
    ),
]


@pytest.mark.parametrize(("message", "field", "words"), REFUSALS)
async def test_invalid_request_names_field_rule_and_value(
    serving: MakeServer,
    message: generation_pb2.ScoreTargetsRequest,
    field: str,
    words: str,
) -> None:
    """INVALID_ARGUMENT, in words and as google.rpc.BadRequest."""
    limits: dict[str, Any] = {
        "max_inputs_per_request": 8,
        "max_input_bytes": 1000,
        "max_tokens_per_request": 40,
    }
    async with serving(**limits) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.ScoreTargets(message)
        assert running.num_outstanding == 0
    assert status_of(caught.value) == f"INVALID_ARGUMENT: {words}"
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert bad_request.field_violations[0].field == field


async def test_more_work_than_there_is_room_for_is_refused(serving: MakeServer) -> None:
    """Each sequence of targets takes a place: 5 targets in twos are three."""
    five = make_input([5, 1], *[[6, 1]] * 5)
    async with serving(max_outstanding=5, max_inputs_per_request=5, max_num_beams=2) as running:
        await running.generation.ScoreTargets(request(five))
        model = running.registry.find("tiny", "", None)
        with model.admission.admit(3), pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.ScoreTargets(request(five))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "3 inputs are being worked on and 3 more would exceed" in status_of(caught.value)


async def test_deadline_ends_scoring(serving: MakeServer) -> None:
    """A call whose time is over is told so, and its places are free again."""
    async with serving(max_request_seconds=1e-6) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.ScoreTargets(request(*make_inputs(4, seed=2)))
        assert running.num_outstanding == 0
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_model_that_does_not_generate_cannot_score(serving: MakeServer) -> None:
    """The status is UNIMPLEMENTED, as for Generate."""
    async with serving() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.ScoreTargets(
                request(make_input([5], [6]), model_name="sentence")
            )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
