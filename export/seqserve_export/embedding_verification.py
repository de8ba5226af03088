"""Verifies the embed graph of an encoder-only model against torch."""

from pathlib import Path

import numpy as np
import torch

from seqserve_export.encoder_answers import make_graph
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.onnx_runner import Floats, SourceRunner
from seqserve_export.pooling import normalize
from seqserve_export.precision import TOLERANCES, Dtype
from seqserve_export.source import EmbeddingSource
from seqserve_export.verification import (
    NUM_INVARIANCE_ROWS,
    SEED,
    Comparison,
    Verification,
    longest_verified,
    make_row,
    make_sources,
    to_floats,
    tokenize_samples,
    torch_reference,
)

_MAX_RANDOM_LENGTH = 48


class EmbeddingVerifier:
    """Holds the model in both forms."""

    def __init__(
        self,
        source: EmbeddingSource,
        embed_path: Path,
        *,
        model: EncoderModel | None = None,
        dtype: Dtype = "fp32",
    ) -> None:
        """Opens the graph.

        Args:
            source: The original, in fp32.
            embed_path: The graph.
            model: What was exported, if that is not the original itself.
            dtype: Its number format.
        """
        self._source = source
        self._dtype = dtype
        self._graph = make_graph(source, source.model if model is None else model)
        self._graph.eval()
        self._runner = SourceRunner(embed_path, source.model.config.vocabulary_size - 1)
        self._generator = np.random.default_rng(SEED)

    def verify(self) -> Verification:
        """Makes all comparisons: torch and ONNX, then ONNX alone and in a batch.

        Raises:
            VerificationError: Names the check, the tensor and the row that differ.
        """
        with torch_reference():
            comparisons = self.compare_embeddings()
            invariance = self.compare_alone()
        return Verification(
            records=tuple(comparison.to_record() for comparison in [*comparisons, invariance]),
            is_batch_invariant=invariance.is_bit_identical,
        )

    def compare_embeddings(self) -> list[Comparison]:
        """Compares states, embeddings, and embeddings of length 1, in ragged batches."""
        tolerances = TOLERANCES[self._dtype]
        outputs = Comparison(
            "embed: torch and ONNX, ragged batches",
            tolerances.encoder,
            is_of_norms=self._dtype != "fp32",
        )
        unit = Comparison("embeddings of length 1: torch and ONNX", tolerances.embedding)
        cosine = Comparison("embeddings: 1 - cosine of torch and ONNX", tolerances.cosine)
        samples = tokenize_samples(
            self._source.tokenizer, self._source.samples, self._source.max_source_length
        )
        longest = longest_verified(self._source.model.config, self._source.max_source_length)
        batches = [samples, self._make_sources(1, longest)]
        batches += [self._make_sources(size, _MAX_RANDOM_LENGTH) for size in (1, 2, 7, 16)]
        for sources in filter(None, batches):
            actual = self._runner.run(sources)
            for row, tokens in enumerate(sources):
                where = f"row {row} in a batch of {len(sources)}"
                embedding, states = (to_floats(output) for output in self._graph(*make_row(tokens)))
                found = actual["sentence_embedding"][row : row + 1]
                valid = actual["last_hidden_state"][row : row + 1, : len(tokens)]
                outputs.add(states, valid, f"last_hidden_state of {where}")
                outputs.add(embedding, found, f"sentence_embedding of {where}")
                wanted_unit, found_unit = _normalize(embedding), _normalize(found)
                unit.add(wanted_unit, found_unit, where)
                product = (wanted_unit.astype(np.float64) * found_unit).sum(axis=1)
                cosine.add(np.ones(1, np.float32), product.astype(np.float32), where)
        return [outputs, unit, cosine]

    def compare_alone(self) -> Comparison:
        """Compares rows alone with the same rows in a ragged batch."""
        comparison = Comparison(f"embed: rows alone and in a batch of {NUM_INVARIANCE_ROWS}")
        sources = self._make_sources(NUM_INVARIANCE_ROWS, _MAX_RANDOM_LENGTH)
        together = self._runner.run(sources)
        for row, tokens in enumerate(sources):
            alone = self._runner.run([tokens])
            for name, expected in alone.items():
                actual = together[name][row : row + 1]
                if name == "last_hidden_state":
                    actual = actual[:, : len(tokens)]
                comparison.add(expected, actual, f"{name} of row {row}")
        return comparison

    def _make_sources(self, num_sources: int, max_length: int) -> list[list[int]]:
        return make_sources(
            self._generator,
            num_sources,
            self._source.model.config.vocabulary_size,
            min(max_length, self._source.max_source_length),
        )


def _normalize(embeddings: Floats) -> Floats:
    return to_floats(normalize(torch.from_numpy(np.ascontiguousarray(embeddings))))
