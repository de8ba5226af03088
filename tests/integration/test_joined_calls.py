"""Calls that share: with whom, what they never meet of each other, and when computations end."""

import asyncio
from pathlib import Path

import grpc
import pytest

from kept_answers import KEPT, PATIENCE_SECONDS, TEXTS, read, timings, without_timing
from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer, RunningServer, source, status_of


def long_request(seed: int = 5) -> generation_pb2.GenerateRequest:
    """A request that takes a while."""
    one = source([seed] * 20, min_new_tokens=190, max_new_tokens=199)
    return generation_pb2.GenerateRequest(model_name="long", inputs=[one])


async def begin_computing(running: RunningServer, number: int = 1) -> None:
    """Waits until sequences are being decoded."""
    name, labels = "seqserve_running_sequences", {"model_name": "long", "model_version": "1"}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while running.metrics.registry.get_sample_value(name, labels) != number:
            await asyncio.sleep(0)


async def test_answers_are_shared_among_those_of_one_token(
    serving: MakeServer, tmp_path: Path
) -> None:
    """How fast an answer comes tells nobody what others have asked; rates count all the same."""
    file = tmp_path / "tokens.toml"
    file.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nvalue = "{name * 16}"\nrequests_per_second = 0.001\n'
            "burst = 3\n"
            for name in "ab"
        )
    )
    request = encoding_pb2.EmbedRequest(inputs=TEXTS)
    async with serving(**KEPT, token_file=file) as running:

        async def is_cached(name: str) -> bool:
            metadata = [("authorization", f"Bearer {name * 16}")]
            reply = await running.encoding.Embed(request, metadata=metadata)
            return all(timing.is_cached for timing in timings(reply))

        found = [await is_cached(name) for name in "aabb"]
        assert await is_cached("a")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await is_cached("a")
    assert found == [False, True, False, True]
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_error_of_options_names_the_input_of_each_call(serving: MakeServer) -> None:
    """Also where one computation stands for inputs of several calls."""
    one = source([5, 6, 1], forced_bos_token_id=5, min_new_tokens=3)
    one.options.suppressed_token_ids.extend(range(64))
    request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([7, 1]), one])
    async with serving(deduplicate=True) as running, serving() as plain:
        with pytest.raises(grpc.aio.AioRpcError) as expected:
            await plain.generation.Generate(request)
        calls = [running.generation.Generate(request) for _ in range(4)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    for error in found:
        assert isinstance(error, grpc.aio.AioRpcError)
        assert status_of(error) == status_of(expected.value)
    assert "inputs[1]" in status_of(expected.value)


async def test_equal_calls_are_computed_once(serving: MakeServer) -> None:
    """Each has the answer, and the time it waited."""
    async with serving(deduplicate=True) as running:
        replies = await asyncio.gather(
            *(running.generation.Generate(long_request()) for _ in range(6))
        )
        assert read(running, "deduplicated", "long") == 5
        assert read(running, "source_tokens", "long") == 20
        assert running.num_outstanding == 0
    assert len({without_timing(reply).SerializeToString() for reply in replies}) == 1
    for reply in replies:
        (timing,) = timings(reply)
        assert not timing.is_cached
        assert timing.decode_duration.ToNanoseconds() > 0


async def test_computation_goes_on_for_those_who_are_left(serving: MakeServer) -> None:
    """Whose caller came first and leaves, or has the shortest deadline, decides for nobody else."""
    async with serving() as plain:
        expected = await plain.generation.Generate(long_request())
    async with serving(deduplicate=True) as running:
        leaving = running.generation.Generate(long_request())
        await begin_computing(running)
        late = running.generation.Generate(long_request(), timeout=0.03)
        staying = running.generation.Generate(long_request())
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding < 3:
                assert not staying.done()
                await asyncio.sleep(0)
        leaving.cancel()
        reply = await staying
        assert read(running, "source_tokens", "long") == 20
        assert (await late.code()) in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK)
    assert reply.results[0].hypotheses == expected.results[0].hypotheses


async def test_computation_that_nobody_waits_for_is_dropped(serving: MakeServer) -> None:
    """Its rows are free again."""
    async with serving(deduplicate=True) as running:
        calls = [running.generation.Generate(long_request()) for _ in range(3)]
        await begin_computing(running)
        for call in calls:
            call.cancel()
        await begin_computing(running, 0)
        labels = {"reason": "cancelled", "state": "running", "model_name": "long"}
        dropped = running.metrics.registry.get_sample_value(
            "seqserve_dropped_sequences_total", {**labels, "model_version": "1"}
        )
        assert dropped == 1
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding:  # a cancelled call gives its place back by itself
                await asyncio.sleep(0)
