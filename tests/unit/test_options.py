"""Decoding options: layers, defaults, limits, and the field that a refusal names."""

import math
from typing import Any

import pytest
from google.protobuf import duration_pb2

from resolved_options import refusal, resolve
from seqserve.generate_options import GenerateOptions
from seqserve.v1 import generation_pb2


def test_nothing_set_gives_the_defaults_of_the_model() -> None:
    """The manifest's defaults are used where no layer says anything."""
    assert resolve() == resolve({}, {}) == GenerateOptions(max_new_tokens=20)
    assert resolve(num_beams=4, length_penalty=0.5) == GenerateOptions(
        max_new_tokens=20, num_beams=4, length_penalty=0.5
    )


def test_every_option_is_passed_on() -> None:
    """All fields of the message reach the search."""
    values: dict[str, Any] = {
        "max_new_tokens": 7,
        "num_beams": 5,
        "num_return_sequences": 3,
        "length_penalty": -0.5,
        "early_stopping": True,
        "return_scores": True,
        "return_token_log_probabilities": True,
        "min_new_tokens": 2,
        "no_repeat_ngram_size": 3,
        "repetition_penalty": 1.5,
        "forced_bos_token_id": 4,
        "stop_sequences": (".", " end"),
        "include_stop_sequence": True,
    }
    time_limit = {"max_time": duration_pb2.Duration(seconds=1, nanos=250_000_000)}
    assert resolve(values | time_limit) == GenerateOptions(**values, max_time=1.25)
    assert resolve(values) == GenerateOptions(**values)
    drawing: dict[str, Any] = {
        "num_return_sequences": 3,
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.75,
        "seed": 2**63 - 1,
    }
    assert resolve(drawing) == GenerateOptions(max_new_tokens=20, **drawing)
    fields = [field.name for field in generation_pb2.GenerateOptions.DESCRIPTOR.fields]
    alternatives = {
        "num_return_sequences": 3,
        "top_log_probability_count": 20,
        "return_alternatives": True,
        "min_alternative_probability": 0.25,
    }
    assert resolve(alternatives) == GenerateOptions(max_new_tokens=20, **alternatives)  # type: ignore[arg-type]
    elsewhere = {"suppressed_token_ids", "suppressed_sequences"}
    assert set(fields) == {*values, *time_limit, *drawing, *alternatives, *elsewhere}


def test_later_layers_override_earlier_ones() -> None:
    """An input's own options win, field by field, also when set to false or zero."""
    request = {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0, "max_new_tokens": 9}
    own = {"early_stopping": False, "length_penalty": 0.0, "max_new_tokens": 3}
    assert resolve(request, own) == GenerateOptions(
        max_new_tokens=3, num_beams=4, length_penalty=0.0, early_stopping=False
    )


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("max_new_tokens", 0, "must be at least 1, but is 0"),
        ("max_new_tokens", -(2**31), "must be at least 1, but is -2147483648"),
        ("max_new_tokens", 51, "must be at most 50, but is 51"),
        ("num_beams", 0, "must be at least 1, but is 0"),
        ("num_beams", 9, "must be at most 8, but is 9"),
        ("num_return_sequences", 0, "must be at least 1, but is 0"),
        ("num_return_sequences", 5, "must be at most 4, but is 5"),
        ("length_penalty", math.nan, "must be finite, but is nan"),
        ("length_penalty", math.inf, "must be finite, but is inf"),
        ("length_penalty", -math.inf, "must be finite, but is -inf"),
        ("length_penalty", 5.5, "must be at least -5 and at most 5, but is 5.5"),
        ("length_penalty", -1e38, "must be at least -5 and at most 5, but is -1e+38"),
        (
            "max_time",
            duration_pb2.Duration(seconds=61),
            "must be at most 60 seconds, after which the server ends requests "
            "(max_request_seconds), but is 61",
        ),
        ("repetition_penalty", 1e12, "must be at least 0.01 and at most 100, but is 1e+12"),
        ("repetition_penalty", 1e-50, "must be at least 0.01 and at most 100, but is 1e-50"),
        ("max_time", duration_pb2.Duration(), "must be above 0 seconds, but is 0"),
        ("max_time", duration_pb2.Duration(seconds=-2), "must be above 0 seconds, but is -2"),
        ("stop_sequences", ["a"] * 17, "must hold at most 16 entries, but holds 17"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: Any, rule: str) -> None:
    """A refusal names the field where the value stands, the rule and the value."""
    bad = {name: value}
    good = {"num_beams": 4}
    assert refusal(good | bad) == (f"options.{name}", f"`{name}` {rule}")
    assert refusal(good, bad) == (f"inputs[1].options.{name}", f"`{name}` {rule}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 1),
        ("max_new_tokens", 50),
        ("num_beams", 8),
        ("repetition_penalty", 0.01),
        ("repetition_penalty", 100.0),
        ("length_penalty", -5.0),
        ("length_penalty", 5.0),
    ],
)
def test_limits_themselves_are_allowed(name: str, value: float) -> None:
    """Both ends of a range belong to it."""
    assert getattr(resolve({"num_beams": 2} | {name: value}), name) == value


