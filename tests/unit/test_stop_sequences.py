"""Stop sequences: found at the right token, cut off, and never streamed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import EOS, START
from seqserve.generate_options import GenerateOptions
from seqserve.search import make_search
from seqserve.search_state import Candidate, FinishReason, Hypothesis, SearchState
from seqserve.stop_sequences import StopSequences, hold_back
from seqserve.text_stream import TextStream
from seqserve.tokenizer import Tokenizer
from tiny_tokenizers import ADDING, open_adding


@pytest.fixture(scope="session", params=ADDING)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    """A tokenizer of each kind."""
    return open_adding(request.param, tmp_path_factory.mktemp("stops"))


class Letters:
    """Decodes each id to its character; counts what it decodes."""

    def __init__(self) -> None:
        self.num_decoded = 0

    def decode(self, token_ids: list[int]) -> str:
        """One character an id."""
        self.num_decoded += len(token_ids)
        return "".join(map(chr, token_ids))

    def ends_in_bytes(self, token_ids: list[int]) -> bool:
        """Never."""
        return False


def find_each(stops: StopSequences, ids: list[int]) -> tuple[str | None, int]:
    """The stop sequence that is found first, token by token, and after how many tokens."""
    window_start = 0
    for length in range(1, len(ids) + 1):
        found, window_start = stops.find(ids[:length], window_start)
        if found is not None:
            return found, length
    return None, len(ids)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), is_included=st.booleans())
def test_sequence_is_found_in_the_window_when_the_whole_text_has_it(
    data: st.DataObject, is_included: bool, tokenizer: Tokenizer
) -> None:
    """Whatever the decoder and the tokens, the window misses nothing and makes nothing up.

    What is streamed until then, token by token, is the text that is left.
    """
    any_id = st.integers(0, tokenizer.vocabulary_size - 1)
    ids = data.draw(st.lists(any_id, max_size=150) | st.lists(any_id, max_size=9))
    text = tokenizer.decode(ids)
    start = data.draw(st.integers(0, max(0, len(text) - 1)))
    length = data.draw(st.integers(1, 5))
    sequences = (
        text[start : start + length].replace("\ufffd", "") or "a",
        data.draw(st.sampled_from(["a ", "b\n", "日"])),
    )
    stops = StopSequences(tokenizer, sequences, is_included=is_included)
    expected = next(
        (
            length
            for length in range(1, len(ids) + 1)
            if any(sequence in tokenizer.decode(ids[:length]) for sequence in sequences)
        ),
        len(ids),
    )
    found, num_tokens = find_each(stops, ids)
    assert num_tokens == expected
    final = tokenizer.decode(ids[:num_tokens])
    assert (found is None) == (not any(sequence in final for sequence in sequences))
    final = final if found is None else stops.cut(final, found)
    stream = TextStream(tokenizer, stops.trim)
    pieces = [stream.push([token]) for token in ids[:num_tokens]]
    assert "".join([*pieces, stream.finish(final)]) == final


@pytest.mark.parametrize(
    ("sequences", "text", "found", "before", "including"),
    [
        (("stop",), "a stopper", "stop", "a ", "a stop"),
        (("b", "abc"), "xabcd", "b", "xa", "xab"),  # ends first
        (("b", "ab"), "xab", "ab", "x", "xab"),  # the longest of those that end first
        (("\n\n",), "a\n\n\nb", "\n\n", "a", "a\n\n"),
        (("a",), "a", "a", "", "a"),
    ],
)
def test_text_ends_before_the_first_sequence_or_with_it(
    sequences: tuple[str, ...], text: str, found: str, before: str, including: str
) -> None:
    """Of several in one token the one counts that letter by letter would have come first."""
    ids = list(map(ord, text))
    for is_included, cut in ((False, before), (True, including)):
        stops = StopSequences(Letters(), sequences, is_included=is_included)
        assert stops.find(ids, 0)[0] == found
        assert stops.cut(text, found) == stops.trim(text) == cut


def test_beginning_of_a_sequence_is_held_back_until_it_is_none() -> None:
    """A stream that includes the sequence need not wait."""
    stops = StopSequences(Letters(), ("stop", "\n--"), is_included=False)
    sent = [stops.trim(text) for text in ("as", "ast", "asto", "astoa", "astoa\n", "astoa\n-s")]
    assert sent == ["a", "a", "a", "astoa", "astoa", "astoa\n-"]
    assert StopSequences(Letters(), ("stop",), is_included=True).trim("asto") == "asto"


@given(text=st.text("ab", max_size=9), sequences=st.lists(st.text("ab", min_size=1), min_size=1))
def test_longest_beginning_is_held_back(text: str, sequences: list[str]) -> None:
    """As a naive search finds it; a whole sequence is no beginning."""
    beginnings = {sequence[:end] for sequence in sequences for end in range(len(sequence))}
    held = max(len(one) for one in beginnings if text.endswith(one))
    assert hold_back(text, sequences) == text[: len(text) - held]


def test_a_step_costs_the_same_however_long_the_target_is() -> None:
    """A window is decoded, not the whole target."""
    decoder = Letters()
    stops = StopSequences(decoder, ("stop",), is_included=False)
    assert find_each(stops, [ord("x")] * 1000) == (None, 1000)
    assert decoder.num_decoded < 1000 * 60


def search_for(
    sequences: tuple[str, ...], num_beams: int = 1, max_new_tokens: int = 9
) -> SearchState:
    """A search whose tokens are letters."""
    return make_search(
        GenerateOptions(
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            num_return_sequences=num_beams,
            stop_sequences=sequences,
        ),
        decoder_start_token_id=START,
        eos_token_id=EOS,
        stops=StopSequences(Letters(), sequences, is_included=False),
    )


def text_of(hypothesis: Hypothesis) -> str:
    """The letters of a hypothesis."""
    return "".join(map(chr, hypothesis.tokens))


def test_greedy_target_ends_with_the_token_that_completes_a_sequence() -> None:
    """Its tokens are all there; a sequence counts more than the limit that is reached with it."""
    search = search_for(("bc",), max_new_tokens=3)
    for letter in "abc":
        assert not search.is_finished
        search.advance([Candidate(0, ord(letter), 0.0, 0.0)])
    (found,) = search.hypotheses()
    assert text_of(found) == "abc"
    assert (found.finish_reason, found.stop_sequence) == (FinishReason.STOP_SEQUENCE, "bc")


def test_greedy_target_without_a_sequence_ends_as_ever() -> None:
    """At the limit, with no stop sequence named."""
    search = search_for(("bc",), max_new_tokens=1)
    search.advance([Candidate(0, ord("b"), 0.0, 0.0)])
    (found,) = search.hypotheses()
    assert (found.finish_reason, found.stop_sequence) == (FinishReason.LENGTH, None)


def candidates(*choices: tuple[int, str, float]) -> list[Candidate]:
    """Candidates by parent, letter and score."""
    return [Candidate(parent, ord(letter), score, -1.0) for parent, letter, score in choices]


def test_beam_with_a_sequence_is_finished_as_one_with_the_end_token() -> None:
    """It goes to the pool with its length's score; the next best candidate takes its place."""
    search = search_for(("x",), num_beams=2)
    parents = search.advance(
        candidates((0, "x", -1.0), (0, "a", -2.0), (0, "b", -3.0), (0, "c", -4.0))
    )
    assert parents == [0, 0]
    assert search.targets() == [[ord("a")], [ord("b")]]
    # Beyond the best two nothing is finished.
    search.advance(candidates((0, "a", -3.0), (1, "a", -4.0), (0, "x", -5.0), (1, "x", -6.0)))
    assert search.targets() == [[ord("a")] * 2, [ord("b"), ord("a")]]
    search.advance(candidates((0, "x", -4.0), (1, "x", -5.0), (0, "a", -9.0), (1, "a", -9.0)))
    assert search.is_finished
    first, second = search.hypotheses()
    assert [text_of(first), text_of(second)] == ["x", "aax"]
    assert (first.score, first.stop_sequence) == (-1.0, "x")
    assert first.finish_reason is FinishReason.STOP_SEQUENCE


def test_beams_that_sequences_took_are_made_up_for() -> None:
    """Fewer than K candidates are left: the rows stay K, but the missing ones cannot win."""
    search = search_for(("x", "y", "z"), num_beams=2)
    parents = search.advance(
        candidates((0, "x", -1.0), (0, "y", -2.0), (0, "z", -3.0), (0, "a", -4.0))
    )
    assert parents == [0, 0]
    assert search.targets() == [[ord("a")]] * 2
    assert search.scores[0] == -4.0
    assert search.scores[1] < -1e8
    assert search.num_rows == 2
    assert search.is_finished  # the pool is full, and nothing can beat it
    assert [text_of(one) for one in search.hypotheses()] == ["x", "y"]


def test_search_ends_when_sequences_took_all_beams() -> None:
    """The pool then holds as many as were asked for."""
    search = search_for(("x",), num_beams=2)
    search.advance(candidates((0, "a", -1.0), (0, "b", -1.5), (0, "c", -2.0), (0, "d", -3.0)))
    search.advance(candidates((0, "x", -1.5), (1, "x", -2.0), (0, "x", -2.5), (1, "x", -3.0)))
    assert search.is_finished
    assert [text_of(one) for one in search.hypotheses()] == ["ax", "bx"]
