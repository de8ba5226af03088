"""Who waits for whom, over gRPC: classes, callers, the budget of the cache, limits of time."""

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf import duration_pb2

from seqserve.cache_budget import CacheExtent
from seqserve.v1 import encoding_pb2, generation_pb2, priority_pb2
from serving import MakeServer, RunningServer, source, status_of

TOKENS = [9, 8, 7, 6, 5, 1]


async def generate(
    running: RunningServer,
    inputs: list[generation_pb2.GenerateInput],
    *,
    priority: int = 0,
    caller: str = "",
    model: str = "tiny",
) -> generation_pb2.GenerateResponse:
    """Calls with a priority and a name."""
    request = generation_pb2.GenerateRequest(model_name=model, inputs=inputs)
    request.priority = priority  # type: ignore[assignment]
    metadata = (("seqserve-caller", caller),) if caller else ()
    return await running.generation.Generate(request, metadata=metadata)


def slow(count: int) -> list[generation_pb2.GenerateInput]:
    """Inputs that take all their steps."""
    return [source(TOKENS, max_new_tokens=30, min_new_tokens=30) for _ in range(count)]


def scoring(count: int, priority: int = 0) -> generation_pb2.ScoreTargetsRequest:
    """Inputs with a target of 30 tokens to score."""
    target = generation_pb2.Target(token_ids=generation_pb2.TokenIds(values=[5] * 30))
    one = generation_pb2.ScoreTargetsInput(
        token_ids=generation_pb2.TokenIds(values=TOKENS), targets=[target]
    )
    request = generation_pb2.ScoreTargetsRequest(model_name="tiny", inputs=[one] * count)
    request.priority = priority  # type: ignore[assignment]
    return request


async def finish_order(**calls: Any) -> list[str]:
    """The names of calls in the order in which they are answered."""
    order: list[str] = []

    async def follow(name: str, call: Any) -> None:
        await call
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, call in calls.items():
            group.create_task(follow(name, call))
            await asyncio.sleep(0)
    return order


async def test_high_priority_overtakes_low(serving: MakeServer) -> None:
    """Of calls that wait for the same row, the one of the higher class is answered first."""
    async with serving(max_batch_size=1, max_num_beams=1) as running:
        order = await finish_order(
            first=generate(running, slow(2), priority=priority_pb2.PRIORITY_LOW),
            bulk=generate(running, slow(30), priority=priority_pb2.PRIORITY_LOW),
            urgent=generate(running, slow(1), priority=priority_pb2.PRIORITY_HIGH),
        )
    assert order.index("urgent") < order.index("bulk")


async def test_caller_with_one_input_does_not_wait_for_a_bulk_caller(serving: MakeServer) -> None:
    """Two names share one model: the single input is answered long before the many."""
    async with serving(max_batch_size=1, max_num_beams=1) as running:
        order = await finish_order(
            bulk=generate(running, slow(60), caller="bulk"),
            single=generate(running, slow(1), caller="single"),
        )
    assert order == ["single", "bulk"]


async def test_scores_wait_their_turn(serving: MakeServer) -> None:
    """Scoring has a class and belongs to a caller, as all that waits for a row does."""
    async with serving(max_batch_size=1, max_num_beams=1) as running:
        score = running.generation.ScoreTargets
        order = await finish_order(
            first=score(scoring(2, priority_pb2.PRIORITY_LOW)),
            bulk=score(scoring(30, priority_pb2.PRIORITY_LOW)),
            urgent=score(scoring(1, priority_pb2.PRIORITY_HIGH)),
        )
        assert order.index("urgent") < order.index("bulk")
        order = await finish_order(
            bulk=score(scoring(60), metadata=(("seqserve-caller", "bulk"),)),
            single=score(scoring(1), metadata=(("seqserve-caller", "single"),)),
        )
    assert order == ["single", "bulk"]


