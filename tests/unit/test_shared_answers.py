"""Answers that are kept, and with whom they are shared: nobody meets the end of another."""

import asyncio
import dataclasses
import math

import pytest

from fakes import run_plainly
from running_worker import outcomes
from seqserve.batch import Batch, Outcome
from seqserve.errors import EngineError, UnavailableError
from seqserve.search_state import FinishReason
from seqserve.sharing import Sharing
from sharing_setting import future_of, make, sharing, tokens, wait_for


async def test_second_input_is_answered_with_what_was_kept() -> None:
    """At once, without a computation, and it says so."""
    async with sharing() as setting:
        computed = await setting.answer(make())
        sequence = make()
        setting.submit(sequence)
        assert future_of(sequence).done()
        kept = future_of(sequence).result()
        assert kept.hypotheses == computed.hypotheses
        assert not computed.timing.is_cached
        assert kept.timing.is_cached
        assert dataclasses.astuple(kept.timing)[:3] == (0.0, 0.0, 0.0)
        assert setting.num_computed == 1
        counts = [setting.count(f"response_cache_{name}") for name in ("hits", "misses")]
    assert counts == [1, 1]


async def test_nothing_is_kept_without_a_cache() -> None:
    """Each is computed, one after the other."""
    async with sharing(keeps=False) as setting:
        await setting.answer(make())
        answer = await setting.answer(make())
        assert not answer.timing.is_cached
        assert setting.num_computed == 2
        assert len(setting.cache) == 0
        assert setting.count("response_cache_misses") == 0


@pytest.mark.parametrize(
    ("first", "second", "is_hit"),
    [
        (Sharing("a"), Sharing("a"), True),
        (Sharing("a"), Sharing("b"), False),
        (Sharing("a"), Sharing(), False),
        (Sharing(), Sharing(takes=False), False),
        (Sharing(takes=False), Sharing(), True),
        (None, Sharing(), False),
        (Sharing(), None, False),
    ],
    ids=str,
)
async def test_only_those_share_who_may_and_want(
    first: Sharing | None, second: Sharing | None, is_hit: bool
) -> None:
    """What one gives, another of its group may take, later or at the same time."""
    async with sharing() as setting:
        await setting.answer(make(sharing=first))
        answer = await setting.answer(make(sharing=second))
        assert answer.timing.is_cached == is_hit
    async with sharing(keeps=False) as setting:
        setting.close_gate()
        sequences = [make(sharing=first), make(sharing=second)]
        setting.submit(*sequences)
        setting.engine.gate.set()
        await outcomes([future_of(one) for one in sequences])
        is_shared = is_hit and first is not None and first.takes
        assert setting.count("deduplicated") == is_shared


async def test_stream_is_sent_what_was_kept() -> None:
    """All tokens at once, before its answer; and what a stream ends with is kept for others."""
    async with sharing() as setting:
        whole: list[int] = []
        computed = await setting.answer(make(on_tokens=whole.extend))
        pieces: list[list[int]] = []
        kept = await setting.answer(make(on_tokens=pieces.append))
        assert tuple(whole) == tokens(computed) == tokens(kept)
        assert pieces == [whole]
        assert setting.num_computed == 1


async def test_streams_and_time_limits_do_not_wait_for_others() -> None:
    """They want what there is so far; each is computed by itself."""
    async with sharing(keeps=False) as setting:
        setting.close_gate()
        streamed: list[int] = []
        sequences = [
            make(),
            make(on_tokens=streamed.extend),
            make(stop_at=math.inf),
            make(stop_at=1e12),
        ]
        setting.submit(*sequences)
        setting.engine.gate.set()
        found = await outcomes([future_of(one) for one in sequences])
        assert len({tokens(one) for one in found}) == 1
        assert setting.num_computed == 3
        assert setting.count("deduplicated") == 1


async def test_what_a_time_limit_cut_short_is_not_kept() -> None:
    """Though it is an answer; one that ended before its limit is."""
    async with sharing() as setting:
        cut = await setting.answer(make(max_new_tokens=50, stop_at=0.0))
        assert cut.hypotheses[0].finish_reason is FinishReason.TIME
        assert len(setting.cache) == 0
        whole = await setting.answer(make(max_new_tokens=50, stop_at=1e12))
        assert len(tokens(whole)) == 50
        again = await setting.answer(make(max_new_tokens=50, stop_at=0.0))
        assert again.timing.is_cached
        assert tokens(again) == tokens(whole)


async def test_error_is_neither_kept_nor_shared() -> None:
    """Whoever was computed gets it; who waited along is computed by itself, and so is the next."""
    faults = iter([RuntimeError("planted")])

    def fail_once(batch: Batch) -> list[Outcome]:
        for fault in faults:
            raise fault
        return run_plainly(batch)

    async with sharing() as setting:
        setting.engine.script = fail_once
        setting.close_gate()
        sequences = [make() for _ in range(3)]
        setting.submit(*sequences)
        setting.engine.gate.set()
        first, *others = await outcomes([future_of(one) for one in sequences])
        assert isinstance(first, EngineError)
        assert [tokens(one) for one in others] == [(10, 11, 12)] * 2
        assert setting.num_computed == 3
        assert len(setting.cache) == 1
        assert setting.count("deduplicated") == 0


async def test_lost_worker_is_told_to_all() -> None:
    """Those who waited along and those who come later, each once."""

    def die(batch: Batch) -> list[Outcome]:
        raise SystemExit

    async with sharing() as setting:
        setting.engine.script = die
        setting.close_gate()
        sequences = [make() for _ in range(3)]
        setting.submit(*sequences)
        setting.engine.gate.set()
        found = await outcomes([future_of(one) for one in sequences])
        assert all(isinstance(one, UnavailableError) for one in found)
        last = make()
        with pytest.raises(UnavailableError, match="the model's worker was lost"):
            setting.submit(last)
        future_of(last).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_model_that_goes_keeps_nothing() -> None:
    """Neither what it kept nor what is computed for those who are left."""
    async with sharing() as setting:
        await setting.answer(make())
        setting.close_gate()
        streamed: list[int] = []
        late, later = make(source=[7]), make(source=[8], on_tokens=streamed.extend)
        setting.submit(late, later)
        setting.answers.close()
        assert len(setting.cache) == 0
        setting.engine.gate.set()
        for sequence in (late, later):
            assert tokens(await wait_for(sequence)) == (10, 11, 12)
        await asyncio.sleep(0)
        assert len(setting.cache) == 0
        assert not (await setting.answer(make())).timing.is_cached
