"""Verifies the graph of an encoder with a head against torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from seqserve_export.encoder_answers import make_graph, split_logits
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.onnx_runner import Floats, SourceRunner
from seqserve_export.precision import TOLERANCES, Dtype
from seqserve_export.source import PredictionSource
from seqserve_export.verification import (
    NUM_INVARIANCE_ROWS,
    SEED,
    Comparison,
    Verification,
    longest_verified,
    make_row,
    make_sources,
    make_token_types,
    mask_some,
    to_floats,
    tokenize_samples,
    torch_reference,
)

_MAX_RANDOM_LENGTH = 48

_Source = tuple[list[int], list[int]]
"""Tokens of a source, and their types."""


class PredictionVerifier:
    """Holds the model in both forms."""

    def __init__(
        self,
        source: PredictionSource,
        path: Path,
        *,
        model: EncoderModel | None = None,
        dtype: Dtype = "fp32",
    ) -> None:
        """Opens the graph.

        Args:
            source: The original, in fp32.
            path: The graph.
            model: What was exported, if that is not the original itself.
            dtype: Its number format.
        """
        self._source = source
        self._dtype = dtype
        self._has_token_types = source.record.has_token_types
        self._mask_token = source.mask_token
        self._graph = make_graph(source, source.model if model is None else model)
        self._graph.eval()
        self._runner = SourceRunner(path, source.model.config.vocabulary_size - 1)
        self._generator = np.random.default_rng(SEED)

    def verify(self) -> Verification:
        """Makes all comparisons: torch and ONNX, then ONNX alone and in a batch.

        Raises:
            VerificationError: Names the check and the row that differ.
        """
        with torch_reference():
            logits = self.compare_logits()
            invariance = self.compare_alone()
        return Verification(
            records=(logits.to_record(), invariance.to_record()),
            is_batch_invariant=invariance.is_bit_identical,
        )

    def compare_logits(self) -> Comparison:
        """Compares logits of rows alone in torch with the same rows in ragged batches in ONNX."""
        # Not of norms: that of a few logits may be next to nothing.
        tolerance = TOLERANCES[self._dtype].encoder
        comparison = Comparison("predict: torch and ONNX, ragged batches", tolerance)
        source = self._source
        samples = tokenize_samples(source.tokenizer, source.samples, source.max_source_length)
        longest = longest_verified(source.model.config, source.max_source_length)
        batches = [self._complete(samples), self._make_sources(1, longest)]
        sizes = (1, 2, 7, NUM_INVARIANCE_ROWS)
        batches += [self._make_sources(size, _MAX_RANDOM_LENGTH) for size in sizes]
        for batch in filter(None, batches):
            actual = self._run(batch)
            for row, (tokens, types) in enumerate(batch):
                token_types = torch.tensor([types]) if self._has_token_types else None
                expected = to_floats(self._graph(*make_row(tokens), token_types))
                if expected.ndim > 2:
                    expected = expected[0]  # [1, S, V] -> [S, V]
                where = f"logits of row {row} in a batch of {len(batch)}"
                comparison.add(expected, actual[row], where)
        return comparison

    def compare_alone(self) -> Comparison:
        """Compares rows alone with the same rows in a ragged batch."""
        comparison = Comparison(f"predict: rows alone and in a batch of {NUM_INVARIANCE_ROWS}")
        batch = self._make_sources(NUM_INVARIANCE_ROWS, _MAX_RANDOM_LENGTH)
        together = self._run(batch)
        for row, source in enumerate(batch):
            comparison.add(self._run([source])[0], together[row], f"logits of row {row}")
        return comparison

    def _run(self, batch: Sequence[_Source]) -> list[Floats]:
        """Logits of each row, without those of padding: [1, V], [S, V] or, of masks, [N, V]."""
        sources = [tokens for tokens, _ in batch]
        types = [types for _, types in batch] if self._has_token_types else None
        logits = self._runner.run(sources, types)["logits"]
        return split_logits(self._source, logits, sources)

    def _make_sources(self, num_sources: int, max_length: int) -> list[_Source]:
        return self._complete(
            make_sources(
                self._generator,
                num_sources,
                self._source.model.config.vocabulary_size,
                min(max_length, self._source.max_source_length),
            )
        )

    def _complete(self, sources: list[list[int]]) -> list[_Source]:
        """Adds masks and types of tokens."""
        if self._mask_token is not None:
            sources = [mask_some(self._generator, tokens, self._mask_token) for tokens in sources]
        return [(tokens, make_token_types(self._generator, len(tokens))) for tokens in sources]