@pytest.mark.parametrize("kind", ["generate", "embed", "score"])
async def test_wrong_priorities_and_names_are_refused(serving: MakeServer, kind: str) -> None:
    """Both say what is wrong and what there is."""

    async def call(priority: int, metadata: tuple[tuple[str, str], ...]) -> str:
        method: Any = running.generation.Generate
        request: Any = generation_pb2.GenerateRequest(model_name="tiny", inputs=slow(1))
        if kind == "embed":
            method = running.encoding.Embed
            request = encoding_pb2.EmbedRequest(model_name="sentence", inputs=["a"])
        if kind == "score":
            method = running.generation.ScoreTargets
            request = scoring(1)
        request.priority = priority
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, metadata=metadata)
        return status_of(caught.value)

    async with serving() as running:
        assert await call(9, ()) == (
            "INVALID_ARGUMENT: `priority` must be one of 0 (PRIORITY_UNSPECIFIED), "
            "1 (PRIORITY_LOW), 2 (PRIORITY_NORMAL), 3 (PRIORITY_HIGH), but is 9"
        )
        assert await call(0, (("seqserve-caller", "x" * 65),)) == (
            "INVALID_ARGUMENT: the metadata key `seqserve-caller` must have 1 to 64 ASCII "
            "characters, but has 65"
        )


async def test_input_beyond_the_cache_is_refused_at_once(serving: MakeServer) -> None:
    """The message says what it needs, what there is, which setting, and what to do; others run."""
    async with serving(cache_bytes=200_000) as running:
        fits = source(TOKENS, max_new_tokens=20)
        large = source(TOKENS, max_new_tokens=200, num_beams=4)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(running, [fits, large], model="long")
        budget = running.registry.find("long", "", None).budget
        assert budget is not None
        needed = 4 * budget.row_bytes(224, 32)
        assert status_of(caught.value) == (
            f"INVALID_ARGUMENT: `inputs[1]` needs {needed} bytes of cache (4 hypotheses of 200 "
            "target tokens and 6 source tokens), but a lane has 200000 (cache_bytes / lanes); "
            "lower `max_new_tokens`, `num_beams` or `num_return_sequences`, or shorten the source"
        )
        assert running.num_outstanding == 0
        assert len((await generate(running, [fits], model="long")).results) == 1


async def test_targets_beyond_the_cache_are_refused(serving: MakeServer) -> None:
    """As inputs to generate from are; what to do is another thing."""
    target = generation_pb2.Target(token_ids=generation_pb2.TokenIds(values=[5] * 200))
    one = generation_pb2.ScoreTargetsInput(
        token_ids=generation_pb2.TokenIds(values=TOKENS), targets=[target] * 4
    )
    request = generation_pb2.ScoreTargetsRequest(model_name="long", inputs=[one])
    async with serving(cache_bytes=200_000) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.ScoreTargets(request)
        budget = running.registry.find("long", "", None).budget
        assert budget is not None
        needed = 4 * budget.row_bytes(224, 32)
        assert status_of(caught.value) == (
            f"INVALID_ARGUMENT: `inputs[0].targets` needs {needed} bytes of cache (4 hypotheses of "
            "200 target tokens and 6 source tokens), but a lane has 200000 (cache_bytes / lanes); "
            "give fewer targets or shorter ones, or shorten the source"
        )
        assert running.num_outstanding == 0


