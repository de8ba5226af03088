"""Prefixes and suppressed sequences of a request, as tokens; and the field that a refusal names."""

from typing import Any

import pytest

from fakes import EOS, make_generation_record
from seqserve.errors import InvalidRequestError
from seqserve.generate_options import GenerateOptions
from seqserve.servicers.suppression import suppress
from seqserve.servicers.target_prefix import begin_with_prefix
from seqserve.servicers.target_texts import Layers, TargetTexts
from seqserve.v1 import generation_pb2

Options = generation_pb2.GenerateOptions
Ids = generation_pb2.TokenIds
Sequence = generation_pb2.SuppressedSequence

TEXTS = TargetTexts(
    {
        "-": (9,),
        "ab": (5, 6),
        " ab": (7, 6),
        "-ab": (9, 5, 8),
        "x": (4,),
        " x": (4,),
        "-x": (20, 21),
        "none": (),
        " none": (),
        "-none": (9,),
        "end": (EOS,),
        " end": (EOS,),
        "-end": (9, EOS),
        "wrong": (5, EOS),
    }
)


def suppressed(*messages: Options, **record: Any) -> tuple[list[int], list[tuple[int, ...]]]:
    """Tokens and sequences that are barred in the end."""
    paths = ("options", "inputs[1].options")
    layers: Layers = list(zip(messages, paths, strict=False))
    found = make_generation_record(**record)
    options = GenerateOptions(
        max_new_tokens=5,
        suppressed_tokens=found.suppressed_tokens,
        suppressed_sequences=found.suppressed_sequences,
    )
    chosen = suppress(options, layers, TEXTS, found)
    return list(chosen.suppressed_tokens), list(chosen.suppressed_sequences)


def sequences(*entries: str | list[int]) -> Options:
    """Options that suppress texts or token ids."""
    return Options(
        suppressed_sequences=[
            Sequence(text=one) if isinstance(one, str) else Sequence(token_ids=Ids(values=one))
            for one in entries
        ]
    )


def test_request_adds_to_what_the_model_suppresses() -> None:
    """Single tokens of sequences are tokens; an input's list takes the place of the request's."""
    record: dict[str, Any] = {"suppressed_tokens": (3,), "suppressed_sequences": ((3, 4),)}
    assert suppressed(**record) == ([3], [(3, 4)])
    whole = sequences([5, 6], [7])
    whole.suppressed_token_ids.extend([8, 8])
    assert suppressed(whole, **record) == ([3, 7, 8], [(3, 4), (5, 6)])
    assert suppressed(whole, sequences([9, 9]), **record) == ([3, 8], [(3, 4), (9, 9)])
    assert suppressed(whole, Options(suppressed_token_ids=[1])) == ([1, 7], [(5, 6)])


def test_texts_are_suppressed_in_every_place() -> None:
    """At the beginning, behind a space, and within a word, where the sign stands for itself."""
    assert suppressed(sequences("ab")) == ([], [(5, 6), (5, 8), (7, 6)])
    assert suppressed(sequences("x")) == ([4], [])


@pytest.mark.parametrize(
    ("message", "field", "rule"),
    [
        (
            Options(suppressed_token_ids=[4, 32]),
            "suppressed_token_ids[1]",
            "must be at least 0 and below 32, but is 32",
        ),
        (
            sequences([4, 5], [4, -1]),
            "suppressed_sequences[1].token_ids.values[1]",
            "must be at least 0 and below 32, but is -1",
        ),
        (sequences([]), "suppressed_sequences[0].token_ids", "must not be empty"),
        (
            sequences([4] * 65),
            "suppressed_sequences[0].token_ids",
            "must have at most 64 tokens, but has 65",
        ),
        (
            sequences("none"),
            "suppressed_sequences[0].text",
            "has no tokens: the model's tokenizer drops all of it",
        ),
        (
            sequences("x", "end"),
            "suppressed_sequences[1].text",
            "is the end token alone; name it in `suppressed_token_ids`, or set `min_new_tokens`",
        ),
        (
            sequences([EOS]),
            "suppressed_sequences[0].token_ids",
            "is the end token alone; name it in `suppressed_token_ids`, or set `min_new_tokens`",
        ),
        (
            Options(suppressed_sequences=[Sequence()]),
            "suppressed_sequences[0]",
            "must set `text` or `token_ids`",
        ),
    ],
)
def test_wrong_sequences_are_refused(message: Options, field: str, rule: str) -> None:
    """The field where they stand, the rule and the value."""
    for messages, path in (([message], "options"), ([Options(), message], "inputs[1].options")):
        with pytest.raises(InvalidRequestError) as caught:
            suppressed(*messages)
        assert caught.value.field == f"{path}.{field}"
        assert str(caught.value) == f"`{path}.{field}` {rule}"


