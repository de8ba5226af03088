"""Parameters of requests: what is set, and how it becomes a field of a request of ours.

A parameter has the name of the field. Lists are texts with JSON in them, choices are the names of
the enum's values in lower case without what they have in common, spans are seconds.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import descriptor, duration_pb2
from google.protobuf.message import Message

from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.v2 import open_inference_pb2

Value = bool | int | float | str

_Field = descriptor.FieldDescriptor
_INTEGERS = {_Field.CPPTYPE_INT32: 2**31, _Field.CPPTYPE_INT64: 2**63}
"""One more than the largest."""
_MAX_QUOTED = 80
"""Characters."""
_MAX_SECONDS = 1e9
"""More than any limit, and less than a span can hold."""


def shorten(text: str) -> str:
    """What a caller sent, short enough for a status: gRPC drops those that are too long."""
    return text if len(text) <= _MAX_QUOTED else f"{text[: _MAX_QUOTED - 3]}..."


def read_parameters(
    parameters: Mapping[str, open_inference_pb2.InferParameter],
) -> dict[str, Value]:
    """The values of parameters.

    Raises:
        InvalidRequestError: One has none.
    """
    values: dict[str, Value] = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            name = shorten(name)
            raise InvalidRequestError(name, f"the parameter `{name}` has no value")
        values[name] = getattr(parameter, kind)
    return values


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuses parameters that do not exist."""
    there = sorted(known)
    for name in names:
        if name not in there:
            name = shorten(name)
            raise InvalidRequestError(
                name,
                f"`{name}` is no parameter for these inputs; there are: {', '.join(there)}",
            )


def read_flag(values: Mapping[str, Value], name: str) -> bool:
    """A truth value, false if it is not set.

    Raises:
        InvalidRequestError: It is something else.
    """
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise _refuse(name, "true or false", value)
    return value


def read_integer(values: Mapping[str, Value], name: str) -> int:
    """An integer, 0 if it is not set.

    Raises:
        InvalidRequestError: It is something else.
    """
    value = values.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refuse(name, "an integer", value)
    return value


def set_fields(message: Message, values: Mapping[str, Value]) -> None:
    """Sets the fields of a message that are among the parameters.

    Raises:
        InvalidRequestError: A value is not of its field's type.
    """
    for name, value in values.items():
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is not None:
            _set_field(message, field, value)


def _set_field(message: Message, field: Any, value: Value) -> None:
    name = field.name
    if field.is_repeated:
        entries = _read_list(name, value)
        if field.message_type is not None:
            for entry in entries:
                _add_sequence(getattr(message, name).add(), name, entry)
        else:
            kind, what = (str, "texts") if field.cpp_type == _Field.CPPTYPE_STRING else (int, "ids")
            _check_entries(name, entries, kind, what, value)
            getattr(message, name).extend(entries)
    elif field.message_type is duration_pb2.Duration.DESCRIPTOR:
        getattr(message, name).FromNanoseconds(round(_read_number(name, value, "seconds") * 1e9))
    elif field.message_type is not None:  # a list that may be unset
        entries = _read_list(name, value)
        _check_entries(name, entries, str, "texts", value)
        part = getattr(message, name)
        part.SetInParent()
        part.labels.extend(entries)
    else:
        setattr(message, name, _read_scalar(field, value))


def _read_scalar(field: Any, value: Value) -> Value:
    name = field.name
    match field.cpp_type:
        case _Field.CPPTYPE_BOOL:
            return read_flag({name: value}, name)
        case _Field.CPPTYPE_ENUM:
            return _read_choice(field, value)
        case _Field.CPPTYPE_STRING:
            if not isinstance(value, str):
                raise _refuse(name, "a text", value)
            return value
        case _Field.CPPTYPE_DOUBLE:
            return _read_number(name, value, "", is_finite=False)
    number, limit = read_integer({name: value}, name), _INTEGERS[field.cpp_type]
    if not -limit <= number < limit:
        raise _refuse(name, f"at least {-limit} and below {limit}", value)
    return number


def _read_number(name: str, value: Value, unit: str, *, is_finite: bool = True) -> float:
    what = f"a number of {unit}" if unit else "a number"
    if isinstance(value, bool | str):
        raise _refuse(name, what, value)
    number = float(value)
    if is_finite and not (math.isfinite(number) and abs(number) <= _MAX_SECONDS):
        raise _refuse(name, f"{what} of at most {_MAX_SECONDS:g}", value)
    return number


def _read_choice(field: Any, value: Value) -> int:
    unspecified, *others = field.enum_type.values
    common = unspecified.name.removesuffix("UNSPECIFIED")
    choices = {one.name.removeprefix(common).lower(): one.number for one in others}
    if not isinstance(value, str) or value not in choices:
        raise _refuse(field.name, f"one of {', '.join(map(repr, choices))}", value)
    return int(choices[value])


def _read_list(name: str, value: Value) -> list[Any]:
    entries: Any = None
    if isinstance(value, str):
        try:
            entries = json.loads(value)
        except (ValueError, RecursionError):
            entries = None  # refused below, like JSON of something else
    if not isinstance(entries, list):
        raise _refuse(name, "a list, as JSON in a text", value)
    return entries


def _check_entries(
    name: str, entries: list[Any], kind: type[str] | type[int], what: str, value: Value
) -> None:
    for entry in entries:
        if kind is str:
            is_fitting = _is_text(entry)
        else:
            is_fitting = isinstance(entry, int) and not isinstance(entry, bool)
            is_fitting = is_fitting and abs(entry) < _INTEGERS[_Field.CPPTYPE_INT32]
        if not is_fitting:
            raise _refuse(name, f"a list of {what}, as JSON in a text", value)


def _is_text(entry: Any) -> bool:
    """Whether an entry of JSON is a text that a message can hold: JSON may hold half characters."""
    return isinstance(entry, str) and not any("\ud800" <= one <= "\udfff" for one in entry)


def _add_sequence(message: Any, name: str, entry: Any) -> None:
    if _is_text(entry):
        message.text = entry
    elif isinstance(entry, list):
        _check_entries(name, entry, int, "ids", json.dumps(entry))
        message.token_ids.SetInParent()
        message.token_ids.values.extend(entry)
    else:
        raise _refuse(name, "a list of texts or lists of ids, as JSON in a text", json.dumps(entry))


def _refuse(name: str, rule: str, value: Value) -> InvalidRequestError:
    written = shorten(repr(value) if isinstance(value, str) else str(value).lower())
    return InvalidRequestError(name, f"`{name}` must be {rule}, but is {written}")
