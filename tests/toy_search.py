"""Searches on a toy model of a few tokens, alone in their batch."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes import EOS, START
from seqserve.batch import Outcome
from seqserve.choice import choose
from seqserve.generate_options import GenerateOptions
from seqserve.search import make_search
from seqserve.search_state import Hypothesis, SearchState

VOCABULARY = 9


@functools.cache
def table(seed: int, history: tuple[int, ...]) -> NDArray[np.float32]:
    """A toy model: the logits [V] that follow a history, random but always the same."""
    generator = np.random.default_rng([seed, *history])
    logits = generator.normal(0.0, 1.5, VOCABULARY).astype(np.float32)
    logits[EOS] += 0.7
    return logits


def normalized(seed: int, history: tuple[int, ...]) -> list[float]:
    """Log-probabilities [V] after a history, in float64."""
    logits = table(seed, history).astype(np.float64)
    values: list[float] = (logits - np.log(np.exp(logits).sum())).tolist()
    return values


def search_for(num_beams: int, max_new_tokens: int = 6, **options: Any) -> SearchState:
    """A search with the given options."""
    return make_search(
        GenerateOptions(max_new_tokens=max_new_tokens, num_beams=num_beams, **options),
        decoder_start_token_id=START,
        eos_token_id=EOS,
    )


class Run:
    """One search on the toy model, with the histories of its hypotheses kept outside of it."""

    def __init__(self, seed: int, search: SearchState) -> None:
        self.search = search
        self._seed = seed
        self._histories: list[tuple[int, ...]] = [()] * search.num_rows

    def logits(self) -> list[NDArray[np.float32]]:
        """What the toy model says after each live hypothesis, [K] rows of [V]."""
        histories = [
            (*history, token)
            for history, token in zip(self._histories, self.search.next_inputs(), strict=True)
        ]
        self._histories = histories
        return [table(self._seed, history) for history in histories]

    def advance(self, outcome: Outcome) -> None:
        """Takes the chosen candidates."""
        assert isinstance(outcome, list)
        parents = self.search.advance(outcome)
        self._histories = [self._histories[parent] for parent in parents]


def run_alone(seed: int, search: SearchState) -> list[Hypothesis]:
    """Runs a search to its end, nothing else in the batch."""
    run = Run(seed, search)
    while not search.is_finished:
        logits = np.stack(run.logits())
        run.advance(choose([(search, list(range(search.num_rows)))], logits)[0])
    return search.hypotheses()
