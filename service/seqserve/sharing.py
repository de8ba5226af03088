"""With whom an input may share its answer: who wants the same must not always be told the same."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Sharing:
    """What a caller allows for an input, and among whom."""

    group: str = ""
    """Those who share: callers of one token; empty where there are no tokens, for all."""
    takes: bool = True
    """Whether it may be answered with what was computed for others, or is being computed; if not,
    it is computed by itself, and its answer kept for others."""
