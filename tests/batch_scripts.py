"""Scripts of what may happen to a served model: who asks for what, when, and who leaves.

Tokens, texts and lengths are those of the models of ``tiny_checkpoint``.
"""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from seqserve.generate_options import GenerateOptions
from seqserve.sequence import Priority
from tiny_checkpoint import EOS_TOKEN_ID, SOURCE_WORDS, TARGET_WORDS

MAX_ROWS = 6
"""Rows of one input at most: beams, drawn hypotheses, or given targets."""
MAX_SOURCE_LENGTH = 40
MAX_TARGET_LENGTH = 32
"""The shortest limits of the models."""
_FIRST_WORD = 4
_SOURCE_TOKENS = st.integers(_FIRST_WORD, _FIRST_WORD + len(SOURCE_WORDS) - 1)
_TARGET_TOKENS = st.integers(_FIRST_WORD, _FIRST_WORD + len(TARGET_WORDS) - 1)
_STOPS = st.sampled_from(["o", "e f", "ba", "mi", "no", "u ", "da ge"])


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One input, and what is wanted of it."""

    source: tuple[int, ...]
    options: GenerateOptions | None
    targets: tuple[tuple[int, ...], ...] = ()
    """Targets to score; options are None then."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request at its time. Times are ticks: in each, every lane runs one step."""

    request: Request
    tick: int
    caller: str
    priority: Priority
    is_streamed: bool
    cancelled_after: int | None = None
    """Ticks after which the caller leaves."""
    deadline_after: int | None = None
    """Ticks after which the caller gets an error."""
    stopped_after: int | None = None
    """Ticks after which the caller gets what there is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A course of events, and the limits of the model it is played on."""

    max_batch_size: int
    num_lanes: int
    num_cache_rows: int
    """Rows of full length that the cache of a lane has room for."""
    rests: bool
    """Whether the cache is given back as soon as nothing runs."""
    arrivals: tuple[Arrival, ...]


@st.composite
def scripts(draw: st.DrawFn, *, is_timed: bool = True) -> Script:
    """Scripts of a few arrivals; with deadlines and time limits, or without."""
    return Script(
        max_batch_size=draw(st.integers(MAX_ROWS, 2 * MAX_ROWS)),
        num_lanes=draw(st.sampled_from([1, 2])),
        num_cache_rows=draw(st.integers(MAX_ROWS, 2 * MAX_ROWS)),
        rests=draw(st.booleans()),
        arrivals=tuple(draw(st.lists(_arrivals(is_timed), min_size=2, max_size=9))),
    )


@st.composite
def repeating_scripts(draw: st.DrawFn, *, is_timed: bool = True) -> Script:
    """Scripts in which a few requests come again and again, and such as hardly differ from them."""
    script = draw(scripts(is_timed=is_timed))
    requests = [one.request for one in script.arrivals[:2]]
    requests += [draw(_variants(request)) for request in requests]
    arrivals = []
    for one in draw(st.permutations(script.arrivals * 2)):
        request = draw(st.sampled_from(requests))
        # Scored targets are known to those who ask.
        is_streamed = one.is_streamed and not request.targets
        tick = draw(st.integers(0, 15))
        arrivals.append(
            dataclasses.replace(one, request=request, is_streamed=is_streamed, tick=tick)
        )
    return dataclasses.replace(script, arrivals=tuple(arrivals))


@st.composite
def _variants(draw: st.DrawFn, request: Request) -> Request:
    """A request with one change."""
    options = request.options
    if options is None:
        return dataclasses.replace(request, targets=(*request.targets[1:], (_FIRST_WORD,)))
    changes: dict[str, Any] = {
        "source": None,
        "max_new_tokens": options.max_new_tokens + 1,
        "return_scores": not options.return_scores,
        "seed": options.seed + 1,
        "repetition_penalty": 3.0,
        "suppressed_tokens": (11,),
        "target_prefix": (*options.target_prefix, _FIRST_WORD),
        "length_penalty": -1.0,
        "temperature": 0.5,
    }
    name = draw(st.sampled_from(sorted(changes)))
    if name == "source":
        return dataclasses.replace(request, source=(_FIRST_WORD, *request.source[1:]))
    return dataclasses.replace(
        request, options=dataclasses.replace(options, **{name: changes[name]})
    )


