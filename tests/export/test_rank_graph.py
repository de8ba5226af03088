"""The graph that ranks, as the server runs it, against numpy; export refuses a bad one."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from seqserve.errors import ModelFolderError
from seqserve.ranker import Ranker, open_ranker
from seqserve.ranking import rank_rows
from seqserve_export.errors import VerificationError
from seqserve_export.rank_graph import choose_group_size, write_rank_graph
from seqserve_export.rank_verification import compare_rankings


def open_rank(folder: Path, vocabulary_size: int) -> Ranker:
    """The graph for a vocabulary, opened."""
    return open_ranker(write_rank_graph(folder, vocabulary_size), num_threads=1)


@pytest.mark.parametrize("vocabulary_size", [1, 2, 43, 127, 128, 129, 1000, 1009, 58_101])
@pytest.mark.parametrize("count", [1, 8, 41])
def test_it_ranks_as_numpy_does(tmp_path: Path, vocabulary_size: int, count: int) -> None:
    """Vocabularies smaller than a group, of whole groups and not; equal logits in their order."""
    rank = open_rank(tmp_path, vocabulary_size)
    generator = np.random.default_rng(vocabulary_size)
    logits = generator.integers(-6, 6, (13, vocabulary_size)).astype(np.float32)
    logits[:, generator.random(vocabulary_size) < 0.1] = -math.inf
    logits[:, 0] = 0.0
    tokens, log_probabilities = rank(logits, count)
    expected_tokens, expected = rank_rows(logits, count)
    assert tokens.tolist() == expected_tokens.tolist()
    np.testing.assert_allclose(log_probabilities, expected, atol=1e-5)


def test_groups_fit_the_vocabulary_where_they_can() -> None:
    """Divisors near 128; else padding."""
    assert [choose_group_size(size) for size in (58_101, 32_128, 250_027, 65_001, 43, 60)] == [
        *(107, 128, 128, 141, 128, 60),
    ]


def test_rows_do_not_depend_on_each_other(tmp_path: Path) -> None:
    """Alone, in a batch of several chunks, and with more tokens asked for: the same bits."""
    rank = open_rank(tmp_path, 58_101)
    generator = np.random.default_rng(3)
    logits = generator.standard_normal((33, 58_101)).astype(np.float32)
    tokens, log_probabilities = rank(logits, 9)
    for row in (0, 8, 9, 17, 32):
        more_tokens, more = rank(logits[row : row + 1], 40)
        assert more_tokens[0, :9].tolist() == tokens[row].tolist()
        assert more[0, :9].tobytes() == log_probabilities[row].tobytes()


@pytest.mark.parametrize("place", [0, 63, 1008])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_marked(tmp_path: Path, place: int, bad: float) -> None:
    """Wherever the number stands; the rows beside it are ranked."""
    rank = open_rank(tmp_path, 1009)
    logits = np.zeros((3, 1009), np.float32)
    logits[1, place] = bad
    _, log_probabilities = rank(logits, 4)
    assert np.isnan(log_probabilities).all(axis=1).tolist() == [False, True, False]


def test_a_row_without_tokens_is_marked(tmp_path: Path) -> None:
    """Minus infinity everywhere is no distribution."""
    rank = open_rank(tmp_path, 70)
    assert np.isnan(rank(np.full((1, 70), -math.inf, np.float32), 2)[1]).all()


def test_the_file_holds_nothing_of_the_machine(tmp_path: Path) -> None:
    """The same bytes each time, a few kilobytes."""
    first, again = (write_rank_graph(tmp_path, 1009).read_bytes() for _ in range(2))
    assert first == again
    assert len(again) < 4096


def test_a_graph_that_finds_other_tokens_is_refused(tmp_path: Path) -> None:
    """Export fails, and names the row."""
    model = onnx.load(write_rank_graph(tmp_path, 500))
    for node in model.graph.node:
        if node.op_type == "ReduceMax":
            node.op_type = "ReduceMin"
    onnx.save(model, tmp_path / "rank.onnx")
    with pytest.raises(VerificationError, match=r"row 0, best 1 is .* expected"):
        compare_rankings(tmp_path / "rank.onnx", 500)


def test_another_graph_is_refused(tmp_path: Path) -> None:
    """A model folder whose file is not the graph the manifest means."""
    model = onnx.load(write_rank_graph(tmp_path, 500))
    model.graph.input[1].name = "number"
    for node in model.graph.node:
        node.input[:] = ["number" if name == "count" else name for name in node.input]
    onnx.save(model, tmp_path / "rank.onnx")
    with pytest.raises(ModelFolderError, match="no input count, unknown input number"):
        open_ranker(tmp_path / "rank.onnx", num_threads=1)
