"""What is kept comes back as it was, and never takes more bytes than it may."""

import gc
import random
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.metrics import Metrics
from seqserve.response_cache import ResponseCache
from seqserve.search_state import FinishReason, Hypothesis, TokenLogProbability
from seqserve.sequence import Answer, EncoderOutput, Generation, Timing

TIMING = Timing(1.0, 2.0, 3.0)
OWNERS = (b"model one", b"model two")


def vector(size: int, value: float = 0.5) -> EncoderOutput:
    """An embedding."""
    return EncoderOutput(np.full(size, value, np.float32), TIMING)


def content(answer: Answer | None) -> Any:
    """All that an answer holds, every bit of it."""
    if isinstance(answer, EncoderOutput):
        arrays = [answer.values, answer.states, answer.indices]
        return [None if one is None else (one.dtype, one.shape, one.tobytes()) for one in arrays]
    return answer


FLOATS = st.floats(allow_nan=False)
HYPOTHESES = st.builds(
    Hypothesis,
    tokens=st.lists(st.integers(0, 250_000)).map(tuple),
    score=st.none() | FLOATS,
    log_probabilities=st.none() | st.lists(FLOATS).map(tuple),
    finish_reason=st.sampled_from(FinishReason),
    num_prefix_tokens=st.integers(0, 3),
    tops=st.lists(
        st.lists(st.builds(TokenLogProbability, st.integers(0, 9), FLOATS)).map(tuple)
    ).map(tuple),
    stop_sequence=st.none() | st.text(),
)
GENERATIONS = st.builds(Generation, st.lists(HYPOTHESES), st.just(TIMING))
ARRAYS = st.lists(st.floats(width=32)).map(lambda values: np.array(values, np.float32))
OUTPUTS = st.builds(
    EncoderOutput,
    ARRAYS,
    st.just(TIMING),
    st.none() | ARRAYS.map(lambda values: np.outer(values, np.ones(3, np.float32))),
    st.none() | ARRAYS.map(lambda values: np.arange(len(values), dtype=np.int32)),
)


@given(GENERATIONS | OUTPUTS)
def test_answer_comes_back_as_it_was(answer: Answer) -> None:
    """Bit for bit, each time, and as an object of its own."""
    cache = ResponseCache(10_000_000, Metrics())
    cache.keep(b"key", answer)
    first, second = cache.find(b"key"), cache.find(b"key")
    assert content(first) == content(second) == content(answer)
    assert first is not answer
    assert first is not second
    assert cache.find(b"other") is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), st.sampled_from(OWNERS), st.integers(0, 5), st.integers(0, 900)),
        st.tuples(st.just("find"), st.sampled_from(OWNERS), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.sampled_from(OWNERS)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 20_000))
def test_cache_behaves_like_its_model(steps: list[tuple[Any, ...]], max_bytes: int) -> None:
    """What was asked for last stays, within the bytes; a model that goes takes all of its own."""
    metrics = Metrics()
    cache = ResponseCache(max_bytes, metrics)
    kept: dict[bytes, int] = {}
    """What should be there, not asked for the longest first."""
    num_evicted = 0
    empty = ResponseCache(10**9, Metrics())
    for action, owner, *rest in steps:
        key = owner + bytes(rest[:1])
        if action == "drop":
            cache.drop(owner)
            kept = {one: size for one, size in kept.items() if not one.startswith(owner)}
        elif action == "find":
            found = cache.find(key)
            assert (found is None) == (key not in kept)
            if found is not None:
                kept[key] = kept.pop(key)
        else:
            answer = vector(rest[1])
            empty.keep(b"", answer)
            cache.keep(key, answer)
            kept.pop(key, None)
            if 8 * empty.num_bytes <= max_bytes:
                while sum(kept.values()) + empty.num_bytes > max_bytes:
                    del kept[next(iter(kept))]
                    num_evicted += 1
                kept[key] = empty.num_bytes
        assert cache.num_bytes == sum(kept.values()) <= max_bytes
        assert len(cache) == len(kept)
    value = metrics.registry.get_sample_value
    assert value("seqserve_response_cache_bytes") == cache.num_bytes
    assert value("seqserve_response_cache_entries") == len(cache)
    assert value("seqserve_response_cache_evictions_total") == num_evicted


def test_answer_that_would_push_out_too_many_is_not_kept() -> None:
    """Nor is what was kept under its key before, which nobody would look for again."""
    cache = ResponseCache(80_000, Metrics())
    cache.keep(b"key", vector(10))
    cache.keep(b"other", vector(10))
    cache.keep(b"key", vector(5_000))
    assert cache.find(b"key") is None
    assert cache.find(b"other") is not None


def traced_bytes() -> int:
    """Memory in use; a collection gives back what the interpreter holds ready to use again."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize("size", [1, 384])
def test_bytes_are_those_of_the_process(size: int) -> None:
    """10,000 answers take no more memory than they are counted as, and not much less."""
    generator = random.Random(size)
    max_bytes = 2_000_000
    cache = ResponseCache(max_bytes, Metrics())
    gc.freeze()  # what other tests have left is not looked through each time
    tracemalloc.start()
    before = traced_bytes()
    most = 0
    for index in range(10_000):
        cache.keep(OWNERS[0] + generator.randbytes(32), vector(size))
        if index % 500 == 499:
            most = max(most, traced_bytes() - before)
    tracemalloc.stop()
    gc.unfreeze()
    assert 0.9 * max_bytes < cache.num_bytes <= max_bytes
    assert 0.7 * max_bytes < most <= max_bytes
