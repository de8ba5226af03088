"""Greedy and beam search the plain way: the yardstick the exported graphs are measured with.

Nothing is cached and nothing is shared with the server. Each step asks for the logits that follow
whole targets, so that a mistake in the bookkeeping of caches and rows shows as a difference.

Source: ``GenerationMixin._beam_search`` of ``transformers`` 5 (``generation/utils.py``), whose
results are matched token for token, for one source at a time.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

NextLogits = Callable[[list[list[int]]], Tensor]
"""From N targets of one length, each with its start token, to the logits [N, V] that follow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A candidate target."""

    tokens: tuple[int, ...]
    """Without the start token; with the end token, if the search came to it."""
    score: float
    """``sum_logprobs / len(tokens) ** length_penalty``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchLimits:
    """Where every search starts and ends."""

    decoder_start_token_id: int
    eos_token_id: int
    max_new_tokens: int
    """Tokens, the end token included."""


def search_greedily(
    next_logits: NextLogits, limits: SearchLimits, *, length_penalty: float = 1.0
) -> Hypothesis:
    """Takes the best token at each step; the first of equals."""
    tokens: list[int] = []
    total = 0.0
    while len(tokens) < limits.max_new_tokens:
        logprobs = _next_logprobs(next_logits, [tokens], limits)[0]
        token = int(logprobs.argmax())
        tokens.append(token)
        total += float(logprobs[token])
        if token == limits.eos_token_id:
            break
    return _finish(tokens, total, length_penalty)


def search_beams(
    next_logits: NextLogits,
    limits: SearchLimits,
    *,
    num_beams: int,
    length_penalty: float = 1.0,
    is_stopped_early: bool = False,
) -> list[Hypothesis]:
    """Keeps the best ``num_beams`` targets at each step.

    Each step looks at the best ``2 * num_beams`` continuations of all live targets. Those that
    end, and are among the first ``num_beams``, compete for the ``num_beams`` places of finished
    hypotheses; of the others, the best ``num_beams`` live on. With one end token at least
    ``num_beams`` of them do not end.

    Args:
        next_logits: The model.
        limits: Where to start and end.
        num_beams: K; twice as many must not exceed the vocabulary.
        length_penalty: Exponent of the length that divides the sum of log-probabilities.
        is_stopped_early: Stop as soon as K hypotheses are finished (``early_stopping=True``),
            rather than when the best live target, at its present length, scores no better than the
            worst finished hypothesis (``early_stopping=False``).

    Returns:
        The finished hypotheses, best first; at most K.
    """
    live: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[Hypothesis] = []
    for length in range(1, limits.max_new_tokens + 1):
        logprobs = _next_logprobs(next_logits, [tokens for tokens, _ in live], limits)
        if logprobs.shape[1] < 2 * num_beams:
            raise ValueError(
                f"`num_beams` must be at most half of the vocabulary of {logprobs.shape[1]}, "
                f"but is {num_beams}"
            )
        candidates = _best_continuations(live, logprobs, 2 * num_beams)
        live = []
        for rank, (tokens, total) in enumerate(candidates):
            if tokens[-1] == limits.eos_token_id or length == limits.max_new_tokens:
                if rank < num_beams:
                    finished.append(_finish(tokens, total, length_penalty))
            elif len(live) < num_beams:
                live.append((tokens, total))
        finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[:num_beams]
        if len(finished) == num_beams:
            if is_stopped_early or not live:
                break
            if live[0][1] / length**length_penalty <= finished[-1].score:
                break
    return finished


def _best_continuations(
    live: list[tuple[list[int], float]], logprobs: Tensor, num_kept: int
) -> list[tuple[list[int], float]]:
    """The continuations of all live targets with the highest sums, best first."""
    totals = torch.tensor([total for _, total in live], dtype=torch.float64)
    sums = (totals[:, None] + logprobs).flatten()  # [N, V] -> [N*V]
    best, index = sums.topk(num_kept)
    vocabulary_size = logprobs.shape[1]
    continuations = []
    for total, place in zip(best.tolist(), index.tolist(), strict=True):
        tokens, _ = live[place // vocabulary_size]
        continuations.append(([*tokens, place % vocabulary_size], total))
    return continuations


def _next_logprobs(
    next_logits: NextLogits, targets: list[list[int]], limits: SearchLimits
) -> Tensor:
    """Log-probabilities [N, V] of the token after each target; float64, so that sums are exact."""
    prefixes = [[limits.decoder_start_token_id, *tokens] for tokens in targets]
    return next_logits(prefixes).double().log_softmax(dim=-1)


def _finish(tokens: list[int], total: float, length_penalty: float) -> Hypothesis:
    return Hypothesis(tokens=tuple(tokens), score=total / len(tokens) ** length_penalty)
