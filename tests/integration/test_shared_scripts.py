"""Whatever is shared, each answer is that of a run alone, to the last bit.

Scripts in which inputs come again, and such as hardly differ from them, are played on real workers
behind shared answers, as in ``test_batch_invariance``: with callers who leave, deadlines and time
limits. Each answer is compared with that of the same input computed alone.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from batch_scripts import Script, repeating_scripts
from lockstep import Played, differences, play_in_steps, play_in_threads
from seqserve import response_key
from seqserve.sequence import Answer, Sequence
from seqserve.served_model import ServedModel
from seqserve.shared_answers import SharedAnswers

NUM_EXAMPLES = 100
NUM_THREADED = 16
FAULT_EXAMPLES = 500
SETTINGS = st.sampled_from(
    [
        {"deduplicate": True},
        {"response_cache_bytes": 1_000_000},
        {"response_cache_bytes": 1_000_000, "deduplicate": True},
        # Some answers fit, few at a time.
        {"response_cache_bytes": 8_000, "deduplicate": True},
    ]
)


@settings(max_examples=NUM_EXAMPLES, deadline=None, print_blob=True)
@given(script=repeating_scripts(), chosen=SETTINGS)
def test_shared_answers_are_those_of_runs_alone(
    script: Script, chosen: dict[str, Any], store: Path
) -> None:
    """Step by step: a script that fails once fails always."""
    assert differences(store / "tiny" / "1", script, play_in_steps, **chosen) == []


@settings(max_examples=NUM_THREADED, deadline=None, print_blob=True)
@given(script=repeating_scripts(is_timed=False), chosen=SETTINGS)
def test_shared_answers_of_threads_are_those_of_runs_alone(
    script: Script, chosen: dict[str, Any], store: Path
) -> None:
    """In threads: answers and those who wait for them come when they come."""
    assert differences(store / "tiny" / "1", script, play_in_threads, **chosen) == []


def forget_source(sequence: Sequence, secret: bytes) -> bytes | None:
    """Inputs with the same options are taken for each other."""
    source, sequence.source_tokens = sequence.source_tokens, (4,)
    key = response_key.key_of(sequence, secret)
    sequence.source_tokens = source
    return key


def forget_options(_: Any) -> tuple[object, ...]:
    """Inputs with the same source are taken for each other."""
    return ()


def keep_all(self: SharedAnswers, key: bytes, _: Sequence, answer: Answer) -> None:
    """What a time limit cut short is kept, too."""
    if self._cache is not None:
        self._cache.keep(self._owner + key, answer)


FAULTS: list[tuple[Any, str, Callable[..., Any]]] = [
    ("seqserve.shared_answers", "key_of", forget_source),
    (response_key, "_read_options", forget_options),
    (SharedAnswers, "_keep", keep_all),
]


@pytest.mark.parametrize(("place", "name", "fault"), FAULTS)
def test_faults_are_noticed(
    place: Any,
    name: str,
    fault: Callable[..., Any],
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With answers that are mixed up on purpose, some script has one that differs."""
    chosen = {"response_cache_bytes": 1_000_000, "deduplicate": True}

    async def play_with_fault(model: ServedModel, script: Script) -> list[Played]:
        with monkeypatch.context() as patch:  # runs alone are without it
            if isinstance(place, str):
                patch.setattr(f"{place}.{name}", fault)
            else:
                patch.setattr(place, name, fault)
            return await play_in_steps(model, script)

    def is_noticed(script: Script) -> bool:
        return differences(store / "tiny" / "1", script, play_with_fault, **chosen) != []

    script = find(
        repeating_scripts(),
        is_noticed,
        settings=settings(
            max_examples=FAULT_EXAMPLES, deadline=None, database=None, phases=[Phase.generate]
        ),
        random=random.Random(1),
    )
    assert differences(store / "tiny" / "1", script, play_in_steps, **chosen) == []
