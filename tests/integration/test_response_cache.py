"""Equal inputs are computed once: later ones are answered with what is kept."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2

from inference_messages import request as tensors
from inference_messages import stub, texts
from kept_answers import KEPT, TEXTS, read, read_size, timings, without_timing
from seqserve.engine import GenerationEngine
from seqserve.inference_protocol.v2 import open_inference_pb2 as messages
from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from served_folders import copy_version
from serving import MakeServer, RunningServer, source, status_of

CALLS: dict[str, tuple[str, Any]] = {
    "Generate": (
        "generation",
        generation_pb2.GenerateRequest(
            model_name="tiny",
            inputs=[
                source([5, 6, 1], num_beams=3, num_return_sequences=2),
                source([9, 4, 1], return_token_log_probabilities=True),
                source([9, 4, 1], do_sample=True, seed=3, num_return_sequences=3),
                source([9, 4, 1], top_log_probability_count=3, stop_sequences=["e d"]),
            ],
        ),
    ),
    "ScoreTargets": (
        "generation",
        generation_pb2.ScoreTargetsRequest(
            model_name="tiny",
            inputs=[
                generation_pb2.ScoreTargetsInput(
                    text="a b",
                    targets=[generation_pb2.Target(text=text) for text in ("ba be", "da")],
                )
            ],
        ),
    ),
    "Embed": ("encoding", encoding_pb2.EmbedRequest(model_name="sentence", inputs=TEXTS)),
}


@pytest.mark.parametrize("method", CALLS)
async def test_answers_that_were_kept_are_those_that_were_computed(
    serving: MakeServer, method: str
) -> None:
    """To the last bit; the timing says that nothing was computed, and the metrics do."""
    service, request = CALLS[method]
    name = request.model_name
    async with serving() as running:
        plain = await getattr(getattr(running, service), method)(request)
    async with serving(**KEPT) as running:
        call = getattr(getattr(running, service), method)
        first, second = await call(request), await call(request)
        num_steps = read_steps(running, name)
        third = await call(request)
        assert read_steps(running, name) == num_steps
        counts = [read(running, f"response_cache_{one}", name) for one in ("hits", "misses")]
        number = len(timings(first))
        assert counts == [2 * number, number]
        assert read_size(running, "entries") == number
        assert 0 < read_size(running, "bytes") <= 10_000_000
        queue = running.metrics.registry.get_sample_value(
            "seqserve_queue_duration_seconds_count", {"model_name": name, "model_version": "1"}
        )
    assert queue == number
    for reply in (first, second, third):
        assert without_timing(reply) == without_timing(plain)
    assert not any(timing.is_cached for timing in timings(first))
    for timing in timings(second):
        assert timing == type(timing)(
            queue_duration=duration_pb2.Duration(),
            encode_duration=duration_pb2.Duration(),
            is_cached=True,
            **({} if service == "encoding" else {"decode_duration": duration_pb2.Duration()}),
        )


def read_steps(running: RunningServer, name: str) -> float:
    """Forward passes of a model."""
    return sum(
        sample.value
        for metric in running.metrics.step_rows.collect()
        for sample in metric.samples
        if sample.name.endswith("_count") and sample.labels["model_name"] == name
    )


async def test_heads_keep_their_answers(serving: MakeServer, heads: Path) -> None:
    """What is made of logits may differ from call to call: the logits are what is kept."""
    requests: dict[Task, list[Any]] = {
        Task.CLASSIFY: [
            encoding_pb2.ClassifyRequest(
                inputs=[encoding_pb2.ClassifyInput(text="a b", text_pair="c d")], top_k=top_k
            )
            for top_k in (1, 2)
        ],
        Task.CLASSIFY_TOKENS: [
            encoding_pb2.ClassifyTokensRequest(inputs=["a b c d"], aggregation_strategy=strategy)
            for strategy in (
                encoding_pb2.AGGREGATION_STRATEGY_SIMPLE,
                encoding_pb2.AGGREGATION_STRATEGY_FIRST,
            )
        ],
        Task.RERANK: [
            encoding_pb2.RerankRequest(query="a b", documents=["c d", "e"], top_n=top_n)
            for top_n in (1, 2)
        ],
        Task.FILL_MASK: [
            encoding_pb2.FillMaskRequest(inputs=["a [MASK] c"], top_k=top_k) for top_k in (1, 3)
        ],
    }
    methods = {task: task.title().replace("_", "") for task in requests}
    async with serving(models=heads) as plain, serving(models=heads, **KEPT) as running:
        for task, (first, second) in requests.items():
            computed = await getattr(plain.encoding, methods[task])(second)
            await getattr(running.encoding, methods[task])(first)
            kept = await getattr(running.encoding, methods[task])(second)
            assert all(timing.is_cached for timing in timings(kept)), task
            assert without_timing(kept) == without_timing(computed)
            assert read(running, "response_cache_misses", task) > 0


async def test_batch_computes_only_what_is_new(serving: MakeServer) -> None:
    """Known texts among others are not computed, whatever is made of their vectors."""
    async with serving(**KEPT) as running:
        await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=TEXTS))
        reply = await running.encoding.Embed(
            encoding_pb2.EmbedRequest(inputs=[*TEXTS, "a dog"], dimensions=8, normalize=True)
        )
        assert read(running, "source_tokens", "sentence") == (
            sum(one.token_count for one in reply.embeddings)
        )
    assert [one.timing.is_cached for one in reply.embeddings] == [True] * 3 + [False]


async def test_nothing_is_kept_by_default(serving: MakeServer) -> None:
    """Nothing stands before the lanes either."""
    async with serving() as running:
        assert [model.shared_answers for model in running.registry.models] == [None] * 3
        for _ in range(2):
            reply = await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=TEXTS))
            assert not any(timing.is_cached for timing in timings(reply))
        assert read_size(running, "entries") == read_size(running, "bytes") == 0


async def stream(
    running: RunningServer, one: generation_pb2.GenerateInput
) -> tuple[str, list[int], generation_pb2.GenerateResult, int]:
    """Text and tokens of the pieces, the result, and how many pieces there were."""
    request = generation_pb2.GenerateStreamRequest(model_name="tiny", input=one)
    messages = [message async for message in running.generation.GenerateStream(request)]
    pieces = [message.piece for message in messages[:-1]]
    tokens = [token for piece in pieces for token in piece.token_ids]
    return "".join(piece.text for piece in pieces), tokens, messages[-1].result, len(pieces)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"stop_sequences": ["o", "i"]}, {"do_sample": True, "seed": 4}],
    ids=str,
)
async def test_stream_of_what_was_kept_has_the_whole_text(
    serving: MakeServer, options: dict[str, Any]
) -> None:
    """In one piece (and what a stop sequence had held back): nothing is lost or comes twice."""
    async with serving(**KEPT) as running:
        one = source([5, 6, 1], min_new_tokens=5, max_new_tokens=8, **options)
        one.target_prefix_text = "ba be"
        computed = await stream(running, one)
        kept = await stream(running, one)
        unary = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])
        )
    assert not computed[2].timing.is_cached
    assert kept[2].timing.is_cached
    assert unary.results[0].timing.is_cached
    assert kept[:2] == computed[:2]
    assert kept[0] == kept[2].hypotheses[0].text
    assert kept[3] <= 2
    for result in (kept[2], unary.results[0]):
        assert result.hypotheses == computed[2].hypotheses


async def test_tensors_are_answered_with_what_was_kept(serving: MakeServer) -> None:
    """Texts and token ids of the Open Inference Protocol share answers with other calls."""
    async with serving(**KEPT) as running:
        first, second = [
            await stub(running).ModelInfer(tensors("sentence", texts(*TEXTS))) for _ in range(2)
        ]
        await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=TEXTS))
        statistics = await stub(running).ModelStatistics(
            messages.ModelStatisticsRequest(name="sentence")
        )
    assert second == first
    (found,) = statistics.model_stats
    counts = found.inference_stats
    assert (counts.cache_hit.count, counts.cache_miss.count) == (6, 3)
    assert (counts.success.count, found.inference_count) == (9, 3)


async def test_targets_that_are_drawn_anew_are_not_kept(serving: MakeServer) -> None:
    """Without a seed each call draws others; with one they are the same, and kept."""
    async with serving(**KEPT) as running:

        async def draw(**options: Any) -> Any:
            one = source([5, 6, 1], do_sample=True, temperature=5.0, **options)
            request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])
            return (await running.generation.Generate(request)).results[0]

        drawn = [await draw() for _ in range(3)]
        assert len({result.seed for result in drawn}) == 3
        assert read_size(running, "entries") == 0
        again = await draw(seed=drawn[0].seed)
        assert again.hypotheses == drawn[0].hypotheses
        assert (await draw(seed=drawn[0].seed)).timing.is_cached


async def test_reload_forgets_what_was_kept(
    serving: MakeServer, store: Path, tmp_path: Path
) -> None:
    """A version that is loaded again may be another model."""
    for name in ("sentence", "tiny"):
        copy_version(store / name / "1", tmp_path / name / "1")
    request = encoding_pb2.EmbedRequest(inputs=TEXTS)
    async with serving(models=tmp_path, allow_model_control=True, **KEPT) as running:
        await running.encoding.Embed(request)
        await running.generation.Generate(CALLS["Generate"][1])
        assert read_size(running, "entries") == 3 + 4
        version: dict[str, Any] = {"model_name": "sentence", "model_version": "1"}
        await running.model.UnloadModel(model_pb2.UnloadModelRequest(**version))
        assert read_size(running, "entries") == 4
        await running.model.LoadModel(model_pb2.LoadModelRequest(**version))
        reply = await running.encoding.Embed(request)
        assert not any(timing.is_cached for timing in timings(reply))
        reply = await running.encoding.Embed(request)
        assert all(timing.is_cached for timing in timings(reply))
        others = await running.generation.Generate(CALLS["Generate"][1])
        assert all(timing.is_cached for timing in timings(others))


async def test_cache_stays_within_its_bytes(serving: MakeServer) -> None:
    """What was asked for the longest ago goes."""
    async with serving(response_cache_bytes=20_000) as running:
        for index in range(60):
            text = " ".join("ab"[index >> bit & 1] for bit in range(6))
            await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=[text]))
            assert read_size(running, "bytes") <= 20_000
        value = running.metrics.registry.get_sample_value
        evicted = value("seqserve_response_cache_evictions_total")
        assert evicted == 60 - read_size(running, "entries")
        assert evicted > 0


async def test_calls_say_what_they_do_not_want(serving: MakeServer) -> None:
    """To be answered with what was kept, or to have anything kept."""
    request = encoding_pb2.EmbedRequest(inputs=TEXTS[:1])
    async with serving(**KEPT, deduplicate=True) as running:

        async def is_cached(*values: str) -> bool:
            metadata = [("seqserve-cache", value) for value in values]
            reply = await running.encoding.Embed(request, metadata=metadata)
            return bool(reply.embeddings[0].timing.is_cached)

        assert not await is_cached("no-store")
        assert read_size(running, "entries") == 0
        assert not await is_cached("no-cache")
        assert read_size(running, "entries") == 1
        assert not await is_cached("no-cache")
        assert not await is_cached("no-store")
        assert await is_cached()
        assert read(running, "response_cache_hits", "sentence") == 1
        for values, problem in (
            (["max-age=3"], "must be `no-cache` or `no-store`"),
            (["no-cache", "no-cache"], "must be given once, not 2 times"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await is_cached(*values)
            assert status_of(caught.value).startswith(
                f"INVALID_ARGUMENT: the metadata key `seqserve-cache` {problem}"
            )


async def test_error_is_not_kept(serving: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call is computed."""
    run = GenerationEngine.run

    def fail(*_: Any) -> Any:
        raise RuntimeError("planted")

    request = CALLS["Generate"][1]
    async with serving(**KEPT, deduplicate=True) as running:
        monkeypatch.setattr(GenerationEngine, "run", fail)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(request)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        monkeypatch.setattr(GenerationEngine, "run", run)
        reply = await running.generation.Generate(request)
        assert not any(timing.is_cached for timing in timings(reply))
        assert running.num_outstanding == 0
