"""Verifies the encode and decode graphs of an encoder-decoder model against torch.

Five questions, in the order in which an answer to one rests on the one before:

1. Do encoder states and projected keys and values agree, in ragged batches?
2. Do the logits of each step agree with those of torch over the whole target, while rows join and
   leave the batch and caches are written in place?
3. Are rows bit-identical alone and in a batch of 64? If not, the manifest says so; the tolerance
   holds anyway.
4. Do greedy and beam search find the same targets? (In fp32; other formats decide near ties
   otherwise.)
5. How far are logits and decisions from those of the original in fp32?
"""

from pathlib import Path

import numpy as np

from seqserve.session import cache_names
from seqserve_export.graphs import EncodeGraph
from seqserve_export.onnx_runner import DecodeRunner, Floats, SourceRunner, make_cache
from seqserve_export.precision import TOLERANCES, Dtype
from seqserve_export.quality_verification import compare_quality
from seqserve_export.search_verification import compare_searches
from seqserve_export.source import GenerationSource
from seqserve_export.transformer import Transformer
from seqserve_export.verification import (
    SEED,
    Comparison,
    Verification,
    choose_effort,
    make_row,
    make_sources,
    to_floats,
    torch_reference,
)

_MAX_RANDOM_LENGTH = 24
_MAX_SHARED_LENGTH = 64
"""Samples up to this length share a batch."""


