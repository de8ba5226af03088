"""Equal keys mean equal answers: whatever matters changes the key, and nothing else does."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import EOS, START, FakePromise
from seqserve.generate_options import GenerateOptions
from seqserve.response_key import key_of
from seqserve.search import make_search
from seqserve.sequence import Priority, Sequence
from seqserve.sharing import Sharing
from seqserve.target_scoring import TargetScoring

SECRET = b"of a model"
PLAIN = GenerateOptions(max_new_tokens=5)
OTHERS: dict[str, Any] = {
    "max_new_tokens": 6,
    "target_prefix": (4,),
    "num_beams": 2,
    "num_return_sequences": 2,
    "length_penalty": 0.5,
    "early_stopping": True,
    "min_new_tokens": 1,
    "no_repeat_ngram_size": 2,
    "repetition_penalty": 1.5,
    "forced_bos_token_id": 4,
    "forced_eos_token_id": 2,
    "suppressed_tokens": (4,),
    "suppressed_sequences": ((4, 5),),
    "do_sample": True,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.5,
    "seed": 7,
    "stop_sequences": ("x",),
    "include_stop_sequence": True,
    "return_scores": True,
    "return_token_log_probabilities": True,
    "top_log_probability_count": 1,
    "return_alternatives": True,
    "min_alternative_probability": 0.5,
}
"""Another value for each option that changes hypotheses."""
WITHOUT_EFFECT: dict[str, Any] = {"is_seed_drawn": False, "max_time": 3.0}
MEANT = {"source_tokens", "token_types", "search", "returns_states", "sharing"}
"""What a key says of a sequence."""
NOT_MEANT = {
    *("future", "on_tokens", "deadline", "server_limit_seconds", "stop_at", "priority", "caller"),
    *("call", "lane", "request_id", "arrived_at", "submitted_at"),
    # What becomes of it.
    *("started_at", "encoded_at", "first_token_at", "finished_at", "is_cached"),
    *("first_batch_rows", "last_batch_rows", "rows", "source_rows", "row_targets", "num_streamed"),
}


def key(options: GenerateOptions | None = PLAIN, *, start: int = START, **fields: Any) -> Any:
    """The key of a sequence."""
    search = None
    if options is not None:
        search = make_search(options, decoder_start_token_id=start, eos_token_id=EOS)
    values: dict[str, Any] = {
        "source_tokens": (5, 6, 7),
        "future": FakePromise(),
        "search": search,
        "sharing": Sharing(),
        "submitted_at": 0.0,
    }
    return key_of(Sequence(**values | fields), SECRET)


def test_every_option_is_looked_at() -> None:
    """An option that is added must be listed here, as one that matters or as one that does not."""
    names = {field.name for field in dataclasses.fields(GenerateOptions)}
    assert names == set(OTHERS) | set(WITHOUT_EFFECT)


def test_every_field_of_a_sequence_is_looked_at() -> None:
    """A field that is added must be listed here, as one that matters or as one that does not."""
    names = {field.name for field in dataclasses.fields(Sequence)}
    assert names == MEANT | NOT_MEANT
    assert not MEANT & NOT_MEANT


@pytest.mark.parametrize("name", OTHERS)
def test_option_changes_the_key(name: str) -> None:
    """Each by itself."""
    assert getattr(PLAIN, name) != OTHERS[name]
    assert key(dataclasses.replace(PLAIN, **{name: OTHERS[name]})) != key()


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_option_without_effect_does_not(name: str) -> None:
    """A time limit that was not reached has changed nothing."""
    assert key(dataclasses.replace(PLAIN, **{name: WITHOUT_EFFECT[name]})) == key()


@pytest.mark.parametrize(
    "fields",
    [
        {"source_tokens": (5, 6)},
        {"source_tokens": (5, 6, 7, 0)},
        {"token_types": (0, 0, 0)},
        {"returns_states": True},
        {"sharing": Sharing("token a")},
        {"search": None},
        {"search": TargetScoring([(5, 2)], START, EOS)},
        {"start": 3},
    ],
    ids=["source", "longer", "types", "states", "group", "embedded", "scored", "start"],
)
def test_field_changes_the_key(fields: dict[str, Any]) -> None:
    """Source, what is returned, who shares, and where targets begin."""
    assert key(**fields) != key()


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline": 3.0},
        {"stop_at": 3.0},
        {"priority": Priority.HIGH},
        {"caller": "somebody"},
        {"request_id": "4711"},
        {"submitted_at": 8.0},
        {"on_tokens": print},
        {"sharing": Sharing(takes=False)},
    ],
    ids=str,
)
def test_turn_does_not_change_the_key(fields: dict[str, Any]) -> None:
    """When a sequence runs, and for whom, decides nothing."""
    assert key(**fields) == key()


def test_model_changes_the_key() -> None:
    """Each has a secret of its own."""
    sequence = Sequence(
        source_tokens=(5,), future=FakePromise(), sharing=Sharing(), submitted_at=0.0
    )
    assert key_of(sequence, b"one") != key_of(sequence, b"other")


@pytest.mark.parametrize(
    "fields",
    [
        {"sharing": None},
        {"options": dataclasses.replace(PLAIN, do_sample=True, is_seed_drawn=True)},
    ],
    ids=["nobody", "drawn seed"],
)
def test_what_is_not_shared_has_no_key(fields: dict[str, Any]) -> None:
    """Those who do not want to, and targets that are to be new each time."""
    assert key(**fields) is None


TOKENS = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(
    *(
        st.tuples(TOKENS, TOKENS, st.lists(TOKENS.filter(bool), max_size=2), st.text(max_size=2))
        for _ in range(2)
    )
)
def test_keys_are_equal_only_if_all_is(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """No part of an input can be taken for another, however tokens are shifted between them."""

    def key_for(parts: tuple[Any, ...]) -> Any:
        source, types, targets, group = parts
        search = TargetScoring(targets, START, EOS) if targets else None
        return key(
            None, source_tokens=source, token_types=types, search=search, sharing=Sharing(group)
        )

    assert (key_for(one) == key_for(other)) == (one == other)


def test_numbers_that_differ_in_their_last_bit_differ() -> None:
    """Options are compared as they are, not as they are printed for people."""
    near = dataclasses.replace(PLAIN, temperature=math.nextafter(1.0, 2.0))
    assert key(near) != key()
