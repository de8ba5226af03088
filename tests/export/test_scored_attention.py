"""Attention by other scores, as the graph of a decoder step."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from seqserve.session import open_session
from seqserve_export.onnx_writer import write_graph
from seqserve_export.transformer_config import BlockConfig
from seqserve_export.variants.score import AdditiveScore
from seqserve_export.variants.scored_attention import ScoredSelfAttention
from seqserve_export.weight_file import WeightFile

CONFIG = BlockConfig(model_size=16, num_heads=2, head_size=8, feed_forward_size=16)
NUM_ROWS, CAPACITY = 7, 6


class StepGraph(nn.Module):
    """One step of self-attention by additive scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        score = AdditiveScore(CONFIG.num_heads, CONFIG.head_size)
        self.attention = ScoredSelfAttention(CONFIG, score)

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        return ["states", "lengths", "past_keys", "past_values"]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return ["attended", "keys", "values"]

    def forward(
        self, states: Tensor, lengths: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attends from states [B, 1, M] to what is in the cache [B, H, P, D], and itself."""
        attended, (keys, values) = self.attention(
            states, lengths, is_causal=True, past=(keys, values)
        )
        return attended, keys, values

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        batch, capacity = torch.export.Dim("batch_size"), torch.export.Dim("capacity")
        cache = {0: batch, 2: capacity}
        return make_inputs(3, 5), ({0: batch}, {0: batch}, cache, cache)


def make_inputs(num_rows: int, capacity: int) -> tuple[Tensor, ...]:
    """Random rows of different lengths."""
    generator = torch.Generator().manual_seed(num_rows)
    shape = (num_rows, CONFIG.num_heads, capacity, CONFIG.head_size)
    return (
        torch.randn(num_rows, 1, CONFIG.model_size, generator=generator),
        (torch.arange(num_rows) % capacity + 1).to(torch.int32),
        torch.randn(shape, generator=generator),
        torch.randn(shape, generator=generator),
    )


def test_step_is_that_of_torch_and_reads_nothing_beyond_its_row(tmp_path: Path) -> None:
    """What is behind the end of a row is NaN; no bit depends on rows or the size of the cache."""
    graph = StepGraph().eval()
    session = open_session(
        write_graph(graph, tmp_path, "step", WeightFile(tmp_path)), num_threads=1, is_decoding=True
    )
    inputs = make_inputs(NUM_ROWS, CAPACITY)
    with torch.inference_mode():
        expected = graph(*inputs)[0].numpy()

    def attend(rows: slice, capacity: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        states, lengths, *caches = (tensor[rows].numpy() for tensor in inputs)
        feeds = {"states": states, "lengths": lengths}
        for name, cache in zip(graph.input_names()[2:], caches, strict=True):
            wide = np.full((*cache.shape[:2], capacity, cache.shape[3]), np.nan, np.float32)
            for row, length in enumerate(lengths):
                wide[row, :, : length - 1] = cache[row, :, : length - 1]
            feeds[name] = wide
        attended: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
        (attended,) = session.run(["attended"], feeds)
        return attended

    together = attend(slice(None), CAPACITY)
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-6)
    for row in range(NUM_ROWS):
        alone = attend(slice(row, row + 1), CAPACITY + 9)
        assert alone[0].tobytes() == together[row].tobytes()