class GenerationVerifier:
    """Holds the model in both forms."""

    def __init__(
        self,
        source: GenerationSource,
        encode_path: Path,
        decode_path: Path,
        *,
        model: Transformer | None = None,
        dtype: Dtype = "fp32",
    ) -> None:
        """Opens the graphs.

        Args:
            source: The original, in fp32.
            encode_path: The encode graph.
            decode_path: The decode graph.
            model: What was exported, if that is not the original itself.
            dtype: Its number format.
        """
        self._source = source
        self._model = source.model if model is None else model
        self._dtype = dtype
        self._config = source.model.config
        self._effort = choose_effort(source.model)
        self._encode_graph = EncodeGraph(self._model)
        self._encode = SourceRunner(encode_path, self._config.source_vocabulary_size - 1)
        self._decode = DecodeRunner(decode_path, self._config.num_decoder_layers)
        self._generator = np.random.default_rng(SEED)

    def verify(self) -> Verification:
        """Makes all comparisons.

        Raises:
            VerificationError: Names the check, the tensor, the row and the step that differ.
        """
        with torch_reference(self._effort):
            comparisons = [
                self.compare_encoding(),
                self.compare_steps(),
                *(invariance := [self.compare_encoding_alone(), self.compare_steps_alone()]),
            ]
            if self._dtype == "fp32":
                comparisons += compare_searches(
                    self._source, self._encode, self._decode, self._generator, self._effort
                )
            quality = compare_quality(
                self._source,
                self._encode,
                self._decode,
                TOLERANCES[self._dtype].quality,
                self._effort,
            )
        return Verification(
            records=(*(comparison.to_record() for comparison in comparisons), quality.record),
            is_batch_invariant=all(comparison.is_bit_identical for comparison in invariance),
            greedy_agreement=quality.greedy_agreement,
        )

    def _compare(self, check: str) -> Comparison:
        """A comparison of torch and ONNX in the same format."""
        return Comparison(check, TOLERANCES[self._dtype].graph, is_of_norms=self._dtype != "fp32")

    def compare_encoding(self) -> Comparison:
        """Question 1."""
        comparison = self._compare("encode: torch and ONNX, ragged batches")
        # One source as long as the model allows, so that its last position is used, too.
        batches = [self._make_sources(1, self._config.max_source_length)]
        batches += [self._make_sources(size, _MAX_RANDOM_LENGTH) for size in (1, 2, 7, 16)]
        samples = self._source.encode_samples()
        batches.append([tokens for tokens in samples if len(tokens) <= _MAX_SHARED_LENGTH])
        # Padding a batch to a long sample would take more memory than the model itself.
        batches += [[tokens] for tokens in samples if len(tokens) > _MAX_SHARED_LENGTH]
        for sources in filter(None, batches):
            outputs = self._encode.run(sources)
            for row, tokens in enumerate(sources):
                for name, expected in self._encode_with_torch(tokens).items():
                    actual = _valid_part(outputs[name][row], len(tokens))
                    where = f"{name} of row {row} in a batch of {len(sources)}"
                    comparison.add(expected, actual, where)
        return comparison

    def compare_steps(self) -> Comparison:
        """Question 2."""
        comparison = self._compare("decode: torch over whole targets and ONNX step by step, ragged")
        num_rows = 16
        sources = self._make_sources(num_rows, _MAX_RANDOM_LENGTH)
        targets = self._make_targets(num_rows, _MAX_RANDOM_LENGTH)
        # One row as long as the model allows, if that can be afforded.
        sources.append(sources[1])
        targets.append(self._make_targets(1, self._effort.max_target_length)[0])
        joins = self._generator.integers(0, 8, len(targets)).tolist()
        logits = self._decode_in_batch(sources, targets, joins)
        for row, target in enumerate(targets):
            source_tokens, source_lengths = make_row(sources[row])
            target_tokens, target_lengths = make_row(target)
            logits_of_all = self._model(
                source_tokens, source_lengths, target_tokens, target_lengths
            )
            expected = to_floats(logits_of_all[0])  # [T, V]
            for step in range(len(target)):
                where = f"logits of row {row}, step {step}"
                comparison.add(expected[step], logits[row][step], where)
        return comparison

    def compare_encoding_alone(self) -> Comparison:
        """Question 3, encoding."""
        comparison = Comparison(
            f"encode: rows alone and in a batch of {self._effort.num_invariance_rows}"
        )
        sources = self._make_sources(self._effort.num_invariance_rows, _MAX_RANDOM_LENGTH)
        together = self._encode.run(sources)
        for row, tokens in enumerate(sources):
            for name, alone in self._encode.run([tokens]).items():
                part = _valid_part(together[name][row], len(tokens))
                comparison.add(alone[0], part, f"{name} of row {row}")
        return comparison

    def compare_steps_alone(self) -> Comparison:
        """Question 3, decoding."""
        comparison = Comparison(
            f"decode: rows alone and in a batch of {self._effort.num_invariance_rows}"
        )
        sources = self._make_sources(self._effort.num_invariance_rows, _MAX_RANDOM_LENGTH)
        targets = self._make_targets(self._effort.num_invariance_rows, 10)
        joins = self._generator.integers(0, 4, self._effort.num_invariance_rows).tolist()
        together = self._decode_in_batch(sources, targets, joins)
        for row, target in enumerate(targets):
            alone = self._decode_in_batch([sources[row]], [target], [0])[0]
            for step, logits in enumerate(alone):
                comparison.add(logits, together[row][step], f"logits of row {row}, step {step}")
        return comparison

    def _make_sources(self, num_sources: int, max_length: int) -> list[list[int]]:
        return make_sources(
            self._generator,
            num_sources,
            self._config.source_vocabulary_size,
            min(max_length, self._config.max_source_length),
        )

    def _make_targets(self, num_targets: int, max_length: int) -> list[list[int]]:
        """Random targets behind a start token, together at most as long as the model allows."""
        targets = make_sources(
            self._generator,
            num_targets,
            self._config.target_vocabulary_size,
            min(max_length, self._config.max_target_length),
        )
        start = self._source.generation.decoder_start_token_id
        return [[start, *target[1:]] for target in targets]

    def _encode_with_torch(self, tokens: list[int]) -> dict[str, Floats]:
        """The outputs of the encode graph for one row alone, without the dimension of the row."""
        outputs = self._encode_graph(*make_row(tokens))
        names = self._encode_graph.output_names()
        return {name: to_floats(output[0]) for name, output in zip(names, outputs, strict=True)}

    def _decode_in_batch(
        self, sources: list[list[int]], targets: list[list[int]], joins: list[int]
    ) -> list[list[Floats]]:
        """Feeds each target, one token a step, from the step on at which its row joins.

        Rows leave when their target ends, so the size of the batch changes from step to step.

        Returns:
            For each row, the logits [V] after each token of its target.
        """
        encoded = self._encode.run(sources)
        names = cache_names("present", "encoder", self._config.num_decoder_layers)
        source = [encoded[name] for name in names]
        capacity = max(map(len, targets))
        shape = (len(sources), self._config.num_heads, capacity, self._config.head_size)
        empty = make_cache(shape, source[0])
        past = [empty.copy() for _ in source]
        logits: list[list[Floats]] = [[] for _ in targets]
        for step in range(max(joins) + capacity):
            rows = [
                row
                for row, target in enumerate(targets)
                if joins[row] <= step < joins[row] + len(target)
            ]
            if not rows:
                continue
            live_past = [cache[rows] for cache in past]
            step_logits = self._decode.decode(
                [targets[row][len(logits[row])] for row in rows],
                [len(logits[row]) for row in rows],
                [len(sources[row]) for row in rows],
                live_past,
                [states[rows] for states in source],
            )
            for cache, live in zip(past, live_past, strict=True):
                cache[rows] = live
            for row, row_logits in zip(rows, step_logits, strict=True):
                logits[row].append(row_logits)
        return logits


def _valid_part(output: Floats, length: int) -> Floats:
    """What lies within a source: of states [S, M] or of keys and values [H, S, D]."""
    return output[:length] if output.ndim == 2 else output[:, :length]
