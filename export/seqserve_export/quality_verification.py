"""What a number format costs: the exported graphs against the original model in fp32.

Both follow the targets that the original writes greedily, so that one other decision does not make
everything after it another text.
"""

import dataclasses

import numpy as np

from seqserve.manifest import VerificationRecord
from seqserve_export.errors import VerificationError
from seqserve_export.onnx_runner import DecodeRunner, SourceRunner
from seqserve_export.reference_search import SearchLimits, search_greedily
from seqserve_export.search_verification import choose_sources, onnx_targets, torch_targets
from seqserve_export.source import GenerationSource
from seqserve_export.verification import SEED, Effort


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """How close the graphs come to the original."""

    record: VerificationRecord
    greedy_agreement: float
    """Share of steps at which both hold the same token for the best."""


def compare_quality(
    source: GenerationSource,
    encode: SourceRunner,
    decode: DecodeRunner,
    tolerance: float,
    effort: Effort,
) -> Quality:
    """Compares logits and decisions on samples of the checkpoint.

    Args:
        source: The original.
        encode: The encode graph.
        decode: The decode graph.
        tolerance: Most that the logits of a target may be off, as a share of their norm, their
            mean at each step not counted: it changes no probability.
        effort: How many samples, and how far.

    Raises:
        VerificationError: The logits are further off.
    """
    generation, config = source.generation, source.model.config
    limits = SearchLimits(
        decoder_start_token_id=generation.decoder_start_token_id,
        eos_token_id=generation.eos_token_id,
        max_new_tokens=min(effort.max_search_tokens, config.max_target_length),
    )
    num_equal = num_steps = 0
    worst = 0.0
    for tokens in choose_sources(source, np.random.default_rng(SEED), effort.num_searches):
        original = torch_targets(source, tokens)
        target = search_greedily(original, limits).tokens
        prefixes = [
            [[generation.decoder_start_token_id, *target[:length]]] for length in range(len(target))
        ]
        graph = onnx_targets(source, tokens, encode, decode, len(target))
        expected = np.stack([original(prefix)[0].numpy() for prefix in prefixes])
        actual = np.stack([graph(prefix)[0].numpy() for prefix in prefixes])
        num_steps += len(target)
        num_equal += int((expected.argmax(axis=1) == actual.argmax(axis=1)).sum())
        expected -= expected.mean(axis=1, keepdims=True)
        actual -= actual.mean(axis=1, keepdims=True)
        error = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
        # Written so that NaN fails.
        if not error <= tolerance:
            raise VerificationError(
                f"logits are {error:.3g} of their norm away from those in fp32, tolerance "
                f"{tolerance:.3g}; this checkpoint does not bear the format, export it as fp32"
            )
        worst = max(worst, error)
    agreement = num_equal / num_steps
    record = VerificationRecord(
        check="quality: logits on samples, share of their norm off the original in fp32",
        count=num_steps,
        max_abs_difference=worst,
        tolerance=tolerance,
    )
    return Quality(record=record, greedy_agreement=agreement)
