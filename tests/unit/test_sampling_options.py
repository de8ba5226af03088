"""Options of hypotheses that do not compete: drawn ones and alternatives."""

import math
from typing import Any

import pytest

from resolved_options import refusal, resolve
from seqserve.errors import InvalidRequestError
from seqserve.generate_options import GenerateOptions


def test_sampling_of_the_model_is_used_and_can_be_left() -> None:
    """A model may draw by default; a request may not want it, and then gets plain greedy search."""
    defaults: dict[str, Any] = {"do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.75}
    drawn = resolve({"seed": 3}, **defaults)
    assert drawn == GenerateOptions(max_new_tokens=20, seed=3, **defaults)
    assert not resolve({"do_sample": False}, **defaults).do_sample
    plain = resolve({"do_sample": False, "num_beams": 2}, {"num_return_sequences": 2}, **defaults)
    assert plain.num_return_sequences == 2


def test_seeds_are_drawn_where_none_is_given() -> None:
    """Each input gets its own; without sampling there is none."""
    seeds = {resolve({"do_sample": True}).seed for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert resolve({"do_sample": False}).seed == 0


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("temperature", 0.0, "must be above 0, but is 0.0"),
        ("temperature", -1.0, "must be above 0, but is -1.0"),
        ("temperature", math.nan, "must be finite, but is nan"),
        ("temperature", math.inf, "must be finite, but is inf"),
        ("top_k", -1, "must be at least 0, but is -1"),
        ("top_p", 0.0, "must be above 0, but is 0.0"),
        ("top_p", 1.5, "must be at most 1, but is 1.5"),
        ("top_p", math.nan, "must be finite, but is nan"),
        ("seed", -1, "must be at least 0, but is -1"),
        ("num_return_sequences", 9, "must be at most 8, but is 9"),
    ],
)
def test_sampling_values_out_of_range_are_refused(name: str, value: float, rule: str) -> None:
    """As all others are, where they stand."""
    assert refusal({"do_sample": True, name: value}) == (f"options.{name}", f"`{name}` {rule}")


@pytest.mark.parametrize(
    "values", [{"temperature": 1.0}, {"top_k": 0}, {"top_p": 1.0}, {"seed": 0}]
)
def test_sampling_options_are_refused_without_sampling(values: dict[str, Any]) -> None:
    """An option without effect is an error, even with a value that is off."""
    (name,) = values
    field, message = refusal(values)
    assert field == f"options.{name}"
    assert message == (
        f"`{name}` has an effect on sampling only; leave it unset or set `do_sample`"
    )
    assert refusal(values, {"do_sample": False})[0] == f"options.{name}"
    assert resolve({"do_sample": True}, values).do_sample


def test_beams_do_not_sample() -> None:
    """Whichever layer asks for it; the message names both options."""
    message = (
        "`do_sample` must not be set with beams, but `num_beams` is 4; set `num_beams` to 1, or "
        "`do_sample` to false"
    )
    assert refusal({"num_beams": 4}, {"do_sample": True}) == (
        "inputs[1].options.do_sample",
        message,
    )
    with pytest.raises(InvalidRequestError) as caught:
        resolve({"num_beams": 4}, do_sample=True)
    assert (caught.value.field, str(caught.value)) == ("options.num_beams", message)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("top_log_probability_count", -1, "must be at least 0, but is -1"),
        ("top_log_probability_count", 21, "must be at most 20, but is 21"),
        ("min_alternative_probability", -0.1, "must be at least 0 and at most 1, but is -0.1"),
        ("min_alternative_probability", 1.5, "must be at least 0 and at most 1, but is 1.5"),
        ("min_alternative_probability", math.nan, "must be finite, but is nan"),
        ("num_return_sequences", 9, "must be at most 8, but is 9"),
    ],
)
def test_values_about_alternatives_out_of_range_are_refused(
    name: str, value: float, rule: str
) -> None:
    """As all others are."""
    good = {"return_alternatives": True, "num_return_sequences": 2}
    assert refusal(good | {name: value}) == (f"options.{name}", f"`{name}` {rule}")


@pytest.mark.parametrize(
    ("values", "name", "rule"),
    [
        (
            {"return_alternatives": True, "num_return_sequences": 2, "num_beams": 4},
            "return_alternatives",
            "needs `num_beams` 1, but it is 4",
        ),
        (
            {"return_alternatives": True, "num_return_sequences": 2, "do_sample": True},
            "return_alternatives",
            "must not be set with `do_sample`: alternatives are continued by greedy search",
        ),
        (
            {"return_alternatives": True},
            "return_alternatives",
            "needs `num_return_sequences` above 1, but it is 1",
        ),
        (
            {"min_alternative_probability": 0.0},
            "min_alternative_probability",
            "has an effect on alternatives only; leave it unset or set `return_alternatives`",
        ),
    ],
)
def test_alternatives_are_those_of_greedy_search(
    values: dict[str, Any], name: str, rule: str
) -> None:
    """Refused where there would be none."""
    assert refusal(values) == (f"options.{name}", f"`{name}` {rule}")