@st.composite
def _arrivals(draw: st.DrawFn, is_timed: bool) -> Arrival:
    seldom = st.none() | st.none() | st.none() | st.integers(0, 12)
    return Arrival(
        request=draw(st.one_of(_searches(), _searches(), _searches(), _scorings())),
        tick=draw(st.integers(0, 10)),
        caller=draw(st.sampled_from(["", "a", "b"])),
        priority=draw(st.sampled_from(Priority)),
        is_streamed=draw(st.booleans()),
        cancelled_after=draw(seldom),
        deadline_after=draw(seldom) if is_timed else None,
        stopped_after=draw(seldom) if is_timed else None,
    )


def _sources() -> st.SearchStrategy[tuple[int, ...]]:
    """Short ones, and such as need more than the first positions of a cache."""
    short = st.lists(_SOURCE_TOKENS, min_size=1, max_size=9)
    # Made of two numbers, since lists as long as this are seldom drawn.
    long = st.builds(_count_on, _SOURCE_TOKENS, st.integers(33, MAX_SOURCE_LENGTH - 1))
    return st.one_of(short, short, long).map(lambda words: (*words, EOS_TOKEN_ID))


def _count_on(first: int, length: int) -> list[int]:
    """The alphabet from some letter on, again and again."""
    words = len(SOURCE_WORDS)
    return [_FIRST_WORD + (first - _FIRST_WORD + place) % words for place in range(length)]


@st.composite
def _scorings(draw: st.DrawFn) -> Request:
    target = st.tuples(
        st.lists(_TARGET_TOKENS, min_size=1, max_size=9), st.sampled_from([(), (EOS_TOKEN_ID,)])
    ).map(lambda parts: (*parts[0], *parts[1]))
    targets = draw(st.lists(target, min_size=1, max_size=MAX_ROWS))
    return Request(draw(_sources()), None, tuple(targets))


@st.composite
def _searches(draw: st.DrawFn) -> Request:
    max_new_tokens = draw(st.integers(1, 12) | st.just(MAX_TARGET_LENGTH - 4))
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": draw(st.integers(0, min(3, max_new_tokens))),
        "return_scores": draw(st.booleans()),
        "return_token_log_probabilities": draw(st.booleans()),
        "top_log_probability_count": draw(st.sampled_from([0, 0, 3])),
    }
    for rule in draw(st.lists(st.sampled_from(sorted(_RULES)), max_size=3, unique=True)):
        options |= draw(_RULES[rule])
    kind = draw(st.sampled_from(["greedy", "beams", "beams", "sampled", "alternatives"]))
    if kind == "beams":
        num_beams = draw(st.integers(2, MAX_ROWS))
        options |= {
            "num_beams": num_beams,
            "num_return_sequences": draw(st.integers(1, num_beams)),
            "length_penalty": draw(st.sampled_from([0.0, 1.0, 2.0])),
            "early_stopping": draw(st.booleans()),
        }
    elif kind == "sampled":
        options |= {
            "do_sample": True,
            "seed": draw(st.integers(0, 9)),
            "temperature": draw(st.sampled_from([0.7, 1.0, 2.0])),
            "top_k": draw(st.sampled_from([0, 5])),
            "top_p": draw(st.sampled_from([0.8, 1.0])),
            "num_return_sequences": draw(st.integers(1, 4)),
        }
    elif kind == "alternatives":
        options |= {
            "return_alternatives": True,
            "num_return_sequences": draw(st.integers(2, 4)),
            "min_alternative_probability": draw(st.sampled_from([0.0, 0.05])),
        }
    return Request(draw(_sources()), GenerateOptions(**options))


def _some(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(values)


_EVERY_TOKEN = tuple(range(_FIRST_WORD + len(TARGET_WORDS)))
_RULES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "prefix": _some(target_prefix=st.lists(_TARGET_TOKENS, min_size=1, max_size=4).map(tuple)),
    "penalty": _some(repetition_penalty=st.sampled_from([0.8, 1.5])),
    "n-grams": _some(no_repeat_ngram_size=st.integers(1, 3)),
    "first": _some(forced_bos_token_id=_TARGET_TOKENS),
    "last": _some(forced_eos_token_id=st.just(EOS_TOKEN_ID)),
    # With every token suppressed there is nothing to go on with, which is an error of its own.
    "tokens": _some(suppressed_tokens=st.sampled_from([(7, 9, 20), (5, 31), _EVERY_TOKEN])),
    "sequences": _some(
        suppressed_sequences=st.lists(
            st.lists(_TARGET_TOKENS, min_size=2, max_size=3).map(tuple), min_size=1, max_size=3
        ).map(tuple)
    ),
    "stops": _some(
        stop_sequences=st.lists(_STOPS, min_size=1, max_size=2, unique=True).map(tuple),
        include_stop_sequence=st.booleans(),
    ),
}
