"""How far decoding options go, whatever the model: further, scores could not be compared."""

MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.01, 100.0
"""Beyond them scores leave the range in which they can be compared."""

MAX_TARGET_LENGTH = 2**16
"""Tokens; more than any model has positions for."""
MIN_LENGTH_PENALTY, MAX_LENGTH_PENALTY = -5.0, 5.0
"""Within them no score overflows or vanishes: for up to ``MAX_TARGET_LENGTH`` tokens
``length ** length_penalty`` is from 2**-80 to 2**80, so that sums of log-probabilities from -2**47
to -2**-46 have scores that even float32 (2**-126 to 2**127) holds in full precision."""