def test_overridden_value_is_not_checked() -> None:
    """Only the value that counts must be right."""
    assert resolve({"num_beams": 99}, {"num_beams": 2}).num_beams == 2


@pytest.mark.parametrize("values", [{"length_penalty": 1.0}, {"early_stopping": False}])
def test_beam_options_are_refused_for_greedy_search(values: dict[str, Any]) -> None:
    """An option without effect is an error where it stands, even with its default value."""
    (name,) = values
    field, message = refusal(values)
    assert field == f"options.{name}"
    assert message.startswith(f"`{name}` has an effect on beam search only; ")
    assert refusal(values, {"num_beams": 1})[0] == f"options.{name}"
    assert refusal({"num_beams": 1}, values)[0] == f"inputs[1].options.{name}"
    assert resolve(values, {"num_beams": 2}).num_beams == 2


@pytest.mark.parametrize(
    ("sequence", "rule"),
    [
        ("", "must not be empty"),
        ("a" * 257, "must have at most 256 characters, but has 257"),
        (
            "a\ufffd",
            "must not hold U+FFFD, which stands for bytes that are no character (yet)",
        ),
    ],
)
def test_stop_sequence_that_cannot_be_found_is_refused(sequence: str, rule: str) -> None:
    """The refusal says which one."""
    assert refusal({}, {"stop_sequences": ["a" * 256, sequence]}) == (
        "inputs[1].options.stop_sequences[1]",
        f"`stop_sequences[1]` {rule}",
    )


def test_stop_sequences_of_an_input_replace_those_of_the_request() -> None:
    """They are one option."""
    layers = {"stop_sequences": ["a", "b"]}, {"stop_sequences": ["c"]}
    assert resolve(*layers).stop_sequences == ("c",)
    assert len(resolve({"stop_sequences": ["a"] * 16}).stop_sequences) == 16


@pytest.mark.parametrize("value", [True, False])
def test_including_no_stop_sequence_is_refused(value: bool) -> None:
    """An option without effect is an error where it stands."""
    field, message = refusal({"include_stop_sequence": value})
    assert field == "options.include_stop_sequence"
    assert message == (
        "`include_stop_sequence` has an effect with `stop_sequences` only; leave it unset or set "
        "those, too"
    )
    options = resolve({"include_stop_sequence": value}, {"stop_sequences": ["a"]})
    assert options.include_stop_sequence is value


def test_more_answers_than_beams_are_refused() -> None:
    """Greedy search has one answer; the input's own beams count, not the request's."""
    assert refusal({"num_return_sequences": 2})[0] == "options.num_return_sequences"
    field, message = refusal({"num_beams": 4, "num_return_sequences": 4}, {"num_beams": 2})
    assert field == "options.num_return_sequences"
    assert message == "`num_return_sequences` must be at most 2, but is 4"
