"""The key-value cache: parallel copies, growth without loss, sources in every row."""

from typing import Any

import numpy as np
import pytest

from seqserve.cache import KeyValueCache
from seqserve.sequence import RowCopy


def make_cache(**settings: int) -> KeyValueCache:
    """A cache of 1 layer, 2 heads of size 3 and 5 rows, filled with numbers that differ."""
    shape: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "head_size": 3, "max_rows": 5}
    limits: dict[str, Any] = {"max_target_length": 200, "max_source_length": 300}
    cache = KeyValueCache(**shape, **{**limits, **settings})
    for array in (cache.target, cache.source):
        array[:] = np.arange(array.size, dtype=np.float32).reshape(array.shape)
    return cache


def test_copies_happen_at_once() -> None:
    """Two rows can swap: every source is read before any row is written."""
    cache = make_cache()
    target, source = cache.target.copy(), cache.source.copy()
    cache.copy_rows([RowCopy(0, 1, 64, 64), RowCopy(1, 0, 64, 64), RowCopy(1, 2, 64, 64)])
    order = [1, 0, 1, 3, 4]
    assert np.array_equal(cache.target, target[:, order])
    assert np.array_equal(cache.source, source[:, order])


def test_only_valid_prefixes_are_copied() -> None:
    """Beyond the longest valid length of the copies nothing is written."""
    cache = make_cache()
    target, source = cache.target.copy(), cache.source.copy()
    cache.copy_rows([RowCopy(3, 0, 5, 7), RowCopy(4, 1, 2, 9)])
    assert np.array_equal(cache.target[:, 0, :, :5], target[:, 3, :, :5])
    assert np.array_equal(cache.target[:, 1, :, :2], target[:, 4, :, :2])
    assert np.array_equal(cache.target[:, :, :, 5:], target[:, :, :, 5:])
    assert np.array_equal(cache.source[:, 0, :, :7], source[:, 3, :, :7])
    assert np.array_equal(cache.source[:, 1, :, :9], source[:, 4, :, :9])
    assert np.array_equal(cache.source[:, :, :, 9:], source[:, :, :, 9:])


def test_source_length_zero_leaves_the_source_alone() -> None:
    """A copy within one sequence moves only the target; a neighbour's source still moves."""
    cache = make_cache()
    source = cache.source.copy()
    cache.copy_rows([RowCopy(0, 1, 4, 0), RowCopy(2, 3, 4, 6)])
    assert np.array_equal(cache.source[:, 1], source[:, 1])
    assert np.array_equal(cache.source[:, 3, :, :6], source[:, 2, :, :6])


def test_no_copies_is_no_work() -> None:
    """An empty list of copies changes nothing."""
    cache = make_cache()
    target = cache.target.copy()
    cache.copy_rows([])
    assert np.array_equal(cache.target, target)


@pytest.mark.parametrize("side", ["target", "source"])
def test_growth_keeps_rows_and_counts_generations(side: str) -> None:
    """A longer text replaces one array by a larger one with the same content."""
    cache = make_cache()
    before: np.ndarray[Any, Any] = getattr(cache, side)
    cache.reserve(**{f"{side}_length": 64}, num_rows=3)
    assert getattr(cache, side) is before
    assert cache.generation == 0
    cache.reserve(**{f"{side}_length": 65}, num_rows=3)
    after = getattr(cache, side)
    assert (cache.generation, after.shape) == (1, (2, 5, 2, 128, 3))
    assert np.array_equal(after[:, :3, :, :64], before[:, :3])
    assert not after[:, :3, :, 64:].any()


def test_capacity_stops_at_the_limit() -> None:
    """Capacity doubles up to the longest text the model takes, and no further."""
    cache = make_cache()
    cache.reserve(target_length=129, source_length=300, num_rows=5)
    assert (cache.target.shape[3], cache.source.shape[3]) == (200, 300)


def test_target_capacity_is_at_least_two() -> None:
    """Even a model of one target token gets two positions: the operator takes one for a prompt."""
    cache = make_cache(max_target_length=1, max_source_length=1)
    assert (cache.target.shape[3], cache.source.shape[3]) == (2, 1)


def test_source_is_written_to_every_row_of_its_sequence() -> None:
    """All hypotheses of a sequence get its valid keys and values; other rows keep theirs."""
    cache = make_cache()
    before = cache.source.copy()
    generator = np.random.default_rng(0)
    layers = [generator.normal(size=(2, 2, 9, 3)).astype(np.float32) for _ in range(2)]
    cache.write_source([1, 2, 4], layers, index=1, length=6)
    for row in (1, 2, 4):
        for position in range(2):
            assert np.array_equal(cache.source[position, row, :, :6], layers[position][1, :, :6])
    assert np.array_equal(cache.source[:, [0, 3]], before[:, [0, 3]])
    assert np.array_equal(cache.source[:, :, :, 6:], before[:, :, :, 6:])
