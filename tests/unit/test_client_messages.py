"""From arguments to requests and from replies to results, without a server."""

from typing import Any

import numpy as np
import pytest
from google.protobuf import duration_pb2

from seqserve.client import (
    EmbeddingSettings,
    GenerateOptions,
    GenerationSettings,
    Hypothesis,
    ModelInfo,
    Piece,
    Timing,
    Token,
    TokenLogProbability,
    messages,
    scoring_messages,
)
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2

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
    request = messages.generate_request(["a"], "m", "2", False, ALL_OPTIONS)
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
        messages.generate_request(["a"], "", "", False, options),
        messages.generate_stream_request("a", "", "", False, options),
    ):
        assert names(request.options) == {option}


def test_targets_are_those_of_one_text_or_an_entry_for_each_input() -> None:
    """Texts or token ids, one or several."""
    for targets in ("x", ["x"]):
        (one,) = scoring_messages.score_request("a", targets, "m", "2", True).inputs
        assert (one.text, [target.text for target in one.targets]) == ("a", ["x"])
    inputs: list[messages.Source] = ["a", [4, 5]]
    two: list[messages.Source] = ["y", [6, 7]]
    targets_of_each: list[scoring_messages.Targets] = ["x", two]
    request = scoring_messages.score_request(
        inputs, targets_of_each, "m", "2", True, "de", ["en", "fr"]
    )
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)
    first, second = request.inputs
    assert [target.text for target in first.targets] == ["x"]
    assert list(second.token_ids.values) == [4, 5]
    assert second.targets[0].text == "y"
    assert list(second.targets[1].token_ids.values) == [6, 7]
    assert [one.source_language for one in request.inputs] == ["de", "de"]
    assert [one.target_language for one in request.inputs] == ["en", "fr"]


def test_targets_must_match_the_inputs() -> None:
    """One entry too few would score the wrong pairs."""
    with pytest.raises(ValueError, match="there are 1 for 2 inputs"):
        scoring_messages.score_request(["a", "b"], ["x"], "", "", False)
    with pytest.raises(TypeError, match="must be wrapped in a list"):
        scoring_messages.score_request("a", [5, 6], "", "", False)


def test_one_text_as_stop_sequences_is_refused() -> None:
    """Each of its characters would become one."""
    options = GenerateOptions(stop_sequences="end")
    with pytest.raises(TypeError, match=r'stop sequences must be a list: \["\."\]'):
        messages.generate_request(["a"], "", "", False, options)


def test_stop_sequence_says_what_ended_a_hypothesis() -> None:
    """With its own reason; it is empty for all others."""
    ended, plain = messages.to_generation(
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
    sources: list[messages.Source] = ["a", [4, 5], (6,), "b"]
    request = messages.generate_request(sources, "m", "2", True, {})
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
    request = messages.generate_stream_request([4, 5], "m", "2", True, {})
    assert list(request.input.token_ids.values) == [4, 5]
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)


@pytest.mark.parametrize("normalize", [None, False, True])
def test_normalize_is_set_only_if_given(normalize: bool | None) -> None:
    """None leaves the choice to the model; False is a choice."""
    request = messages.embed_request(["a", "b"], "m", "2", normalize, True)
    assert request.HasField("normalize") is (normalize is not None)
    assert request.normalize is bool(normalize)
    assert list(request.inputs) == ["a", "b"]
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)


def test_detokenize_request_keeps_rows() -> None:
    """One sequence a row, empty ones too."""
    request = messages.detokenize_request([[4, 5], [], (6,)], "m", "2")
    assert [list(row.token_ids) for row in request.sequences] == [[4, 5], [], [6]]
    assert (request.model_name, request.model_version) == ("m", "2")


def test_one_text_becomes_a_list_of_one() -> None:
    """A text is one input, not one input a letter."""
    assert messages.as_list("ab") == ["ab"]
    mixed: list[messages.Source] = ["ab", [5, 6]]
    assert messages.as_list(mixed) == mixed
    assert messages.as_list([]) == []


@pytest.mark.parametrize(
    "flat",
    [[5, 6], (5,), np.array([5, 6]), np.array([5, 6], np.int32)],
    ids=["list", "tuple", "int64 array", "int32 array"],
)
def test_flat_ids_of_any_kind_are_refused(flat: Any) -> None:
    """The message shows the right form, for numbers of numpy as for Python's."""
    with pytest.raises(TypeError, match=r"must be wrapped in a list: \[\[5, 6, 7\]\]"):
        messages.as_list(flat)


