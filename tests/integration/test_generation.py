"""Generation over gRPC: results, streams, and independence of batch neighbours."""

import asyncio
import random

from seqserve.v1 import generation_pb2, model_pb2
from serving import MakeServer, RunningServer, source


def make_inputs(count: int, seed: int) -> list[generation_pb2.GenerateInput]:
    """Inputs of mixed lengths, half of them greedy, half with 2 to 4 beams."""
    rng = random.Random(seed)
    inputs = []
    for index in range(count):
        tokens = [rng.randrange(4, 30) for _ in range(rng.randrange(1, 30))]
        if index % 2:
            options = {"num_beams": rng.choice([2, 3, 4]), "num_return_sequences": 2}
        else:
            options = {"return_token_log_probabilities": True, "return_scores": True}
        inputs.append(source([*tokens, 1], max_new_tokens=rng.randrange(4, 32), **options))
    return inputs


async def generate(
    running: RunningServer, inputs: list[generation_pb2.GenerateInput], model: str = "tiny"
) -> list[list[bytes]]:
    """Hypotheses of each input as bytes, so that equality is equality of every bit."""
    request = generation_pb2.GenerateRequest(model_name=model, inputs=inputs)
    response = await running.generation.Generate(request)
    return [
        [hypothesis.SerializeToString(deterministic=True) for hypothesis in result.hypotheses]
        for result in response.results
    ]


async def test_result_is_the_same_alone_and_among_64_mixed_neighbours(
    serving: MakeServer,
) -> None:
    """Tokens, scores and log-probabilities are bit-identical alone, in one call, across calls."""
    inputs = make_inputs(64, seed=1)
    async with serving() as running:
        alone = [(await generate(running, [one]))[0] for one in inputs]
        together = await generate(running, inputs)
        apart = await asyncio.gather(*(generate(running, [one]) for one in inputs))
    assert together == alone
    assert [results[0] for results in apart] == alone
    assert len({tuple(hypotheses) for hypotheses in alone}) > 20  # the inputs do matter


async def test_result_is_the_same_with_two_threads_and_small_batches(serving: MakeServer) -> None:
    """Neither the number of threads nor the size of batches changes a bit."""
    inputs = make_inputs(24, seed=2)
    async with serving() as running:
        expected = await generate(running, inputs)
    async with serving(threads=2, max_batch_size=5, max_num_beams=5, max_batch_tokens=40) as other:
        assert await generate(other, inputs) == expected


async def test_growing_cache_changes_nothing(serving: MakeServer) -> None:
    """Short ones that run while a long one makes the cache grow, twice, give the same bits."""
    rng = random.Random(4)
    inputs = [
        source(
            [rng.randrange(4, 30) for _ in range(length)],
            max_new_tokens=200 if length == 290 else rng.randrange(20, 120),
            num_beams=rng.choice([1, 1, 3]),
        )
        for length in [5, 9, 290, 3, 12, 70, 130, 7, 1, 40]
    ]
    async with serving() as running:
        together = await generate(running, inputs, "long")
        longest = generation_pb2.Hypothesis.FromString(
            max((hypotheses[0] for hypotheses in together), key=len)
        )
    assert len(longest.token_ids) > 128  # two doublings of the first capacity, 64
    for index in rng.sample(range(len(inputs)), len(inputs)):
        async with serving() as running:
            assert await generate(running, [inputs[index]], "long") == [together[index]]


async def test_stream_pieces_join_to_the_result(serving: MakeServer) -> None:
    """Greedy and beam streams: pieces first, one result last; texts and ids agree with Generate."""
    inputs = make_inputs(8, seed=3)
    async with serving() as running:
        expected = await generate(running, inputs)
        for one, hypotheses in zip(inputs, expected, strict=True):
            request = generation_pb2.GenerateStreamRequest(model_name="tiny", input=one)
            messages = [message async for message in running.generation.GenerateStream(request)]
            kinds = [message.WhichOneof("event") for message in messages]
            assert kinds == ["piece"] * (len(messages) - 1) + ["result"]
            best = messages[-1].result.hypotheses[0]
            assert best.SerializeToString(deterministic=True) == hypotheses[0]
            pieces = [message.piece for message in messages[:-1]]
            assert "".join(piece.text for piece in pieces) == best.text
            token_ids = [token for piece in pieces for token in piece.token_ids]
            assert token_ids == list(best.token_ids)


async def test_greedy_stream_sends_tokens_one_by_one(serving: MakeServer) -> None:
    """A greedy stream does not wait for the end: as many pieces as tokens."""
    one = source([9, 8, 7, 6, 5, 1], max_new_tokens=10)
    async with serving() as running:
        request = generation_pb2.GenerateStreamRequest(model_name="tiny", input=one)
        messages = [message async for message in running.generation.GenerateStream(request)]
    result = messages[-1].result
    pieces = [list(message.piece.token_ids) for message in messages[:-1]]
    assert pieces == [[token] for token in result.hypotheses[0].token_ids]


async def test_text_and_its_token_ids_give_the_same_result(serving: MakeServer) -> None:
    """Text is tokenized as Tokenize says."""
    async with serving() as running:
        reply = await running.model.Tokenize(
            model_pb2.TokenizeRequest(model_name="tiny", texts=["a b c"])
        )
        ids = [token.id for token in reply.tokenizations[0].tokens]
        by_text = await generate(running, [generation_pb2.GenerateInput(text="a b c")])
        assert by_text == await generate(running, [source(ids)])


async def test_timing_accounts_for_every_phase(serving: MakeServer) -> None:
    """Queue, encode and decode times are reported and positive."""
    async with serving() as running:
        reply = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 1])])
        )
    timing = reply.results[0].timing
    for duration in (timing.queue_duration, timing.encode_duration, timing.decode_duration):
        assert duration.ToNanoseconds() > 0


async def test_request_options_are_overridden_by_those_of_an_input(serving: MakeServer) -> None:
    """An input's field wins; fields it does not set come from the request."""
    async with serving() as running:
        reply = await running.generation.Generate(
            generation_pb2.GenerateRequest(
                model_name="tiny",
                inputs=[source([5, 6, 1], num_beams=3), source([5, 6, 1])],
                options=generation_pb2.GenerateOptions(num_beams=2, num_return_sequences=2),
            )
        )
    assert [len(result.hypotheses) for result in reply.results] == [2, 2]
    assert all(hypothesis.HasField("score") for hypothesis in reply.results[0].hypotheses)
