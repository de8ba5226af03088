"""Languages of inputs: which tokens they become, and what is refused."""

from typing import Any

import pydantic
import pytest

from seqserve.errors import InvalidRequestError
from seqserve.servicers.languages import Direction, resolve_direction
from seqserve.task_record import GenerationRecord, LanguageRecord
from seqserve.v1 import generation_pb2

EOS, START = 2, 3
CODES = {"eng_Latn": 10, "deu_Latn": 11, "fra_Latn": 12, "rus_Cyrl": 13, "zho_Hans": 14}
MORE_CODES = CODES | {"zho_Hant": 15, "deu_Goth": 16}


def make_record(**languages: Any) -> GenerationRecord:
    """A model that is told its languages, as NLLB is unless said otherwise."""
    values = {
        "source": MORE_CODES,
        "target": MORE_CODES,
        "source_prefix": ("source_language",),
        "source_suffix": (EOS,),
        "target_mode": "forced_bos",
    } | languages
    return GenerationRecord(
        encode_graph="encode.onnx",
        decode_graph="decode.onnx",
        target_tokenizer="tokenizer.json",
        target_vocabulary_size=20,
        max_target_length=20,
        num_layers=1,
        num_heads=1,
        head_size=8,
        decoder_start_token_id=START,
        eos_token_id=EOS,
        pad_token_id=0,
        max_new_tokens=20,
        num_beams=1,
        length_penalty=1.0,
        languages=LanguageRecord.model_validate(values) if languages != {"none": True} else None,
    )


def resolve(
    record: GenerationRecord, *, bos_chosen_by: str | None = None, **fields: Any
) -> Direction:
    """Resolves one input."""
    message = generation_pb2.GenerateInput(**({"text": "a"} | fields))
    return resolve_direction(message, "inputs[3]", record, bos_chosen_by=bos_chosen_by)


def refusal(record: GenerationRecord, **fields: Any) -> tuple[str, str]:
    """Field and message of the refusal."""
    with pytest.raises(InvalidRequestError) as caught:
        resolve(record, **fields)
    return caught.value.field, str(caught.value)


def test_languages_become_tokens_around_the_source_and_the_first_of_the_target() -> None:
    """NLLB, M2M100, mBART-50."""
    direction = resolve(make_record(), source_language="eng_Latn", target_language="deu_Latn")
    assert direction == Direction(
        source_prefix=(10,),
        source_suffix=(EOS,),
        decoder_start_token_id=START,
        forced_bos_token_id=11,
    )


def test_decoder_starts_with_the_language() -> None:
    """mBART, whose source ends with its language."""
    record = make_record(
        source_prefix=(), source_suffix=(EOS, "source_language"), target_mode="decoder_start"
    )
    direction = resolve(record, source_language="fra_Latn", target_language="deu_Latn")
    assert direction == Direction(source_suffix=(EOS, 12), decoder_start_token_id=11)


def test_source_says_the_target_language() -> None:
    """Multilingual Marian."""
    record = make_record(source={}, source_prefix=("target_language",), target_mode="source")
    direction = resolve(record, target_language="deu_Latn")
    assert direction == Direction(
        source_prefix=(11,), source_suffix=(EOS,), decoder_start_token_id=START
    )


def test_code_in_the_text_is_refused() -> None:
    """It would stand beside that of the target language."""
    record = make_record(source={}, source_prefix=("target_language",), target_mode="source")
    field, text = refusal(record, text=">>deu_Latn<< hello", target_language="deu_Latn")
    assert field == "inputs[3].text"
    assert text.endswith("begins with a language code; name it in `target_language` instead")


def test_defaults_stand_in() -> None:
    """An input that names no language gets the model's, if it has one."""
    record = make_record(default_source="eng_Latn", default_target="fra_Latn")
    direction = resolve(record)
    assert (direction.source_prefix, direction.forced_bos_token_id) == ((10,), 12)
    assert resolve(record, target_language="deu_Latn").forced_bos_token_id == 11


def test_missing_language_is_refused() -> None:
    """With the field, and the nearest codes or all of a few."""
    assert refusal(make_record(), source_language="eng_Latn") == (
        "inputs[3].target_language",
        "`inputs[3].target_language` must be set; of its 7 languages the nearest are zho_Hant, "
        "zho_Hans, rus_Cyrl, fra_Latn, eng_Latn, and there is no default",
    )
    few = make_record(source=CODES)
    assert refusal(few, target_language="deu_Latn") == (
        "inputs[3].source_language",
        "`inputs[3].source_language` must be set; it knows deu_Latn, eng_Latn, fra_Latn, "
        "rus_Cyrl, zho_Hans, and there is no default",
    )


def test_unknown_language_is_refused_with_the_nearest() -> None:
    """The best match comes first."""
    field, text = refusal(make_record(), source_language="zho_Hanz", target_language="deu_Latn")
    assert field == "inputs[3].source_language"
    assert "is 'zho_Hanz', which the model does not know" in text
    assert "of its 7 languages the nearest are zho_Hant, zho_Hans, " in text


def test_languages_of_a_model_that_is_told_none_are_refused() -> None:
    """Never ignored."""
    record = make_record(none=True)
    assert resolve(record) == Direction(decoder_start_token_id=START)
    for name in ("source_language", "target_language"):
        field, text = refusal(record, **{name: "en"})
        assert field == f"inputs[3].{name}"
        assert text == f"`inputs[3].{name}` must not be set: the model is not told languages"
    anonymous = make_record(source={}, source_prefix=())
    field, text = refusal(anonymous, source_language="en", target_language="deu_Latn")
    assert text == (
        "`inputs[3].source_language` must not be set: the model reads every language unnamed"
    )


def test_token_ids_hold_their_source_language() -> None:
    """Only what is not part of the source can be asked for."""
    ids: dict[str, Any] = {"token_ids": generation_pb2.TokenIds(values=[10, 5, EOS])}
    direction = resolve(make_record(), **ids, text=None, target_language="deu_Latn")
    assert direction == Direction(decoder_start_token_id=START, forced_bos_token_id=11)
    for record, name in (
        (make_record(), "source_language"),
        (
            make_record(source={}, source_prefix=("target_language",), target_mode="source"),
            "target_language",
        ),
    ):
        _, text = refusal(record, **ids, text=None, **{name: "deu_Latn"})
        assert text == f"`inputs[3].{name}` must not be set: token ids are taken as they are"


def test_chosen_first_token_takes_the_place_of_the_language() -> None:
    """Both together are refused."""
    record = make_record(default_source="eng_Latn")
    assert resolve(record, bos_chosen_by="forced_bos_token_id").forced_bos_token_id is None
    field, text = refusal(record, bos_chosen_by="forced_bos_token_id", target_language="deu_Latn")
    assert field == "inputs[3].target_language"
    assert text.endswith("must not be set: `forced_bos_token_id` takes its place")


@pytest.mark.parametrize(
    ("languages", "problem"),
    [
        ({"source": {}}, "source languages and their place in the source must come together"),
        ({"target_mode": "source"}, "and its place in the source must come together"),
        ({"default_target": "xx"}, "default language 'xx' is not among the languages"),
        ({"target": {"xx": 99}}, "language xx is not in the target vocabulary"),
        ({"target_mode": "magic"}, "target_mode"),
    ],
)
def test_manifest_refuses_languages_that_do_not_fit(
    languages: dict[str, Any], problem: str
) -> None:
    """A manifest says how each language is told."""
    with pytest.raises(pydantic.ValidationError, match=problem):
        make_record(**languages)