def test_arrays_of_ids_are_inputs() -> None:
    """Rows of an array are sent as lists of ids."""
    rows: Any = np.array([[4, 5], [6, 7]])
    request = messages.generate_request(messages.as_list(rows), "", "", False, {})
    assert [list(one.token_ids.values) for one in request.inputs] == [[4, 5], [6, 7]]


def test_hypotheses_are_complete() -> None:
    """An unset score is None, a score of zero is zero; the best comes first."""
    generation = messages.to_generation(
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
        messages.to_generation(generation_pb2.GenerateResult(seed=seed)).seed
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
    assert messages.to_generation(message).hypotheses[0].finish_reason == expected


def test_time_limit_is_a_duration() -> None:
    """Seconds in, a message of seconds and nanoseconds out; absent stays unset."""
    options = generation_pb2.GenerateOptions(max_time=duration_pb2.Duration(nanos=250_000_000))
    assert messages.generate_request(["a"], "", "", False, {"max_time": 0.25}).options == options
    assert not messages.generate_request(["a"], "", "", False, {}).options.HasField("max_time")


def test_priorities_are_words() -> None:
    """Empty leaves it to the server; another word is refused with those there are."""
    for priority, value in {"": 0, "low": 1, "normal": 2, "high": 3}.items():
        request = messages.embed_request(["a"], "", "", None, False, priority)  # type: ignore[arg-type]
        assert request.priority == value
    with pytest.raises(ValueError, match="`priority` must be low, normal or high, but is 'HIGH'"):
        messages.embed_request(["a"], "", "", None, False, "HIGH")  # type: ignore[arg-type]


def test_times_are_in_seconds() -> None:
    """Whole seconds and nanoseconds add up; what is unset is 0."""
    timing = generation_pb2.GenerationTiming(
        queue_duration=duration_pb2.Duration(seconds=2, nanos=500_000_000),
        decode_duration=duration_pb2.Duration(nanos=1_000),
    )
    assert messages.to_generation(generation_pb2.GenerateResult(timing=timing)).timing == Timing(
        2.5, 0.0, 1e-6
    )


def test_piece_may_be_empty() -> None:
    """A token without text is a piece all the same."""
    assert messages.to_piece(generation_pb2.GeneratePiece(token_ids=[7])) == Piece("", (7,))


def test_embeddings_are_an_array_with_counts_and_times() -> None:
    """Rows in the order of the texts; embeddings have no decoding time."""
    timing = encoding_pb2.EncodingTiming(
        queue_duration=duration_pb2.Duration(nanos=1_000_000),
        encode_duration=duration_pb2.Duration(seconds=3),
    )
    embeddings = messages.to_embeddings(
        encoding_pb2.EmbedResponse(
            embeddings=[
                encoding_pb2.Embedding(values=[1, 2, 3], token_count=5, timing=timing),
                encoding_pb2.Embedding(values=[4, 5, 6], token_count=8, truncated_token_count=2),
            ]
        )
    )
    assert embeddings.vectors.dtype == np.float32
    assert embeddings.vectors.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert embeddings.token_counts == (5, 8)
    assert embeddings.truncated_token_counts == (0, 2)
    assert embeddings.timings == (Timing(0.001, 3.0, 0.0), Timing(0.0, 0.0, 0.0))


def test_tokens_keep_offsets_and_marks() -> None:
    """A list a text, empty for a text without tokens."""
    token = model_pb2.Token(id=4, text="a", start_offset=1, end_offset=2, is_special=True)
    response = model_pb2.TokenizeResponse(
        tokenizations=[model_pb2.Tokenization(tokens=[token]), model_pb2.Tokenization()]
    )
    assert messages.to_tokens(response) == [[Token(4, "a", 1, 2, True)], []]


def test_model_has_the_settings_of_its_task() -> None:
    """Settings of a task the model lacks are None; zeros of one it has are zeros."""
    generating = model_pb2.Model(
        name="m",
        version="2",
        tasks=[model_pb2.TASK_GENERATE],
        family="transformer",
        dtype="fp32",
        source="s",
        max_source_length=9,
        source_vocabulary_size=30,
        max_inputs_per_request=8,
        is_batch_invariant=True,
        generation=model_pb2.GenerationSettings(
            max_new_tokens=5,
            num_beams=2,
            max_target_length=6,
            max_num_beams=4,
            forced_eos_token_id=0,
            do_sample=True,
            top_k=5,
            top_p=0.5,
            suppressed_sequences=[model_pb2.TokenSequence(token_ids=[3, 4])],
            target_languages=["de", "en"],
        ),
    )
    embedding = model_pb2.Model(
        tasks=[model_pb2.TASK_EMBED],
        embedding=model_pb2.EmbeddingSettings(embedding_size=3, pooling="mean"),
    )
    first, second = messages.to_models([generating, embedding])
    assert first == ModelInfo(
        name="m",
        version="2",
        tasks=("generate",),
        family="transformer",
        dtype="fp32",
        source="s",
        max_source_length=9,
        source_vocabulary_size=30,
        max_inputs_per_request=8,
        is_batch_invariant=True,
        generation=GenerationSettings(
            max_new_tokens=5,
            num_beams=2,
            length_penalty=0.0,
            early_stopping=False,
            min_new_tokens=0,
            no_repeat_ngram_size=0,
            repetition_penalty=0.0,
            forced_bos_token_id=None,
            forced_eos_token_id=0,
            suppressed_token_ids=(),
            do_sample=True,
            temperature=0.0,
            top_k=5,
            top_p=0.5,
            suppressed_sequences=((3, 4),),
            max_target_length=6,
            max_num_beams=4,
            target_vocabulary_size=0,
            source_languages=(),
            target_languages=("de", "en"),
            default_source_language="",
            default_target_language="",
        ),
        embedding=None,
    )
    assert (second.tasks, second.generation) == (("embed",), None)
    assert second.embedding == EmbeddingSettings(embedding_size=3, pooling="mean", normalize=False)


def test_languages_go_to_every_input_or_one_to_each() -> None:
    """One text is for all; a list must have one for each input."""
    request = messages.generate_request(["a", [1]], "", "", False, {}, "en", ["de", "fr"])
    assert [(one.source_language, one.target_language) for one in request.inputs] == [
        ("en", "de"),
        ("en", "fr"),
    ]
    with pytest.raises(ValueError, match="`target_language` must be one language or one for each"):
        messages.generate_request(["a", "b"], "", "", False, {}, "en", ["de"])


def test_prefixes_go_to_every_input_or_one_to_each() -> None:
    """One text is for all; a list has a text, ids or nothing for each input."""
    request = messages.generate_request(["a", [1]], "", "", False, {}, target_prefix="x")
    assert [one.target_prefix_text for one in request.inputs] == ["x", "x"]
    prefixes: list[messages.Source] = ["x", [5, 6], ""]
    request = messages.generate_request(["a", "b", "c"], "", "", False, {}, target_prefix=prefixes)
    kinds = ["target_prefix_text", "target_prefix_token_ids", None]
    assert [one.WhichOneof("target_prefix") for one in request.inputs] == kinds
    assert list(request.inputs[1].target_prefix_token_ids.values) == [5, 6]
    stream = messages.generate_stream_request("a", "", "", False, {}, target_prefix=[5])
    assert list(stream.input.target_prefix_token_ids.values) == [5]
    with pytest.raises(ValueError, match="`target_prefix` must be one text or one text or list of"):
        messages.generate_request(["a", "b"], "", "", False, {}, target_prefix=["x"])
    with pytest.raises(TypeError, match="must be wrapped in a list"):
        messages.generate_request(["a", "b"], "", "", False, {}, target_prefix=[5, 6])


def test_top_tokens_are_records() -> None:
    """One tuple for each token behind the prefix."""
    one = generation_pb2.TokenLogProbability(token_id=5, piece="x", log_probability=-0.5)
    message = generation_pb2.Hypothesis(
        token_ids=[4, 5],
        prefix_token_count=1,
        top_log_probabilities=[generation_pb2.TopLogProbabilities(values=[one])],
    )
    result = generation_pb2.GenerateResult(hypotheses=[message])
    (hypothesis,) = messages.to_generation(result).hypotheses
    assert hypothesis.prefix_token_count == 1
    assert hypothesis.top_log_probabilities == ((TokenLogProbability(5, "x", -0.5),),)
