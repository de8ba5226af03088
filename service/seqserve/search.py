"""The hypotheses of a sequence: pure states, no onnxruntime, no clock, no thread.

They are offered a few candidates at each step, which :mod:`seqserve.choice` picked.
"""

from seqserve.beam_search import BeamSearch
from seqserve.generate_options import GenerateOptions
from seqserve.greedy_search import GreedySearch
from seqserve.independent_search import IndependentSearch
from seqserve.search_state import SearchState, StopFinder


def make_search(
    options: GenerateOptions,
    *,
    decoder_start_token_id: int,
    eos_token_id: int,
    stops: StopFinder | None = None,
) -> SearchState:
    """Makes the state that the options ask for; without ``stops`` it finds no stop sequences."""
    if options.num_beams > 1:
        return BeamSearch(options, decoder_start_token_id, eos_token_id, stops)
    parts = [
        GreedySearch(options, decoder_start_token_id, eos_token_id, stops)
        for _ in range(options.num_return_sequences)
    ]
    return parts[0] if len(parts) == 1 else IndependentSearch(options, parts[0].rules, parts)
