"""The key-value cache: parallel copies, resizing without loss and within the budget, sources."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seqserve.batch import RowCopy
from seqserve.cache import KeyValueCache, Tensor
from seqserve.cache_budget import NOTHING, CacheExtent, CacheResize

EXTENT = CacheExtent(5, 64, 96)


def make_cache() -> KeyValueCache:
    """A cache of 1 layer, 2 heads of size 3 and 5 rows, filled with numbers that differ."""
    cache = KeyValueCache(num_layers=1, num_heads=2, head_size=3)
    cache.resize(CacheResize(EXTENT, NOTHING))
    start = 0
    for tensor in (*cache.target, *cache.source):
        tensor[:] = np.arange(start, start + tensor.size, dtype=np.float32).reshape(tensor.shape)
        start += tensor.size
    return cache


def content(tensors: list[Tensor]) -> NDArray[np.floating[Any]]:
    """A copy of one side, [2L, R, H, P, D]."""
    return np.stack(tensors)


def test_copies_happen_at_once() -> None:
    """Two rows can swap: every source is read before any row is written."""
    cache = make_cache()
    target, source = content(cache.target), content(cache.source)
    cache.copy_rows([RowCopy(0, 1, 64, 96), RowCopy(1, 0, 64, 96), RowCopy(1, 2, 64, 96)])
    order = [1, 0, 1, 3, 4]
    assert np.array_equal(content(cache.target), target[:, order])
    assert np.array_equal(content(cache.source), source[:, order])


def test_only_valid_prefixes_are_copied() -> None:
    """Beyond the longest valid length of the copies nothing is written."""
    cache = make_cache()
    target, source = content(cache.target), content(cache.source)
    cache.copy_rows([RowCopy(3, 0, 5, 7), RowCopy(4, 1, 2, 9)])
    new_target, new_source = content(cache.target), content(cache.source)
    assert np.array_equal(new_target[:, 0, :, :5], target[:, 3, :, :5])
    assert np.array_equal(new_target[:, 1, :, :2], target[:, 4, :, :2])
    assert np.array_equal(new_target[:, :, :, 5:], target[:, :, :, 5:])
    assert np.array_equal(new_source[:, 0, :, :7], source[:, 3, :, :7])
    assert np.array_equal(new_source[:, 1, :, :9], source[:, 4, :, :9])
    assert np.array_equal(new_source[:, :, :, 9:], source[:, :, :, 9:])


def test_source_length_zero_leaves_the_source_alone() -> None:
    """A copy within one sequence moves only the target; a neighbour's source still moves."""
    cache = make_cache()
    source = content(cache.source)
    cache.copy_rows([RowCopy(0, 1, 4, 0), RowCopy(2, 3, 4, 6)])
    assert np.array_equal(content(cache.source)[:, 1], source[:, 1])
    assert np.array_equal(content(cache.source)[:, 3, :, :6], source[:, 2, :, :6])


def test_no_copies_is_no_work() -> None:
    """An empty list of copies changes nothing."""
    cache = make_cache()
    target = content(cache.target)
    cache.copy_rows([])
    assert np.array_equal(content(cache.target), target)


@pytest.mark.parametrize(
    ("extent", "replaced"),
    [
        (EXTENT._replace(target_length=128), "target"),
        (EXTENT._replace(source_length=64), "source"),
        (CacheExtent(3, 96, 32), "target source"),
        (EXTENT, ""),
    ],
)
def test_resizing_keeps_valid_content(extent: CacheExtent, replaced: str) -> None:
    """Sides that change are replaced, with the valid prefixes of the first rows; others stay."""
    cache = make_cache()
    generation = cache.generation
    arrays = {"target": list(cache.target), "source": list(cache.source)}
    cache.resize(CacheResize(extent, CacheExtent(3, 40, 20)))
    assert cache.extent == extent
    assert cache.generation == generation + 1
    for side, old in arrays.items():
        new = getattr(cache, side)
        assert all((new[i] is old[i]) == (side not in replaced) for i in range(2))
        length = 40 if side == "target" else 20
        for i in range(2):
            assert np.array_equal(new[i][:3, :, :length], old[i][:3, :, :length])
            positions = extent.target_length if side == "target" else extent.source_length
            assert new[i].shape == (extent.num_rows, 2, positions, 3)


extents = st.builds(CacheExtent, st.integers(1, 9), st.integers(2, 300), st.integers(1, 300))


class CountingCache(KeyValueCache):
    """Remembers the most bytes that existed at once."""

    most_bytes = 0

    def _allocate(self, num_rows: int, length: int) -> Tensor:
        tensor = super()._allocate(num_rows, length)
        held = [*getattr(self, "target", []), *getattr(self, "source", [])]
        self.most_bytes = max(self.most_bytes, tensor.nbytes + sum(old.nbytes for old in held))
        return tensor


@given(needs=st.lists(extents, max_size=12), num_layers=st.integers(1, 3))
def test_no_more_is_ever_allocated_than_budgeted(needs: list[CacheExtent], num_layers: int) -> None:
    """While arrays are replaced, old and new ones together stay within the budget."""
    cache = CountingCache(num_layers=num_layers, num_heads=2, head_size=3)
    budget = cache.budget(max_bytes=60_000 * num_layers, max_rows=8)
    for need in needs:
        granted = budget.grant(need, cache.extent)
        if granted is None:
            assert budget.bytes_for(need) > budget.max_bytes or need.num_rows > 8
        elif granted != cache.extent:
            assert granted.covers(need)
            cache.resize(CacheResize(granted, NOTHING))
    assert cache.most_bytes <= budget.max_bytes


def test_released_cache_has_no_bytes() -> None:
    """After a release nothing is left, and it can be used again."""
    cache = make_cache()
    cache.release()
    assert sum(tensor.nbytes for tensor in (*cache.target, *cache.source)) == 0
    assert cache.extent == NOTHING
    cache.resize(CacheResize(EXTENT, NOTHING))
    assert cache.target[0].shape == (5, 2, 64, 3)


def test_source_is_written_to_every_row_of_its_sequence() -> None:
    """All hypotheses of a sequence get its valid keys and values; other rows keep theirs."""
    cache = make_cache()
    before = content(cache.source)
    generator = np.random.default_rng(0)
    layers = [generator.normal(size=(2, 2, 9, 3)).astype(np.float32) for _ in range(2)]
    cache.write_source([1, 2, 4], layers, index=1, length=6)
    after = content(cache.source)
    for row in (1, 2, 4):
        for position in range(2):
            assert np.array_equal(after[position, row, :, :6], layers[position][1, :, :6])
    assert np.array_equal(after[:, [0, 3]], before[:, [0, 3]])
    assert np.array_equal(after[:, :, :, 6:], before[:, :, :, 6:])
