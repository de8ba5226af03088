"""Why a sequence has no continuation: the two answers there are."""

from seqserve.errors import EngineError, NonFiniteError, NoTokenLeftError


def not_finite() -> EngineError:
    """The answer to logits that mean nothing."""
    return NonFiniteError("the model returned logits that are not finite")


def nothing_left() -> NoTokenLeftError:
    """The answer to options that bar everything."""
    return NoTokenLeftError(
        "no token to go on with: `min_new_tokens`, `no_repeat_ngram_size`, `repetition_penalty`, "
        "suppressed tokens and suppressed sequences, those of the model included, together bar the "
        "whole vocabulary; loosen one of them"
    )
