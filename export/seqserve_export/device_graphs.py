"""What devices need besides the graphs of a model, since the server cannot touch their memory.

* :class:`MoveRowsGraph` copies rows of caches.
* :class:`BestTokensGraph` names the best tokens, so that logits need not leave the device.

Models in half precision have both: other formats are for processors.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqserve_export.transformer import Transformer


def row_names(prefix: str, num_layers: int) -> list[str]:
    """Names of the tensors of whichever side :class:`MoveRowsGraph` works on."""
    return [f"{prefix}.{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]


class MoveRowsGraph(nn.Module):
    """``source_rows, target_rows, caches, origins -> caches``, one side of a cache.

    All rows are read before any is written. The server binds caches before and after to one buffer,
    so that only the target rows are touched. Origins are the caches themselves, others of another
    capacity, or what the encode graph returns.
    """

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self._config = model.config
        self._dtype = model.cache_dtype

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        num_layers = self._config.num_decoder_layers
        caches = row_names("past_key_values", num_layers)
        origins = row_names("origin_key_values", num_layers)
        return ["source_rows", "target_rows", *caches, *origins]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return row_names("present", self._config.num_decoder_layers)

    def forward(
        self, source_rows: Tensor, target_rows: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Writes rows of origins [B, H, S, D] to caches [R, H, P, D], cut or padded to P.

        Args:
            source_rows: Rows of the origins, [N].
            target_rows: Where they go, [N], all different.
            tensors: Keys and values of every layer: the caches, then the origins.
        """
        half = len(tensors) // 2
        presents = []
        for cache, origin in zip(tensors[:half], tensors[half:], strict=True):
            capacity = cache.shape[2]
            rows = origin.index_select(0, source_rows)
            # Padded by more than it takes, then cut: one way for origins longer and shorter.
            rows = functional.pad(rows, (0, 0, 0, capacity))[:, :, :capacity]
            presents.append(cache.index_put((target_rows,), rows))
        return tuple(presents)

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        num_moves, num_rows = torch.export.Dim("num_moves"), torch.export.Dim("num_rows")
        capacity, batch = torch.export.Dim("capacity"), torch.export.Dim("batch_size")
        origin_capacity = torch.export.Dim("origin_capacity")
        config, dtype = self._config, self._dtype
        num_tensors = 2 * config.num_decoder_layers
        cache = torch.zeros(5, config.num_heads, 8, config.head_size, dtype=dtype)
        origin = torch.zeros(3, config.num_heads, 6, config.head_size, dtype=dtype)
        inputs = (
            torch.tensor([0, 2]),
            torch.tensor([4, 1]),
            *[cache.clone() for _ in range(num_tensors)],
            *[origin.clone() for _ in range(num_tensors)],
        )
        tensors = (
            *[{0: num_rows, 2: capacity}] * num_tensors,
            *[{0: batch, 2: origin_capacity}] * num_tensors,
        )
        return inputs, ({0: num_moves}, {0: num_moves}, tensors)


class BestTokensGraph(nn.Module):
    """``logits -> best_tokens``.

    Not a part of the decode graph: onnxruntime computes all outputs of a graph, wanted or not.
    """

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self._vocabulary_size = model.config.target_vocabulary_size

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        return ["logits"]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return ["best_tokens"]

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Finds the first of the best tokens of each row of logits [B, V]: [B].

        -1 where one is NaN, or the best is infinite.
        """
        # What a maximum makes of NaN, and which of several equal ones argmax finds, is up to the
        # kernel. Places are exact in fp32: vocabularies have fewer than 2^24 tokens.
        largest = torch.where(logits.isnan(), torch.inf, logits).amax(dim=1, keepdim=True)
        places = torch.arange(self._vocabulary_size, dtype=torch.float32)
        firsts = torch.where(logits == largest, places, float(self._vocabulary_size)).amin(dim=1)
        return (torch.where(largest[:, 0].isinf(), -1.0, firsts).to(torch.int64),)

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        logits = torch.zeros(2, self._vocabulary_size)
        return (logits,), ({0: torch.export.Dim("batch_size")},)
