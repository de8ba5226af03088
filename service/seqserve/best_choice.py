"""Picks the continuations of a step from the best tokens alone, where nobody needs the logits.

Logits that lie on a device are large. As long as all sequences of a step are searched greedily and
want no scores, the best token of each row is enough, and it comes to the same candidates as
:func:`seqserve.choice.choose`.
"""

from collections.abc import Sequence as Rows

from seqserve.choice import follow_prefix
from seqserve.no_choice import not_finite
from seqserve.search_state import Candidate, SearchState
from seqserve.target_scoring import TargetScoring


def choose_best(
    searches: Rows[tuple[SearchState, list[int]]], best_tokens: list[int]
) -> list[list[Candidate] | Exception] | None:
    """Chooses the best continuation of every live hypothesis of a step.

    Args:
        searches: Each state with the rows of ``best_tokens`` of its live hypotheses, [K].
        best_tokens: The token with the largest logit, [B]; -1 if a row's logits are not finite.

    Returns:
        For each sequence its candidates, one for each live hypothesis, or an EngineError if its
        logits are not finite. None if some sequence needs its logits.
    """
    outcomes: list[list[Candidate] | Exception] = []
    for search, rows in searches:
        outcome = _choose_for(search, [best_tokens[row] for row in rows])
        if outcome is None:
            return None
        outcomes.append(outcome)
    return outcomes


def _choose_for(search: SearchState, tokens: list[int]) -> list[Candidate] | Exception | None:
    """The candidates of one sequence, from the best token of each live hypothesis [K]."""
    if isinstance(search, TargetScoring):
        return None
    if (given := follow_prefix(search)) is not None:
        return given
    options = search.options
    if options.num_beams > 1 or options.do_sample or options.needs_log_probabilities:
        return None
    is_branching = options.return_alternatives and search.target_length == options.num_fixed_tokens
    if is_branching or options.top_log_probability_count:
        return None
    candidates = []
    for index, token in enumerate(tokens):
        if token < 0:
            return not_finite()
        candidate: Candidate | None = Candidate(index, token, 0.0, 0.0)
        if search.rules.is_active:
            candidate = _apply_rules(search, index, token)
        if candidate is None:
            return None
        candidates.append(candidate)
    return candidates


def _apply_rules(search: SearchState, index: int, token: int) -> Candidate | None:
    """What the rules make of the best token; None if they need to know the others."""
    rules, target = search.rules, search.targets()[index]
    if (forced := rules.forced_token(target)) is not None:
        return Candidate(index, forced, search.scores[index], 0.0)
    if rules.is_penalizing or token in rules.barred_tokens(target):
        return None
    return Candidate(index, token, 0.0, 0.0)
