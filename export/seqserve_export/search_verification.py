"""Compares greedy and beam search over the exported graphs with the same search over torch.

Both run :mod:`seqserve_export.reference_search`; torch over whole targets at each step, ONNX with
its caches. Differences of the last bits can decide between two candidates that are all but equal.
So hypotheses with different tokens pass as a near tie when torch, given the tokens that ONNX found,
comes to the score ONNX gave them, and either

* the scores of both hypotheses differ by no more than ``TIE_TOLERANCE``, or
* the search is greedy, and to torch the first tokens that differ are as likely within that
  tolerance (what follows may then differ at will).

The record counts them. Everything else that differs fails.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from seqserve.session import cache_names
from seqserve_export.errors import VerificationError
from seqserve_export.onnx_runner import DecodeRunner, OnnxTargets, SourceRunner, make_cache
from seqserve_export.reference_search import (
    Hypothesis,
    NextLogits,
    SearchLimits,
    search_beams,
    search_greedily,
)
from seqserve_export.source import GenerationSource
from seqserve_export.verification import (
    Comparison,
    Effort,
    make_row,
    make_sources,
)

NUM_BEAMS = 4
TIE_TOLERANCE = 1e-5
"""Scores this close make either hypothesis a right answer."""

_Search = Callable[[NextLogits], list[Hypothesis]]


def compare_searches(
    source: GenerationSource,
    encode: SourceRunner,
    decode: DecodeRunner,
    generator: np.random.Generator,
    effort: Effort,
) -> list[Comparison]:
    """Compares greedy search and beam search, on samples of the checkpoint or on random sources.

    Raises:
        VerificationError: Names the search, the source and the hypothesis that differ.
    """
    config, generation = source.model.config, source.generation
    sources = choose_sources(source, generator, effort.num_searches)
    limits = SearchLimits(
        decoder_start_token_id=generation.decoder_start_token_id,
        eos_token_id=generation.eos_token_id,
        max_new_tokens=min(effort.max_search_tokens, config.max_target_length),
    )
    num_beams = min(NUM_BEAMS, config.target_vocabulary_size // 2)
    penalty = generation.length_penalty

    def search_one(next_logits: NextLogits) -> list[Hypothesis]:
        return [search_greedily(next_logits, limits, length_penalty=penalty)]

    def search_several(next_logits: NextLogits) -> list[Hypothesis]:
        return search_beams(next_logits, limits, num_beams=num_beams, length_penalty=penalty)

    searches: list[tuple[str, _Search]] = [
        ("greedy search", search_one),
        (f"beam search with {num_beams} beams", search_several),
    ]
    comparisons = []
    for name, search in searches:
        comparison = Comparison(f"{name}: torch and ONNX, tokens equal, scores")
        num_ties = 0
        for tokens in sources:
            next_logits = torch_targets(source, tokens)
            num_ties += _compare_hypotheses(
                comparison,
                search(next_logits),
                search(onnx_targets(source, tokens, encode, decode, limits.max_new_tokens)),
                TorchJudge(next_logits, limits, penalty),
                f"source {tokens}",
            )
        if num_ties:
            comparison.check += f", {num_ties} near ties"
        comparisons.append(comparison)
    return comparisons


def choose_sources(
    source: GenerationSource, generator: np.random.Generator, num_sources: int
) -> list[list[int]]:
    """Samples of the checkpoint; random sources where it has none."""
    config = source.model.config
    max_length = min(16, config.max_source_length)
    return source.encode_samples()[:num_sources] or make_sources(
        generator, num_sources, config.source_vocabulary_size, max_length
    )


def torch_targets(source: GenerationSource, tokens: Sequence[int]) -> NextLogits:
    """The logits that follow targets of one source, from the whole decoder at each step."""
    source_tokens, source_lengths = make_row(tokens)
    model = source.model
    projected = model.decoder.project_source(model.encode(source_tokens, source_lengths))

    def next_logits(targets: list[list[int]]) -> Tensor:
        num_targets = len(targets)
        target_lengths = torch.tensor([len(target) for target in targets], dtype=torch.int32)
        repeated = [
            (keys.expand(num_targets, -1, -1, -1), values.expand(num_targets, -1, -1, -1))
            for keys, values in projected
        ]
        logits = model.score(
            repeated, source_lengths.expand(num_targets), torch.tensor(targets), target_lengths
        )
        return logits[:, -1]  # [N, T, V] -> [N, V]

    return next_logits


def onnx_targets(
    source: GenerationSource,
    tokens: Sequence[int],
    encode: SourceRunner,
    decode: DecodeRunner,
    capacity: int,
) -> OnnxTargets:
    """The logits that follow targets of one source, from the graphs with their caches."""
    config = source.model.config
    outputs = encode.run([tokens])
    names = cache_names("present", "encoder", config.num_decoder_layers)
    projected = [outputs[name] for name in names]
    empty_cache = make_cache((1, config.num_heads, capacity, config.head_size), projected[0])
    return OnnxTargets(decode, projected, empty_cache)


class TorchJudge:
    """What torch thinks of tokens that ONNX found."""

    def __init__(
        self, next_logits: NextLogits, limits: SearchLimits, length_penalty: float
    ) -> None:
        self._next_logits = next_logits
        self._start = limits.decoder_start_token_id
        self._length_penalty = length_penalty

    def score(self, tokens: Sequence[int]) -> float:
        """The score of a hypothesis with these tokens."""
        total = sum(self._logprob(tokens[:place], tokens[place]) for place in range(len(tokens)))
        return float(total / len(tokens) ** self._length_penalty)

    def is_even(self, tokens: Sequence[int], others: Sequence[int]) -> bool:
        """Whether the first tokens that differ are equally likely, up to the tolerance."""
        for place, (token, other) in enumerate(zip(tokens, others, strict=False)):
            if token != other:
                prefix = tokens[:place]
                gap = self._logprob(prefix, token) - self._logprob(prefix, other)
                return abs(gap) <= TIE_TOLERANCE
        return False

    def _logprob(self, prefix: Sequence[int], token: int) -> float:
        logits = self._next_logits([[self._start, *prefix]])
        return float(logits[0].double().log_softmax(dim=-1)[token])


def _compare_hypotheses(
    comparison: Comparison,
    expected: list[Hypothesis],
    actual: list[Hypothesis],
    judge: TorchJudge,
    where: str,
) -> int:
    """Compares the hypotheses of one source; returns how many are near ties."""
    if len(expected) != len(actual):
        raise VerificationError(
            f"{comparison.check}: {len(actual)} hypotheses for {where}, expected {len(expected)}"
        )
    num_ties = 0
    for rank, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
        score = wanted.score
        if wanted.tokens != found.tokens:
            is_greedy = len(expected) == 1
            if abs(score - found.score) > TIE_TOLERANCE and not (
                is_greedy and judge.is_even(wanted.tokens, found.tokens)
            ):
                raise VerificationError(
                    f"{comparison.check}: hypothesis {rank} of {where} is {list(found.tokens)} "
                    f"with score {found.score:.6f}, expected {list(wanted.tokens)} with score "
                    f"{score:.6f}; tolerance {TIE_TOLERANCE:.3g}"
                )
            num_ties += 1
            score = judge.score(found.tokens)
        comparison.add(
            np.array([score], np.float32),
            np.array([found.score], np.float32),
            f"score of hypothesis {rank} of {where}",
        )
    return num_ties