def begun(
    options: GenerateOptions, *, is_limit_chosen: bool = False, **message: Any
) -> GenerateOptions:
    """Options with the prefix of a message."""
    return begin_with_prefix(
        options,
        generation_pb2.GenerateInput(**message),
        "inputs[1]",
        TEXTS,
        make_generation_record(),
        is_limit_chosen=is_limit_chosen,
    )


def test_forced_token_comes_before_a_text() -> None:
    """Ids are taken as they are; without a prefix nothing changes."""
    forced = GenerateOptions(max_new_tokens=5, forced_bos_token_id=7)
    assert begun(forced, target_prefix_text="ab").target_prefix == (7, 5, 6)
    ids = Ids(values=[5, 6])
    assert begun(forced, target_prefix_token_ids=ids).target_prefix == (5, 6)
    assert begun(forced, text="a") == forced
    plain = GenerateOptions(max_new_tokens=5)
    assert begun(plain, target_prefix_text="ab").target_prefix == (5, 6)


def test_default_limit_is_what_the_prefix_leaves() -> None:
    """The model writes at most 50 tokens in all; a limit that was asked for is never lowered."""
    ids = Ids(values=[5] * 40)
    options = GenerateOptions(max_new_tokens=20, min_new_tokens=15)
    chosen = begun(options, target_prefix_token_ids=ids)
    assert (chosen.max_new_tokens, chosen.min_new_tokens) == (10, 10)
    with pytest.raises(InvalidRequestError) as caught:
        begun(options, target_prefix_token_ids=ids, is_limit_chosen=True)
    assert caught.value.field == "inputs[1].target_prefix_token_ids"
    assert str(caught.value) == (
        "`inputs[1].target_prefix_token_ids` has 40 tokens, so that `max_new_tokens` must be at "
        "most 10, but it is 20: a target has at most 50 tokens; shorten the prefix or lower "
        "`max_new_tokens`"
    )
    fitting = GenerateOptions(max_new_tokens=10)
    assert begun(fitting, target_prefix_token_ids=ids, is_limit_chosen=True).max_new_tokens == 10


@pytest.mark.parametrize(
    ("message", "field", "rule"),
    [
        (
            {"target_prefix_token_ids": Ids()},
            "target_prefix_token_ids",
            "must not be empty",
        ),
        (
            {"target_prefix_token_ids": Ids(values=[5, 32])},
            "target_prefix_token_ids.values[1]",
            "must be at least 0 and below 32, but is 32",
        ),
        (
            {"target_prefix_token_ids": Ids(values=[5] * 50)},
            "target_prefix_token_ids",
            "must have at most 49 tokens, a forced first token included, so that one is left to "
            "generate; shorten it",
        ),
        (
            {"target_prefix_token_ids": Ids(values=[5, EOS])},
            "target_prefix_token_ids",
            "must not hold the end token 2; leave it out",
        ),
        (
            {"target_prefix_text": "wrong"},
            "target_prefix_text",
            "must not hold the end token 2; leave it out",
        ),
        (
            {"target_prefix_text": "none"},
            "target_prefix_text",
            "has no tokens: the model's tokenizer drops all of it",
        ),
    ],
)
def test_wrong_prefixes_are_refused(message: dict[str, Any], field: str, rule: str) -> None:
    """The field where they stand, the rule and the value."""
    with pytest.raises(InvalidRequestError) as caught:
        begun(GenerateOptions(max_new_tokens=5), **message)
    assert caught.value.field == f"inputs[1].{field}"
    assert str(caught.value) == f"`inputs[1].{field}` {rule}"
