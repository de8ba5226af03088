"""What settings and options do to each other: stop sequences and prefixes, lanes and the cache."""

from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from seqserve.cache_budget import CacheExtent
from seqserve.client import AsyncClient, CallError
from seqserve.config import ServerConfig
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from seqserve.v1 import generation_pb2
from serving import MakeServer, source, status_of

TOKENS = [9, 8, 7, 6, 5, 1]


async def test_prefix_that_holds_a_stop_sequence_is_refused(serving: MakeServer) -> None:
    """Nothing could be generated behind it; the message names the input and the sequence."""
    async with serving() as running:
        target = f"127.0.0.1:{running.ports.grpc}"
        async with AsyncClient(target) as client:
            with pytest.raises(CallError) as caught:
                await client.generate(
                    ["a b", "c d"],
                    model="tiny",
                    target_prefix=["ba be", "da de di"],
                    stop_sequences=["zz", "e d"],
                )
            assert str(caught.value) == (
                "INVALID_ARGUMENT: the target prefix already contains the stop sequence 'e d'; "
                "take it out of the prefix or of `stop_sequences`"
            )
            assert list(caught.value.fields) == ["inputs[1]"]
            stream = client.generate_stream(
                "a b", model="tiny", target_prefix="ba", stop_sequences=["ba"]
            )
            with pytest.raises(CallError, match="already contains the stop sequence 'ba'"):
                _ = [piece async for piece in stream]
            # Prefixes of token ids are read as texts, too.
            one = source(TOKENS, stop_sequences=["ba"])
            one.target_prefix_token_ids.values.extend([4, 5])
            request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.generation.Generate(request)
            assert status_of(refused.value).startswith(
                "INVALID_ARGUMENT: the target prefix already contains the stop sequence"
            )
            assert running.num_outstanding == 0


async def test_stop_sequence_may_begin_in_the_prefix(serving: MakeServer) -> None:
    """It ends the target at the token that completes it, prefix or not."""
    async with serving() as running, AsyncClient(f"127.0.0.1:{running.ports.grpc}") as client:
        (plain,) = await client.generate("a b c", model="tiny", target_prefix="ba be")
        first = plain.hypotheses[0].text.split()[2]
        stop = f"e {first}"
        options: dict[str, Any] = {"target_prefix": "ba be", "stop_sequences": [stop]}
        (greedy,) = await client.generate("a b c", model="tiny", **options)
        (only,) = greedy.hypotheses
        assert (only.text, only.stop_sequence, len(only.token_ids)) == ("ba b", stop, 3)
        (beams,) = await client.generate(
            "a b c", model="tiny", num_beams=3, num_return_sequences=3, **options
        )
        assert not any(stop in one.text for one in beams.hypotheses)


def open_tiny(store: Path, name: str = "tiny", **settings: int) -> tuple[int, list[int], float]:
    """What the cache of a model may take: the budget, that of each lane, the gauge."""
    metrics = Metrics()
    model = open_model(store / name / "1", ServerConfig(threads=2, **settings), metrics)
    assert model.budget is not None
    gauge = metrics.registry.get_sample_value(
        "seqserve_cache_budget_bytes", {"model_name": name, "model_version": "1"}
    )
    assert gauge is not None
    lanes = []
    for worker in model.lanes.workers:
        assert worker._scheduler._intake._budget is not None
        lanes.append(worker._scheduler._intake._budget.max_bytes)
    return model.budget.max_bytes, lanes, gauge


def test_lanes_share_what_is_set_for_the_cache(store: Path) -> None:
    """Each has an equal part, and the gauge shows all of it."""
    for num_lanes in (1, 2, 3):
        share = 6_000_000 // num_lanes
        assert open_tiny(store, lanes=num_lanes, cache_bytes=6_000_000) == (
            share,
            [share] * num_lanes,
            share * num_lanes,
        )


def test_lanes_share_the_memory(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a quarter of it; but each lane has what an input of full length takes."""
    monkeypatch.setattr("seqserve.lane_engine.available_memory", lambda: 2**30)
    assert open_tiny(store, lanes=2) == (2**27, [2**27] * 2, 2**28)
    monkeypatch.setattr("seqserve.lane_engine.available_memory", lambda: 2**10)
    model = open_model(store / "long" / "1", ServerConfig(threads=2, lanes=2), Metrics())
    assert model.budget is not None
    full = model.budget.bytes_for(CacheExtent(1, 200, 300))
    assert open_tiny(store, "long", lanes=2) == (full, [full] * 2, 2 * full)


def test_budget_that_is_enough_for_one_lane_only_is_warned_of(store: Path) -> None:
    """The warning counts all lanes."""
    model = open_model(store / "long" / "1", ServerConfig(threads=2, lanes=1), Metrics())
    assert model.budget is not None
    full = model.budget.bytes_for(CacheExtent(1, 200, 300))
    with structlog.testing.capture_logs() as logs:
        open_tiny(store, "long", lanes=1, cache_bytes=full)
        assert logs == []
        open_tiny(store, "long", lanes=2, cache_bytes=full)
    (entry,) = logs
    assert (entry["cache_bytes"], entry["needed_bytes"]) == (full // 2 * 2, 2 * full)