async def test_default_budget_is_a_share_of_the_memory(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter, shared by the models; never less than an input of full length takes."""
    for memory in (2**30, 2**10):
        monkeypatch.setattr("seqserve.lane_engine.available_memory", lambda memory=memory: memory)
        async with serving() as running:
            for name in ("tiny", "long"):
                model = running.registry.find(name, "", None)
                record, budget = model.manifest.generation, model.budget
                assert record is not None
                assert budget is not None
                full = CacheExtent(
                    record.num_beams, record.max_target_length, model.manifest.max_source_length
                )
                assert budget.max_bytes == max(memory // 4 // 3, budget.bytes_for(full))
            assert running.registry.find("sentence", "", None).budget is None


async def test_budget_too_small_for_full_length_is_warned_of(serving: MakeServer) -> None:
    """The operator hears of it when the model is opened, not from its callers."""
    with structlog.testing.capture_logs() as logs:
        async with serving(cache_bytes=100_000):
            pass
    warned = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [(entry["model"], entry["cache_bytes"]) for entry in warned] == [("long/1", 100_000)]
    assert warned[0]["event"] == (
        "cache_bytes are too few for inputs of full length, which will be refused"
    )
    assert warned[0]["needed_bytes"] > 100_000


async def test_small_budget_changes_no_bit(serving: MakeServer) -> None:
    """With memory for one long input at a time, all come out as with memory for all."""
    inputs = [
        source(
            [*(4 + (index + place) % 26 for place in range(1 + 40 * (index % 3))), 1],
            max_new_tokens=[8, 200, 40][index % 3],
            num_beams=1 + index % 2,
        )
        for index in range(12)
    ]
    async with serving() as running:
        expected = [
            result.hypotheses for result in (await generate(running, inputs, model="long")).results
        ]
    async with serving(cache_bytes=400_000) as running:
        found = [
            result.hypotheses for result in (await generate(running, inputs, model="long")).results
        ]
        async with asyncio.timeout(10):  # the worker looks at its cache when it is idle
            while not (reserved := read_reserved(running)):
                await asyncio.sleep(0.005)
    assert found == expected
    assert reserved <= 400_000


def read_reserved(running: RunningServer) -> float:
    """The gauge of the model with long texts."""
    labels = {"model_name": "long", "model_version": "1"}
    value = running.metrics.registry.get_sample_value("seqserve_cache_reserved_bytes", labels)
    assert value is not None
    return value


@pytest.mark.parametrize("num_beams", [1, 3])
async def test_max_time_ends_an_input_with_what_it_has(serving: MakeServer, num_beams: int) -> None:
    """One that is cut short has the reason TIME; one beside it without the limit is complete."""
    async with serving() as running:
        whole = source(TOKENS, max_new_tokens=200, min_new_tokens=199, num_beams=num_beams)
        short = generation_pb2.GenerateInput()
        short.CopyFrom(whole)
        short.options.max_time.CopyFrom(duration_pb2.Duration(nanos=5_000_000))
        response = await generate(running, [whole, short], model="long")
    complete, cut = (result.hypotheses[0] for result in response.results)
    assert len(complete.token_ids) == 200
    assert complete.finish_reason != generation_pb2.FINISH_REASON_TIME
    assert cut.finish_reason == generation_pb2.FINISH_REASON_TIME
    assert len(cut.token_ids) < 200


async def test_max_time_ends_a_stream_with_its_result(serving: MakeServer) -> None:
    """The pieces join to the text that was cut short."""
    async with serving() as running:
        one = source(TOKENS, max_new_tokens=200, min_new_tokens=199)
        one.options.max_time.CopyFrom(duration_pb2.Duration(nanos=20_000_000))
        request = generation_pb2.GenerateStreamRequest(model_name="long", input=one)
        messages = [message async for message in running.generation.GenerateStream(request)]
    best = messages[-1].result.hypotheses[0]
    assert best.finish_reason == generation_pb2.FINISH_REASON_TIME
    assert "".join(message.piece.text for message in messages[:-1]) == best.text


async def test_cancelled_neighbour_changes_no_bit(serving: MakeServer) -> None:
    """A row that is freed in the middle moves others, and none of their bits."""
    inputs = [
        source(TOKENS[index % 4 :], max_new_tokens=60, num_beams=1 + index % 3)
        for index in range(9)
    ]
    endless = source(TOKENS, max_new_tokens=200, min_new_tokens=200, num_beams=4)
    async with serving() as running:
        expected = (await generate(running, inputs, model="long")).results
        leaving = asyncio.create_task(generate(running, [endless] * 4, model="long"))
        staying = asyncio.create_task(generate(running, inputs, model="long"))
        while running.num_outstanding < len(inputs) + 4:
            assert not leaving.done()
            await asyncio.sleep(0)
        leaving.cancel()
        found = (await staying).results
    assert [list(item.hypotheses) for item in found] == [list(item.hypotheses) for item in expected]
