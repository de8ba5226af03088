"""How to decode one input: complete, checked, and the same for all of its hypotheses."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """How to decode one input, complete and checked."""

    max_new_tokens: int
    """At least 1; the end token counts, the prefix does not."""
    target_prefix: tuple[int, ...] = ()
    """What the target begins with, behind the start token."""
    num_beams: int = 1
    """1 is greedy search."""
    num_return_sequences: int = 1
    """At most ``num_beams``, unless hypotheses are drawn or alternatives."""
    length_penalty: float = 1.0
    """A hypothesis scores ``sum_log_probabilities / length ** length_penalty``. From -5 to 5, so
    that no score overflows or vanishes."""
    early_stopping: bool = False
    """Beam search ends with the first ``num_beams`` finished hypotheses."""
    min_new_tokens: int = 0
    """The end token is barred before this many tokens; 0 is off."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this size comes twice in a target, the start token included; 0 is off."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens the target already has less likely; 1 is off."""
    forced_bos_token_id: int | None = None
    """What every target begins with."""
    forced_eos_token_id: int | None = None
    """What a target that reaches ``max_new_tokens`` ends with."""
    suppressed_tokens: tuple[int, ...] = ()
    """Never generated, unless forced."""
    suppressed_sequences: tuple[tuple[int, ...], ...] = ()
    """Each of two tokens or more; never generated, unless forced."""
    do_sample: bool = False
    """Tokens are drawn by their probabilities; with one beam only."""
    temperature: float = 1.0
    """Divides scores before sampling; 1 is off."""
    top_k: int = 0
    """Sampling considers this many of the most probable tokens; 0 is off."""
    top_p: float = 1.0
    """Sampling considers the tokens that make up this much of the probability; 1 is off."""
    seed: int = 0
    """Where the random numbers of sampling come from."""
    is_seed_drawn: bool = False
    """Whether the server drew the seed: the caller wants targets that no other input has."""
    stop_sequences: tuple[str, ...] = ()
    """Texts that end a hypothesis."""
    include_stop_sequence: bool = False
    """The text ends with the stop sequence, not before it."""
    return_scores: bool = False
    return_token_log_probabilities: bool = False
    max_time: float = math.inf
    """Seconds from the arrival of the request after which decoding ends with what it has."""
    top_log_probability_count: int = 0
    """Most probable tokens to report at each position; 0 is off."""
    return_alternatives: bool = False
    """Hypotheses begin with the most probable tokens, one each; with one beam only."""
    min_alternative_probability: float = 0.0
    """First tokens less probable are no alternatives; 0 is off."""

    @property
    def max_length(self) -> int:
        """Target tokens at most, the prefix included."""
        return len(self.target_prefix) + self.max_new_tokens

    @property
    def num_fixed_tokens(self) -> int:
        """Target tokens that leave no choice, from the first one on."""
        if self.target_prefix or self.forced_bos_token_id is None:
            return len(self.target_prefix)
        return 1

    @property
    def needs_log_probabilities(self) -> bool:
        """Whether the step must normalise logits; with one beam it can do without."""
        return self.num_beams > 1 or self.return_scores or self.return_token_log_probabilities
