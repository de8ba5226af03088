"""Generation, from arguments to requests and from replies to results, without a server."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import duration_pb2

from seqserve.client import GenerateOptions, Hypothesis, Piece, Timing, TokenLogProbability
from seqserve.client.arguments import Source
from seqserve.client.generation_messages import (
    generate_request,
    generate_stream_request,
    to_generation,
    to_piece,
)
from seqserve.v1 import generation_pb2

ALL_OPTIONS = GenerateOptions(
    max_new_tokens=7,
    num_beams=4,
    num_return_sequences=2,
    length_penalty=0.0,
    early_stopping=False,
    min_new_tokens=0,
    no_repeat_ngram_size=3,
    repetition_penalty=1.5,
    forced_bos_token_id=0,
    do_sample=False,
    temperature=0.5,
    top_k=0,
    top_p=0.75,
    seed=0,
    suppressed_token_ids=[3, 4],
    suppressed_sequences=["a b", [5, 6]],
    top_log_probability_count=0,
    return_alternatives=False,
    min_alternative_probability=0.0,
    return_scores=True,
    return_token_log_probabilities=False,
    stop_sequences=["."],
    include_stop_sequence=False,
)


def names(message: generation_pb2.GenerateOptions) -> set[str]:
    """The fields that are set."""
    return {field.name for field, _ in message.ListFields()}


def test_options_cover_every_field_of_the_api() -> None:
    """The client offers each decoding option, under its name in the API."""
    fields = generation_pb2.GenerateOptions.DESCRIPTOR.fields_by_name
    assert set(GenerateOptions.__annotations__) == set(fields)


def test_given_options_are_set_even_to_zero_and_false() -> None:
    """Zero and False are choices, not defaults."""
    request = generate_request(["a"], "m", "2", False, ALL_OPTIONS)
    assert names(request.options) == set(ALL_OPTIONS)
    sequences = request.options.suppressed_sequences
    assert [one.text or list(one.token_ids.values) for one in sequences] == ["a b", [5, 6]]
    plain = {name: value for name, value in ALL_OPTIONS.items() if name != "suppressed_sequences"}
    assert {name: getattr(request.options, name) for name in plain} == plain


@pytest.mark.parametrize("option", sorted(ALL_OPTIONS))
def test_one_option_sets_one_field(option: str) -> None:
    """Every other option stays unset, for a call and for a stream."""
    options = GenerateOptions(**{option: ALL_OPTIONS[option]})  # type: ignore[misc]
    for request in (
        generate_request(["a"], "", "", False, options),
        generate_stream_request("a", "", "", False, options),
    ):
        assert names(request.options) == {option}


def test_one_text_as_stop_sequences_is_refused() -> None:
    """Each of its characters would become one."""
    options = GenerateOptions(stop_sequences="end")
    with pytest.raises(TypeError, match=r'stop sequences must be a list: \["\."\]'):
        generate_request(["a"], "", "", False, options)


def test_stop_sequence_says_what_ended_a_hypothesis() -> None:
    """With its own reason; it is empty for all others."""
    ended, plain = to_generation(
        generation_pb2.GenerateResult(
            hypotheses=[
                generation_pb2.Hypothesis(
                    finish_reason=generation_pb2.FINISH_REASON_STOP_SEQUENCE, stop_sequence="end"
                ),
                generation_pb2.Hypothesis(finish_reason=generation_pb2.FINISH_REASON_EOS),
            ]
        )
    ).hypotheses
    assert (ended.finish_reason, ended.stop_sequence) == ("stop_sequence", "end")
    assert (plain.finish_reason, plain.stop_sequence) == ("eos", "")


def test_inputs_are_texts_or_token_ids_in_their_order() -> None:
    """Ids may be any sequence of integers; no input gets options of its own."""
    sources: list[Source] = ["a", [4, 5], (6,), "b"]
    request = generate_request(sources, "m", "2", True, {})
    assert [one.text or list(one.token_ids.values) for one in request.inputs] == [
        "a",
        [4, 5],
        [6],
        "b",
    ]
    assert not any(one.HasField("options") for one in request.inputs)
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)


def test_stream_request_has_one_input() -> None:
    """Model, version and truncation come along."""
    request = generate_stream_request([4, 5], "m", "2", True, {})
    assert list(request.input.token_ids.values) == [4, 5]
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)


def test_arrays_of_ids_are_inputs() -> None:
    """Rows of an array are sent as lists of ids."""
    rows: Any = np.array([[4, 5], [6, 7]])
    request = generate_request(rows, "", "", False, {})
    assert [list(one.token_ids.values) for one in request.inputs] == [[4, 5], [6, 7]]


def test_hypotheses_are_complete() -> None:
    """An unset score is None, a score of zero is zero; the best comes first."""
    generation = to_generation(
        generation_pb2.GenerateResult(
            hypotheses=[
                generation_pb2.Hypothesis(
                    text="x",
                    token_ids=[5, 2],
                    score=0.0,
                    token_log_probabilities=[-0.5, -0.25],
                    finish_reason=generation_pb2.FINISH_REASON_EOS,
                ),
                generation_pb2.Hypothesis(
                    text="y", token_ids=[6], finish_reason=generation_pb2.FINISH_REASON_LENGTH
                ),
            ],
            source_token_count=9,
            truncated_token_count=4,
        )
    )
    assert generation.hypotheses == (
        Hypothesis("x", (5, 2), 0.0, (-0.5, -0.25), "eos"),
        Hypothesis("y", (6,), None, (), "length"),
    )
    assert generation.text == "x"
    assert (generation.source_token_count, generation.truncated_token_count) == (9, 4)


def test_seed_is_that_of_drawn_hypotheses() -> None:
    """Zero is a seed; None says that nothing was drawn."""
    seeds = [
        to_generation(generation_pb2.GenerateResult(seed=seed)).seed
        for seed in (None, 0, 2**63 - 1)
    ]
    assert seeds == [None, 0, 2**63 - 1]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (generation_pb2.FINISH_REASON_EOS, "eos"),
        (generation_pb2.FINISH_REASON_LENGTH, "length"),
        (generation_pb2.FINISH_REASON_TIME, "time"),
    ],
)
def test_reasons_have_names(reason: generation_pb2.FinishReason.ValueType, expected: str) -> None:
    """Why a hypothesis ended, in a word."""
    message = generation_pb2.GenerateResult(
        hypotheses=[generation_pb2.Hypothesis(finish_reason=reason)]
    )
    assert to_generation(message).hypotheses[0].finish_reason == expected


def test_time_limit_is_a_duration() -> None:
    """Seconds in, a message of seconds and nanoseconds out; absent stays unset."""
    options = generation_pb2.GenerateOptions(max_time=duration_pb2.Duration(nanos=250_000_000))
    assert generate_request(["a"], "", "", False, {"max_time": 0.25}).options == options
    assert not generate_request(["a"], "", "", False, {}).options.HasField("max_time")


def test_times_are_in_seconds() -> None:
    """Whole seconds and nanoseconds add up; what is unset is 0."""
    timing = generation_pb2.GenerationTiming(
        queue_duration=duration_pb2.Duration(seconds=2, nanos=500_000_000),
        decode_duration=duration_pb2.Duration(nanos=1_000),
        is_cached=True,
    )
    assert to_generation(generation_pb2.GenerateResult(timing=timing)).timing == Timing(
        2.5, 0.0, 1e-6, is_cached=True
    )


def test_piece_may_be_empty() -> None:
    """A token without text is a piece all the same."""
    assert to_piece(generation_pb2.GeneratePiece(token_ids=[7])) == Piece("", (7,))


def test_languages_go_to_every_input_or_one_to_each() -> None:
    """One text is for all; a list must have one for each input."""
    mixed: list[Source] = ["a", [1]]
    request = generate_request(mixed, "", "", False, {}, "en", ["de", "fr"])
    assert [(one.source_language, one.target_language) for one in request.inputs] == [
        ("en", "de"),
        ("en", "fr"),
    ]
    with pytest.raises(ValueError, match="`target_language` must be one language or one for each"):
        generate_request(["a", "b"], "", "", False, {}, "en", ["de"])


def test_prefixes_go_to_every_input_or_one_to_each() -> None:
    """One text is for all; a list has a text, ids or nothing for each input."""
    mixed: list[Source] = ["a", [1]]
    request = generate_request(mixed, "", "", False, {}, target_prefix="x")
    assert [one.target_prefix_text for one in request.inputs] == ["x", "x"]
    prefixes: list[Source] = ["x", [5, 6], ""]
    request = generate_request(["a", "b", "c"], "", "", False, {}, target_prefix=prefixes)
    kinds = ["target_prefix_text", "target_prefix_token_ids", None]
    assert [one.WhichOneof("target_prefix") for one in request.inputs] == kinds
    assert list(request.inputs[1].target_prefix_token_ids.values) == [5, 6]
    stream = generate_stream_request("a", "", "", False, {}, target_prefix=[5])
    assert list(stream.input.target_prefix_token_ids.values) == [5]
    with pytest.raises(ValueError, match="`target_prefix` must be one text or one text or list of"):
        generate_request(["a", "b"], "", "", False, {}, target_prefix=["x"])
    with pytest.raises(TypeError, match="must be wrapped in a list"):
        generate_request(["a", "b"], "", "", False, {}, target_prefix=[5, 6])


def test_top_tokens_are_records() -> None:
    """One tuple for each token behind the prefix."""
    one = generation_pb2.TokenLogProbability(token_id=5, piece="x", log_probability=-0.5)
    message = generation_pb2.Hypothesis(
        token_ids=[4, 5],
        prefix_token_count=1,
        top_log_probabilities=[generation_pb2.TopLogProbabilities(values=[one])],
    )
    result = generation_pb2.GenerateResult(hypotheses=[message])
    (hypothesis,) = to_generation(result).hypotheses
    assert hypothesis.prefix_token_count == 1
    assert hypothesis.top_log_probabilities == ((TokenLogProbability(5, "x", -0.5),),)
